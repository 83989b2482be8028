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

    ``threading.Semaphore`` lets a thread that comes just then go before those that wait, and who
    waited goes to the end of the line: a buyer in twenty waited half as long again.
    """

    def __init__(self, number: int) -> None:
        self._guard = threading.Lock()
        self._free = number
        self._line: deque[threading.Lock] = deque()

    def take(self, *, again: bool = False) -> bool:
        """Return whether a turn was had: false after ``PATIENCE``.

        Who has had one for the same request goes first, ``again``: the sooner it ends, the fewer
        wait.
        """
        with self._guard:
            if self._free:
                self._free -= 1
                return True
            called = threading.Lock()
            called.acquire()
            (self._line.appendleft if again else self._line.append)(called)
        began = time.monotonic()
        was_called = called.acquire(timeout=PATIENCE)
        metrics.turn_wait.observe(time.monotonic() - began)
        if was_called:
            return True
        with self._guard:
            if called in self._line:
                self._line.remove(called)
                return False
        return True  # called right then

    def pass_on(self) -> None:
        """To the next in line, or nobody. Only by who has one."""
        with self._guard:
            if self._line:
                self._line.popleft().release()
            else:
                self._free += 1


def give_up() -> None:
    """Let others have this thread's turn, for the rest of the request.

    Called by who waits, and has little to do afterwards: less than it takes to call so many
    threads to their turns.
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
    turn, as a worker's, just waits.
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
