"""Readings that are shared: fresh for everybody who shares them, and few."""

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from offers.shared_reads import SharedReads
from tests.sandbox_process import wait_for

SECONDS = 10


class Slow:
    """Something to read that takes until it is let go, and counts how often it was read."""

    def __init__(self) -> None:
        self.begun: list[threading.Event] = []
        self.error: Exception | None = None

    def read(self) -> int:
        let_go = threading.Event()
        self.begun.append(let_go)
        number = len(self.begun)
        assert let_go.wait(SECONDS)
        if self.error:
            raise self.error
        return number


class Asking:
    """Threads that ask, each until it has its answer."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.shared: SharedReads[Any] = SharedReads()
        self.slow = Slow()

    def __call__(self, key: Any = "page") -> Future[Any]:
        return self.pool.submit(self.shared.get, key, self.slow.read)

    def together(self, how_many: int) -> list[Future[Any]]:
        """So many ask while the first reading runs, and all wait for the second."""
        answers = [self() for _ in range(how_many)]
        wait_for(lambda: self._waiting() == how_many)
        return answers

    def _waiting(self) -> int:
        """How many wait for a reading that has not begun; one of them will read it."""
        reading: Any = self.shared._to_begin.get("page")
        return 0 if reading is None else 1 + len(reading._condition._waiters)


@pytest.fixture
def asking() -> Any:
    with ThreadPoolExecutor(max_workers=32) as pool:
        yield Asking(pool)


def test_who_comes_during_a_reading_gets_one_that_begins_later(asking: Asking) -> None:
    first = asking()
    wait_for(lambda: len(asking.slow.begun) == 1)
    second = asking.together(1)
    asking.slow.begun[0].set()
    assert first.result(SECONDS) == 1
    wait_for(lambda: len(asking.slow.begun) == 2)
    asking.slow.begun[1].set()
    assert second[0].result(SECONDS) == 2


def test_all_who_wait_share_one_reading(asking: Asking) -> None:
    first = asking()
    wait_for(lambda: len(asking.slow.begun) == 1)
    waiting = asking.together(20)
    asking.slow.begun[0].set()
    wait_for(lambda: len(asking.slow.begun) == 2)
    asking.slow.begun[1].set()
    assert Counter(answer.result(SECONDS) for answer in [first, *waiting]) == {1: 1, 2: 20}
    assert len(asking.slow.begun) == 2


def test_failure_is_everybodys_who_waited_and_nobodys_after(asking: Asking) -> None:
    first = asking()
    wait_for(lambda: len(asking.slow.begun) == 1)
    waiting = asking.together(5)
    asking.slow.error = OSError("away")
    asking.slow.begun[0].set()
    wait_for(lambda: len(asking.slow.begun) == 2)
    asking.slow.begun[1].set()
    for answer in (first, *waiting):
        with pytest.raises(OSError, match="away"):
            answer.result(SECONDS)
    assert len(asking.slow.begun) == 2

    asking.slow.error = None
    after = asking()
    wait_for(lambda: len(asking.slow.begun) == 3)
    asking.slow.begun[2].set()
    assert after.result(SECONDS) == 3


def test_what_is_asked_for_differently_is_read_at_the_same_time(asking: Asking) -> None:
    answers = [asking(key) for key in ("anybody's", "a member's")]
    wait_for(lambda: len(asking.slow.begun) == 2)
    for let_go in asking.slow.begun:
        let_go.set()
    assert {answer.result(SECONDS) for answer in answers} == {1, 2}


def test_nothing_is_kept() -> None:
    shared: SharedReads[int] = SharedReads()
    numbers = iter(range(3))
    assert [shared.get("page", lambda: next(numbers)) for _ in range(3)] == [0, 1, 2]
    assert not shared._running
    assert not shared._to_begin


def test_no_answer_is_older_than_its_question() -> None:
    """A number that only grows, read by many: nobody gets one that was passed before they asked."""
    shared: SharedReads[int] = SharedReads()
    written, stop, stale = [0], threading.Event(), []

    def read() -> int:
        number = written[0]
        threading.Event().wait(0.0005)  # a reading that takes its time after it has looked
        return number

    def ask() -> int:
        asked = 0
        while not stop.is_set():
            at_least = written[0]
            if shared.get("number", read) < at_least:
                stale.append(at_least)
            asked += 1
        return asked

    with ThreadPoolExecutor(max_workers=8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        for _ in range(2_000):
            written[0] += 1
            threading.Event().wait(0.0001)
        stop.set()
        assert sum(answer.result(SECONDS) for answer in asking) > 100
    assert stale == []
