"""Nudges to the worker: the first at once, those of a rush together."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from offers import wake as nudges
from tests.local_processes import wait_for


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was sent, without a broker: which messages, and how many, is the matter here."""
    messages: list[Any] = []
    monkeypatch.setattr(nudges, "_send", lambda name, args: messages.append((name, *args)))
    monkeypatch.setattr(nudges, "_rush", nudges._Rush())
    yield messages
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and thread.function.__module__ == nudges.__name__:
            thread.join()


def test_first_message_of_a_kind_is_sent_at_once(sent: list[Any]) -> None:
    nudges.wake("deliver_purchase", "a", together="deliver")
    assert sent == [("deliver_purchase", "a")]


def test_rush_is_told_together_once_it_is_over(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudges, "RUSH", 0.5)
    for number in range(50):
        nudges.wake("deliver_purchase", str(number), together="deliver")
    assert sent == [("deliver_purchase", "0")]
    wait_for(lambda: len(sent) == 2, "the message for all the others")
    assert sent[1] == ("deliver",)


def test_kinds_do_not_wait_for_each_other(sent: list[Any]) -> None:
    nudges.wake("deliver_purchase", "a", together="deliver")
    nudges.wake("send_email", "b", together="send_emails")
    nudges.wake("sync_offer", "c")
    nudges.wake("sync_offer", "d")
    assert [name for name, *_ in sent] == [
        "deliver_purchase", "send_email", "sync_offer", "sync_offer",
    ]  # fmt: skip


def test_threads_in_a_rush_leave_nothing_untold(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is committed before a call is followed by a message that was sent after it."""
    monkeypatch.setattr(nudges, "RUSH", 0.001)
    seen_by: list[int] = []
    committed = [0]
    monkeypatch.setattr(nudges, "_send", lambda *_: seen_by.append(committed[0]))
    guard = threading.Lock()

    def buy() -> None:
        for _ in range(200):
            with guard:
                committed[0] += 1
            nudges.wake("deliver_purchase", together="deliver")

    threads = [threading.Thread(target=buy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: seen_by[-1] == 800, "a message after the last commit")
    assert len(seen_by) < 800
