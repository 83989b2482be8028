"""Buyers: they look, buy, pay or don't, click twice, come late, and ask what became of it.

Each is a thread with a chance of its own (`rng`), so that a seed gives the same intentions again;
the order in which fifty of them are served is left to the machine.
"""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import requests

from tests.chaos.bank import Bank
from tests.chaos.client import Answer, Client
from tests.chaos.journal import Journal

EVENT = "demo-conf"
DOUBLE_CLICK = 0.12
POLLS = 0.4
PAYS_OLD_ONES = 0.5
# How often a buyer does what, once there is something to pay.
ACTS = {
    "pay": 42,
    "pay at the last moment": 8,
    "pay later": 14,
    "decline, then pay": 6,
    "decline, then leave": 4,
    "pay and cancel at once": 4,
    "cancel": 10,
    "walk away": 12,
}


class Buyer(threading.Thread):
    """One attendee, until `over` is set; then they only finish what they began."""

    def __init__(
        self,
        name: str,
        *,
        url: str,
        sandbox_url: str,
        wares: dict[str, int],
        journal: Journal,
        over: threading.Event,
        seed: int,
        think: tuple[float, float],
    ) -> None:
        """`wares` are offer ids and how much they are wanted."""
        super().__init__(name=name, daemon=True)
        self._client = Client(url, name, journal, over)
        self._second_tab = self._client.twin()
        self._bank = Bank(sandbox_url)
        self._wares = wares
        self._journal = journal
        self._over = over
        self._rng = Random(f"{seed}/{name}")  # noqa: S311 - chance that can be repeated
        self._think = think
        self._has_too_many = False
        self._later: list[tuple[float, Callable[[], None]]] = []

    def run(self) -> None:
        """Buy until the storm is over."""
        self._over.wait(self._rng.uniform(0, self._think[1]))
        if self._client.log_in(self._rng):
            self._second_tab = self._client.twin()
            while not self._over.is_set():
                self._visit()
                self._do_what_is_due()
                self._over.wait(self._rng.uniform(*self._think))
        self._do_what_is_due(everything=True)

    def _visit(self) -> None:
        self._client.call("look", "GET", f"offers/?event={EVENT}")
        (offer,) = self._rng.choices(list(self._wares), list(self._wares.values()))
        purchase = self._buy(offer, self._rng.choice((1, 1, 1, 2, 2, 3)))
        if purchase is None:
            if self._has_too_many:
                self._make_room()
            return
        if purchase["status"] == "awaiting_payment":
            self._decide(purchase)
        if self._rng.random() < POLLS:
            self._poll(purchase["id"])

    # -- Buying -----------------------------------------------------------------------------------

    def _buy(self, offer: str, quantity: int) -> dict[str, Any] | None:
        key = str(uuid.UUID(int=self._rng.getrandbits(128)))
        wanted = {"offer": offer, "quantity": quantity}
        self._journal.note_try(key)
        click = None
        if self._rng.random() < DOUBLE_CLICK:
            click = threading.Thread(target=self._click_again, args=(wanted, key), daemon=True)
            click.start()
        answer = self._client.call_patiently(
            "buy", "POST", "purchases/", self._rng, json=wanted, key=key
        )
        if click is not None:
            click.join()
        return self._take(answer, wanted, key)

    def _click_again(self, wanted: dict[str, Any], key: str) -> None:
        self._take(
            self._second_tab.call("buy", "POST", "purchases/", json=wanted, key=key), wanted, key
        )

    def _take(
        self, answer: Answer | None, wanted: dict[str, Any], key: str
    ) -> dict[str, Any] | None:
        """Check and note what a purchase was answered; the purchase, if there is one."""
        self._has_too_many = answer is not None and "too_many_open_holds" in answer.codes
        if answer is None or answer.status not in (200, 201):
            return None
        purchase: dict[str, Any] = answer.body
        if answer.replayed != (answer.status == 200):
            self._journal.violation("replays say so", f"{answer}")
        if any(purchase[field] != value for field, value in wanted.items()):
            self._journal.violation("a purchase is of what was asked for", f"{wanted}: {purchase}")
        self._journal.note_purchase(self.name, purchase, key=key, made=answer.status == 201)
        return purchase

    # -- Paying, or not ---------------------------------------------------------------------------

    def _decide(self, purchase: dict[str, Any]) -> None:
        session = purchase["checkout_session_id"]
        (act,) = self._rng.choices(list(ACTS), list(ACTS.values()))
        if act == "pay":
            self._at_stripe(session, "pay")
        elif act == "pay at the last moment":
            end = datetime.fromisoformat(purchase["reserved_until"]) - datetime.now(UTC)
            self._in(
                end.total_seconds() + self._rng.uniform(-1, 3),
                lambda: self._at_stripe(session, "pay"),
            )
        elif act == "pay later":
            if self._at_stripe(session, "pay_async"):
                outcome = self._rng.choice(("settle_async", "settle_async", "fail_async"))
                self._in(self._rng.uniform(1, 10), lambda: self._at_stripe(session, outcome))
        elif act.startswith("decline"):
            self._at_stripe(session, "decline")
            if act == "decline, then pay":
                self._at_stripe(session, "pay")
        elif act == "pay and cancel at once":
            other_tab = threading.Thread(
                target=self._at_stripe, args=(session, "pay", Bank(self._bank.url)), daemon=True
            )
            other_tab.start()
            self._cancel(purchase["id"])
            other_tab.join()
        elif act == "cancel":
            self._cancel(purchase["id"])

    def _at_stripe(self, session: str, act: str, bank: Bank | None = None) -> bool:
        try:
            done = (bank or self._bank).act(session, act)
        except requests.RequestException:
            self._journal.note_act(f"{act} (no answer)")
            return False
        self._journal.note_act(act if done else f"{act} (too late)")
        return done

    def _cancel(self, purchase_id: str) -> None:
        answer = self._client.call_patiently(
            "cancel", "POST", f"purchases/{purchase_id}/cancel/", self._rng
        )
        if answer is not None and answer.status == 200:
            self._journal.note_purchase(self.name, answer.body)
            if answer.body["status"] != "released":
                self._journal.violation("a cancelled purchase is released", f"{answer.body}")

    def _poll(self, purchase_id: str) -> None:
        answer = self._client.call("poll", "GET", f"purchases/{purchase_id}/")
        if answer is not None and answer.status == 200:
            self._journal.note_purchase(self.name, answer.body)

    def _make_room(self) -> None:
        """Pay or cancel what was left lying about: there may be so many open holds and no more."""
        answer = self._client.call("list", "GET", "purchases/?status=awaiting_payment")
        if answer is None or answer.status != 200:
            return
        for purchase in answer.body["results"]:
            self._journal.note_purchase(self.name, purchase)
            if self._rng.random() < PAYS_OLD_ONES:
                self._at_stripe(purchase["checkout_session_id"], "pay")
            else:
                self._cancel(purchase["id"])

    # -- Later ------------------------------------------------------------------------------------

    def _in(self, seconds: float, act: Callable[[], Any]) -> None:
        self._later.append((time.monotonic() + seconds, act))

    def _do_what_is_due(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        due = [act for moment, act in self._later if everything or moment <= now]
        self._later = [
            (moment, act) for moment, act in self._later if not everything and moment > now
        ]
        for act in due:
            act()
