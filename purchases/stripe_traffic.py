"""How much of this process may wait for Stripe at once, and when Stripe is left in peace.

While Stripe hangs, every call keeps its thread for many seconds; without a bound all of the web
server's threads would soon wait there, and lists, webhooks and admin with them. Per process: the
threads that have to be saved are this process's own.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection

from purchases.errors import ProviderSaturated, ProviderTurnedAway

# Seconds. A call that takes longer than this is a sign of a Stripe that hangs.
SLOW = 1.0
# Who finds no room waits so long for some, as long as calls do come back.
PATIENCE = 2.0


class Bulkhead:
    """Room for ``settings.STRIPE_CONCURRENT_CALLS`` conversations with Stripe.

    A conversation may be several calls of one thread, and what lies between them. When there is no
    room, a short rush is waited for; but once the calls in it are slow, whoever comes is refused at
    once (``ProviderSaturated``).
    """

    def __init__(self) -> None:
        self._room = threading.Condition()
        self._inside = 0
        self._calls: dict[int, float] = {}
        self._mine = threading.local()

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """Take room for the block; nothing more is taken if this thread has some already."""
        if getattr(self._mine, "inside", False):
            yield
            return
        self._enter()
        self._mine.inside = True
        try:
            yield
        finally:
            self._mine.inside = False
            with self._room:
                self._inside -= 1
                self._room.notify()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Mark the block as one call, whose length tells whether Stripe hangs."""
        me = threading.get_ident()
        with self.conversation():
            with self._room:
                self._calls[me] = time.monotonic()
            try:
                yield
            finally:
                with self._room:
                    del self._calls[me]

    def _enter(self) -> None:
        with self._room:
            if self._inside < settings.STRIPE_CONCURRENT_CALLS:
                self._inside += 1
                return
        if not connection.in_atomic_block:
            connection.close()  # nobody waits with a connection in hand
        end = time.monotonic() + PATIENCE
        with self._room:
            while self._inside >= settings.STRIPE_CONCURRENT_CALLS:
                left = min(end, self._slow_at()) - time.monotonic()
                if left <= 0:
                    raise ProviderSaturated
                self._room.wait(left)
            self._inside += 1

    def _slow_at(self) -> float:
        """When the oldest call under way is, or was, a slow one."""
        return min(self._calls.values(), default=time.monotonic()) + SLOW


class Backoff:
    """After a 429 Stripe is left alone: a quarter of a second, twice as long each time, up to 30 s.

    https://docs.stripe.com/rate-limits asks for an exponential back-off with some randomness. A
    short pause is waited for; during a longer one callers are turned away without asking.
    """

    FIRST = 0.25
    LONGEST = 30.0

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._pause = 0.0
        self._until = 0.0

    def wait(self) -> None:
        """Sit a short pause out; raises ``ProviderTurnedAway`` for a longer one."""
        left = self._until - time.monotonic()
        if left <= 0:
            return
        if left > SLOW:
            raise ProviderTurnedAway
        # Not all at the same moment, or the next second's limit is hit as well.
        time.sleep(left * random.uniform(1.0, 1.5))  # noqa: S311 - no secret

    def turned_away(self) -> None:
        """Note a 429. Those that were on their way together count as one."""
        with self._guard:
            now = time.monotonic()
            if now >= self._until:
                self._pause = min(max(self.FIRST, self._pause * 2), self.LONGEST)
                self._until = now + self._pause

    def answered(self) -> None:
        """Note that Stripe took a request: the next 429 begins with a short pause again."""
        if self._pause:
            with self._guard:
                if time.monotonic() >= self._until:
                    self._pause = 0.0


bulkhead = Bulkhead()
backoff = Backoff()
