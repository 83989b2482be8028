"""Buyers who buy and look, one request after the other, while something is done to the servers."""

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

from tests.deployment.shop import Buyer


@dataclass
class Answers:
    """What buyers were told, by all of their threads."""

    said: Counter[tuple[str, object]] = field(default_factory=Counter)
    # {the purchase's id: its key} of those that were answered.
    bought: dict[str, str | None] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, answer: requests.Response | requests.RequestException) -> None:
        word: object = repr(answer)
        if isinstance(answer, requests.Response):
            word = answer.status_code
        with self.guard:
            self.said[what, word] += 1

    def count(self) -> int:
        return sum(self.said.values())


@contextmanager
def load(
    buyers: list[Buyer], offer: str, event: str, *, some_keyless: bool = False
) -> Iterator[Answers]:
    """Each buyer on one connection, as long as the block lasts; nobody tries again.

    ``some_keyless``: every other one buys without a key, which the proxy may not send again.
    """
    answers, stop = Answers(), threading.Event()

    def shopping(buyer: Buyer, *, keyless: bool) -> None:
        while not stop.is_set():
            key = None if keyless else uuid.uuid4().hex
            try:
                bought = buyer.buy(offer, key)
                answers.note("buy", bought)
                if bought.ok:
                    answers.bought[bought.json()["id"]] = key
            except requests.RequestException as error:
                answers.note("buy", error)
            try:
                answers.note("list", buyer.get(f"/api/v1/offers/?event={event}"))
            except requests.RequestException as error:
                answers.note("list", error)

    threads = [
        threading.Thread(
            target=shopping, args=[buyer], kwargs={"keyless": some_keyless and number % 2 == 1}
        )
        for number, buyer in enumerate(buyers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
