"""How many requests of a process are worked on at once; the others wait for their turn.

A web server needs many threads, since many wait for Stripe at once. But Python runs one of them at
a time, and each trip to PostgreSQL or Redis passes the interpreter on: with 32 threads at work a
process spent a quarter of its time on passing (docs/scaling.md). So a request takes a turn, and
gives it up for as long as it waits for what takes long.

A turn is no guard of anything, and nobody waits long for one: should those who have one be stuck,
at a row that somebody keeps locked or a server that hangs, the others go on without.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from offers import metrics

# Seconds. Longer than the line of a rush takes, all threads of a process on half a processor.
PATIENCE = 0.5

_mine = threading.local()


class Turns:
    """So many turns, first come, first served; a turn is passed on, never put up for whoever runs.

    With ``queue.SimpleQueue`` a thread that comes just then may go before who waits: of twenty
    buyers the slowest waited two to three times as long. ``threading.Semaphore`` allows the same.
    """

    def __init__(self, number: int) -> None:
        self._guard = threading.Lock()
        self._free = number
        self._line: deque[threading.Lock] = deque()
        # Those who have had a turn for the same request already.
        self._back: deque[threading.Lock] = deque()
        self._passed = 0
        self._is_stuck = False

    def take(self, *, again: bool = False) -> bool:
        """Return whether a turn was had: false after ``PATIENCE``.

        False at once while those who have a turn are known to be stuck: one has waited, and no turn
        was passed on meanwhile. Who comes back, ``again``, goes before the line: the sooner their
        requests end, the fewer wait.
        """
        with self._guard:
            if self._free:
                self._free -= 1
                return True
            if self._is_stuck:
                return False
            called = threading.Lock()
            called.acquire()
            line = self._back if again else self._line
            line.append(called)
            passed = self._passed
        began = time.monotonic()
        try:
            was_called = called.acquire(timeout=PATIENCE)
            metrics.turn_wait.observe(time.monotonic() - began)
        except BaseException:
            if not self._leave(line, called):
                self.pass_on()  # nobody else knows that it is ours
            raise
        if was_called or not self._leave(line, called):
            return True
        with self._guard:
            if self._passed == passed:
                self._is_stuck = True
        return False

    def pass_on(self) -> None:
        """To the next in line, or nobody. Only by who has one."""
        with self._guard:
            self._passed += 1
            self._is_stuck = False
            if line := self._back or self._line:
                line.popleft().release()
            else:
                self._free += 1

    def _leave(self, line: deque[threading.Lock], called: threading.Lock) -> bool:
        """Whether there was a place in line to leave; if not, a turn was passed on to it."""
        with self._guard:
            if called in line:
                line.remove(called)
                return True
            return False


def give_up() -> None:
    """Let others have this thread's turn, for the rest of the request.

    Called by those who wait for one and the same: to call each to its turn would take longer than
    what they have left to do.
    """
    turns: Turns | None = getattr(_mine, "turns", None)
    if turns is not None:
        _mine.turns = None
        turns.pass_on()


@contextmanager
def let_others() -> Iterator[None]:
    """Let others have this thread's turn during the block, which waits for something slow.

    Called by whoever waits for another server, or another thread, longer than for a statement; not
    in a transaction, whose locks would be kept while it waits for a turn again. A thread without a
    turn, as a worker's, just waits. What the block raises may come ``PATIENCE`` later.
    """
    turns: Turns | None = getattr(_mine, "turns", None)
    give_up()
    try:
        yield
    finally:
        if turns is not None and turns.take(again=True):
            _mine.turns = turns


def few_at_once(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: a turn for each request, ``settings.REQUESTS_AT_ONCE`` of them in a process.

    What is streamed is so without a turn: a slow client keeps none.
    """
    turns = Turns(settings.REQUESTS_AT_ONCE)

    def middleware(request: HttpRequest) -> HttpResponseBase:
        _mine.turns = turns if turns.take() else None
        try:
            return get_response(request)
        finally:
            give_up()

    return middleware
