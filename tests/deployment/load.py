"""Buyers who buy and look, one request after the other, while something is done to the servers."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import requests

from tests.deployment.shop import Buyer


@dataclass
class Answers:
    """What buyers were told, by all of their threads."""

    said: Counter[tuple[str, object]] = field(default_factory=Counter)
    # {the purchase's id: its key} of those that were answered.
    bought: dict[str, str | None] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, what: str, ask: Callable[[], requests.Response], *, again_if_broken_off: bool
    ) -> requests.Response | None:
        """Ask, and write down how that went; the answer, if there was one."""
        answer, word = None, ""
        for may_go_on in (again_if_broken_off, False):
            try:
                answer = ask()
            except requests.RequestException as error:
                word = repr(error)
                # The name that requests has for any body that broke off.
                if may_go_on and isinstance(error, requests.exceptions.ChunkedEncodingError):
                    continue
            break
        with self.guard:
            self.said[what, word if answer is None else answer.status_code] += 1
        return answer

    def count(self) -> int:
        return sum(self.said.values())


@contextmanager
def load(
    buyers: list[Buyer],
    offer: str,
    event: str,
    *,
    some_keyless: bool = False,
    again_if_broken_off: bool = False,
) -> Iterator[Answers]:
    """Each buyer on one connection, as long as the block lasts; nobody tries again.

    ``some_keyless``: every other one buys without a key, which the proxy may not send again.
    ``again_if_broken_off``: who got half an answer asks once more, with the same key. No proxy can
    take back what a server said before it was killed.
    """
    answers, stop = Answers(), threading.Event()

    def shopping(buyer: Buyer, *, keyless: bool) -> None:
        look = partial(buyer.get, f"/api/v1/offers/?event={event}")
        while not stop.is_set():
            key = None if keyless else uuid.uuid4().hex
            buy = partial(buyer.buy, offer, key)
            bought = answers.note("buy", buy, again_if_broken_off=again_if_broken_off)
            if bought is not None and bought.ok:
                answers.bought[bought.json()["id"]] = key
            answers.note("list", look, again_if_broken_off=again_if_broken_off)

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
