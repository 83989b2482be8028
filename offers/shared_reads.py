"""One reading of the database for everybody who asks for the same at the same moment.

Not a cache: nothing is kept once it was handed out. Whoever asks gets what was read after they
asked, so an answer is as fresh as if each had read for themselves, and there is nothing to expire
and nothing to invalidate. Within a process only, so that Redis has no part in it.
"""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from offers import turns

T = TypeVar("T")

# Seconds. In a rush a reading is put off for so long, for those to share it who are just asking:
# they have no turn while a thread of ours reads. Who asks alone waits for nobody.
GATHER = 0.01


class SharedReads(Generic[T]):
    """Readings by what is read; at most one of each runs, and at most one waits to begin.

    A reading that has begun may have missed what was committed since, so who comes then waits for
    it to end and shares the next one with all who came meanwhile. The more ask at once, the more
    share: the database is asked as often as it can answer, however many there are.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[Hashable, Future[T]] = {}
        self._to_begin: dict[Hashable, Future[T]] = {}

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what ``read`` returns, called here or by another thread after this call began.

        ``key`` must name everything that the result depends on, and the result must be fit for
        several threads. Raises what ``read`` raises, in each thread that waited for it: a database
        that is away is asked once, too.
        """
        with self._guard:
            joined = self._to_begin.get(key)
            if joined is None:
                own: Future[T] = Future()
                self._to_begin[key] = own
                before = self._running.get(key)
        if joined is not None:
            turns.give_up()
            return joined.result()
        if before is not None:
            turns.give_up()
            wait([before])  # how it ends concerns those who wait for it
            time.sleep(GATHER)
        with self._guard:
            del self._to_begin[key]
            self._running[key] = own
        try:
            own.set_result(read())
        except BaseException as error:  # noqa: BLE001 - raised below, and where it is waited for
            own.set_exception(error)
        with self._guard:
            if self._running.get(key) is own:
                del self._running[key]
        return own.result()
