"""A stand-in for Stripe on loopback, for local runs and tests.

It is a process of its own with state of its own: it imports nothing of this project and no Django,
and the application knows it only as `STRIPE_API_BASE`. Start it with `python -m
offers_project.stripe_sandbox --port 12111` or `python manage.py stripe_sandbox --port 12111`.

Its event loop is its lock: whatever changes state runs without an `await`, so two requests never
interleave inside a change. `Store.commit` then writes the change to SQLite, when a file was given.
"""
