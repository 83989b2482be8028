"""How much of this process may wait for Stripe at once, and when Stripe is left in peace.

While Stripe hangs, every call keeps its thread for many seconds; without a bound all of the web
server's threads would soon wait there, and lists, webhooks and admin with them. Per process: the
threads that have to be saved are this process's own.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection

from offers import metrics
from offers.turns import let_others
from purchases.errors import ProviderSaturated, ProviderTurnedAway

# Seconds. When no call has come back for so long, Stripe is taken to hang.
STALLED = 1.5
# The same, while it has been seen hanging: just enough to find out that it is back.
STALLED_AGAIN = 0.5
# Who finds no room waits so long for some, as long as calls do come back.
PATIENCE = 3.0
# That Stripe hangs is remembered for so long, unless a call comes back: longer than a call lasts.
MEMORY = 15.0


class Bulkhead:
    """Room for ``settings.STRIPE_CONCURRENT_CALLS`` conversations with Stripe.

    A conversation may be several calls of one thread, and what lies between them. When there is no
    room, a rush is waited for, first come, first served; but once no call comes back any more,
    whoever waits is refused, and whoever comes then is refused at once (``ProviderSaturated``),
    until one does. A slow call among quick ones refuses nobody.
    """

    def __init__(self) -> None:
        self._room = threading.Condition()
        self._inside = 0
        self._queue: deque[int] = deque()
        # When each call under way began, by thread; when the last one came back.
        self._calls: dict[int, float] = {}
        self._last_return = 0.0
        self._hung_at: float | None = None
        self._mine = threading.local()

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """Take room for the block; nothing more is taken if this thread has some already."""
        if getattr(self._mine, "inside", False):
            yield
            return
        self._enter()
        self._mine.inside = True
        metrics.stripe_inside.inc()
        try:
            yield
        finally:
            self._mine.inside = False
            metrics.stripe_inside.dec()
            with self._room:
                self._inside -= 1
                self._room.notify_all()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Mark the block as one call, whose return tells that Stripe doesn't hang."""
        me = threading.get_ident()
        with self.conversation():
            began = time.monotonic()
            with self._room:
                self._calls[me] = began
            answered = False
            try:
                yield
                answered = True
            finally:
                now = time.monotonic()
                metrics.stripe_call.observe(now - began)
                with self._room:
                    del self._calls[me]
                    if answered or now - began < settings.STRIPE_READ_TIMEOUT:
                        self._hung_at, self._last_return = None, now
                    else:
                        self._hung_at = now  # a time-out is no return

    def has_room(self) -> bool:
        """Whether who comes now enters without waiting; a moment later it may be otherwise."""
        with self._room:
            return self._has_room()

    def _enter(self) -> None:
        with self._room:
            if self._has_room():
                self._inside += 1
                return
        if not connection.in_atomic_block:
            connection.close()  # nobody waits with a connection in hand
        me = threading.get_ident()
        end = time.monotonic() + PATIENCE
        with let_others(), metrics.stripe_waiting.track_inprogress(), self._room:
            self._queue.append(me)
            try:
                while not self._has_room():
                    now, stalled_at = time.monotonic(), self._stalled_at()
                    if now >= stalled_at:
                        self._hung_at = now
                    if now >= min(end, stalled_at):
                        metrics.stripe_refused.labels("saturated").inc()
                        raise ProviderSaturated
                    self._room.wait(min(end, stalled_at) - now)
                self._inside += 1
            finally:
                self._queue.remove(me)
                self._room.notify_all()  # the next one is first now

    def _has_room(self) -> bool:
        """Whether this thread may enter: there is room, and nobody waits who came earlier."""
        is_first = not self._queue or self._queue[0] == threading.get_ident()
        return is_first and self._inside < settings.STRIPE_CONCURRENT_CALLS

    def _stalled_at(self) -> float:
        """When the calls under way will have kept us waiting for too long, or have."""
        now = time.monotonic()
        if self._hung_at is not None and now - self._hung_at < MEMORY:
            # Those from before may take long to end: the newest one tells whether Stripe is back.
            newest = max(self._calls.values(), default=now)
            return max(newest, self._last_return) + STALLED_AGAIN
        oldest = min(self._calls.values(), default=now)
        return max(oldest, self._last_return) + STALLED


class Backoff:
    """After a 429 Stripe is left alone: a quarter of a second, twice as long each time, up to 30 s.

    https://docs.stripe.com/rate-limits asks for an exponential back-off with some randomness. A
    short pause is waited for; during a longer one callers are turned away without asking, and when
    it is over one of them asks first.
    """

    FIRST = 0.25
    LONGEST = 30.0
    # Seconds that are waited for rather than refused.
    SHORT = 1.0
    # How long the one that asks after a long pause may take until another one may.
    ONE_AT_A_TIME = 5.0

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._pause = 0.0
        self._until = 0.0
        self._last_429 = 0.0
        self._mine = threading.local()

    def wait(self) -> None:
        """Sit a short pause out; raises ``ProviderTurnedAway`` for a longer one.

        To be called right before the call that ``turned_away`` or ``answered`` then tells about.
        """
        while (left := self._left()) > 0:
            # Not all at the same moment: who asks first may find out that it is too soon.
            time.sleep(left * random.uniform(1.0, 1.5))  # noqa: S311 - no secret
        self._mine.asked_at = time.monotonic()

    def refuse_in_a_long_pause(self) -> None:
        """Raise ``ProviderTurnedAway`` if ``wait`` would: for who has something to lose by then."""
        with self._guard:
            if self._pause > self.SHORT and self._until > time.monotonic():
                metrics.stripe_refused.labels("turned_away").inc()
                raise ProviderTurnedAway

    def _left(self) -> float:
        """Seconds of the pause that are left, zero or less when the caller may ask."""
        with self._guard:
            now = time.monotonic()
            left = self._until - now
            if self._pause > self.SHORT:
                if left > 0:
                    metrics.stripe_refused.labels("turned_away").inc()
                    raise ProviderTurnedAway
                self._until = now + self.ONE_AT_A_TIME
            return left

    def turned_away(self) -> None:
        """Note a 429. Those that were on their way together count as one."""
        with self._guard:
            now = time.monotonic()
            if self._mine.asked_at >= self._last_429:
                self._pause = min(max(self.FIRST, self._pause * 2), self.LONGEST)
                self._until = now + self._pause
                self._last_429 = now

    def answered(self) -> None:
        """Note that Stripe took a request: the next 429 begins with a short pause again.

        Unless it was on its way already when the last 429 came: that says nothing of now.
        """
        if self._pause:
            with self._guard:
                if self._mine.asked_at > self._last_429:
                    self._pause = self._until = 0.0


bulkhead = Bulkhead()
backoff = Backoff()
