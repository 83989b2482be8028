"""The site as people meet it: in a real browser, with a mouse, a keyboard and a small screen.

A page that logs an error, breaks its own Content-Security-Policy, asks for what isn't there or asks
anybody else fails the test that opened it, whatever else the test is about.
"""
