"""Organizations' own systems hear of what happens: signed events, by the Standard Webhooks rules.

https://www.standardwebhooks.com. Whoever makes something true calls ``publish`` in the same
transaction; everything else here is about getting the event to its endpoints.
"""

from purchases.subscribers.publishing import publish

__all__ = ["publish"]
