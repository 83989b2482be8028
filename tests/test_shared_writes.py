"""Writes that are shared: one transaction for all who wait, and nobody waits for long."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest, HttpResponse

from offers import shared_writes, turns
from offers.shared_writes import SharedWrites
from tests.sandbox_process import wait_for

SECONDS = 30
MOST = 4


class Writing:
    """Threads that want something written, and what was written together."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.written: list[list[str]] = []
        self.alone: list[str] = []
        self.ended_in: dict[str, int] = {}
        self.error: BaseException | None = None
        self.may_write = threading.Event()
        self.may_write.set()
        self.doors: dict[str, threading.Event] = {}
        self.shared: SharedWrites[str, str] = SharedWrites(self._write_all)

    def _write_all(self, wishes: list[str]) -> list[Callable[[], str]]:
        self.written.append(wishes)
        assert self.may_write.wait(SECONDS)
        if self.error:
            raise self.error
        return [lambda wish=wish: self._end(wish) for wish in wishes]  # type: ignore[misc]

    def _end(self, wish: str) -> str:
        self.ended_in[wish] = threading.get_ident()
        return f"{wish} with others"

    def want(self, wish: str, key: str = "row", most: int = MOST) -> tuple[str, int]:
        """In a thread: what came of it, and which thread that was."""

        def alone() -> str:
            self.alone.append(wish)
            assert wish not in self.doors or self.doors[wish].wait(SECONDS)
            return f"{wish} alone"

        return self.shared.do(key, wish, alone=alone, most=most), threading.get_ident()

    def send(self, wish: str, **how: Any) -> "Future[tuple[str, int]]":
        return self.pool.submit(self.want, wish, **how)

    def hold_up(self) -> "Future[tuple[str, int]]":
        """Somebody is at the row until their door opens."""
        self.doors["first"] = threading.Event()
        first = self.send("first")
        wait_for(lambda: self.alone == ["first"])
        return first

    def send_to_the_line(self, *wishes: str) -> list["Future[tuple[str, int]]"]:
        sent = []
        for number, wish in enumerate(wishes, start=len(self.shared._lines["row"]) + 1):
            sent.append(self.send(wish))
            wait_for(lambda number=number: len(self.shared._lines["row"]) == number)
        return sent


def ends(sent: "list[Future[tuple[str, int]]]") -> list[str]:
    return [each.result(SECONDS)[0] for each in sent]


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writing]:
    monkeypatch.setattr(shared_writes, "PATIENCE", SECONDS)
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield Writing(pool)


def test_who_comes_while_nobody_is_there_writes_alone(writing: Writing) -> None:
    assert [writing.want("one")[0], writing.want("two")[0]] == ["one alone", "two alone"]
    assert writing.shared._lines == {}


def test_those_who_come_meanwhile_are_written_together(writing: Writing) -> None:
    first = writing.hold_up()
    others = writing.send_to_the_line("a", "b", "c")
    assert writing.written == []
    writing.doors["first"].set()
    assert ends([first, *others]) == ["first alone", *(f"{x} with others" for x in "abc")]
    assert writing.written == [["a", "b", "c"]]
    assert writing.shared._lines == {}


def test_each_thread_ends_its_own(writing: Writing) -> None:
    writing.hold_up()
    others = writing.send_to_the_line("a", "b", "c")
    writing.doors["first"].set()
    threads = {wish: each.result(SECONDS)[1] for wish, each in zip("abc", others, strict=True)}
    assert writing.ended_in == threads
    assert len(set(threads.values())) == 3


def test_no_more_go_together_than_are_allowed_and_in_the_order_in_which_they_came(
    writing: Writing,
) -> None:
    writing.hold_up()
    others = writing.send_to_the_line(*"abcdef")
    writing.doors["first"].set()
    assert ends(others) == [f"{x} with others" for x in "abcdef"]
    assert writing.written == [["a", "b", "c", "d"], ["e", "f"]]


def test_who_comes_during_a_shared_write_is_written_after_it(writing: Writing) -> None:
    writing.hold_up()
    others = writing.send_to_the_line("a", "b")
    writing.may_write.clear()
    writing.doors["first"].set()
    wait_for(lambda: writing.written == [["a", "b"]])
    others += writing.send_to_the_line("c")
    writing.may_write.set()
    assert ends(others) == [f"{x} with others" for x in "abc"]
    assert writing.written == [["a", "b"], ["c"]]


def test_error_is_raised_to_all_and_the_next_are_written(writing: Writing) -> None:
    writing.hold_up()
    others = writing.send_to_the_line("a", "b")
    writing.error = ZeroDivisionError("as it happens")
    writing.doors["first"].set()
    assert [type(each.exception(SECONDS)) for each in others] == [ZeroDivisionError] * 2
    assert writing.want("c")[0] == "c alone"


def test_error_of_who_writes_alone_leaves_the_line_to_the_next(writing: Writing) -> None:
    def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writing.shared.do("row", "broken", alone=broken, most=MOST)
    assert writing.shared._lines == {}


def test_who_goes_away_is_not_called(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    first = writing.hold_up()
    with monkeypatch.context() as broken:
        broken.setattr(BaseDatabaseWrapper, "close", Mock(side_effect=ZeroDivisionError))
        assert isinstance(writing.send("a").exception(SECONDS), ZeroDivisionError)
    others = writing.send_to_the_line("b")
    writing.doors["first"].set()
    assert ends([first, *others]) == ["first alone", "b with others"]
    assert writing.shared._lines == {}


def test_who_has_waited_long_enough_writes_alone(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = writing.hold_up()
    monkeypatch.setattr(shared_writes, "PATIENCE", 0.01)
    assert ends([writing.send("a"), writing.send("b")]) == ["a alone", "b alone"]
    assert not first.done()
    writing.doors["first"].set()
    assert ends([first]) == ["first alone"]
    assert (writing.written, writing.shared._lines) == ([], {})


def test_who_is_being_written_waits_for_what_comes_of_it(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, goes_on_waiting = Future.result, threading.Event()

    def too_late(future: "Future[Any]", timeout: float | None = None) -> Any:
        """The patience of who is being written has an end just then."""
        if timeout == shared_writes.PATIENCE:
            wait_for(lambda: future.done() or bool(writing.written))
            timeout = 0
        elif timeout is None:
            goes_on_waiting.set()
        return result(future, timeout)

    monkeypatch.setattr(shared_writes, "PATIENCE", 2 * SECONDS)
    writing.hold_up()
    monkeypatch.setattr(Future, "result", too_late)
    others = writing.send_to_the_line("a", "b")
    writing.may_write.clear()
    writing.doors["first"].set()
    assert goes_on_waiting.wait(SECONDS)
    assert not others[1].done()
    writing.may_write.set()
    assert ends(others) == ["a with others", "b with others"]
    assert writing.alone == ["first"]


def test_writes_to_something_else_wait_for_nobody(writing: Writing) -> None:
    first = writing.hold_up()
    assert writing.want("other", key="other")[0] == "other alone"
    writing.doors["first"].set()
    assert ends([first]) == ["first alone"]


def test_one_at_most_is_each_alone(writing: Writing) -> None:
    first = writing.hold_up()
    assert writing.want("a", most=1)[0] == "a alone"
    writing.doors["first"].set()
    ends([first])


def test_who_waits_lets_others_have_their_turn(
    settings: Any, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUESTS_AT_ONCE = 1
    monkeypatch.setattr(turns, "PATIENCE", 10 * SECONDS)

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(writing.want(request.META["name"])[0])

    in_turn: Callable[[HttpRequest], Any] = turns.few_at_once(view)

    def ask(name: str) -> "Future[Any]":
        request = HttpRequest()
        request.META["name"] = name
        return writing.pool.submit(in_turn, request)

    writing.hold_up()
    asked = []
    for number, name in enumerate("abc", start=1):
        asked.append(ask(name))
        wait_for(lambda number=number: len(writing.shared._lines["row"]) == number)
    writing.doors["first"].set()
    assert [each.result(SECONDS).content for each in asked] == [
        f"{name} with others".encode() for name in "abc"
    ]
