"""The organizer: puts offers on sale, changes totals, archives one, and sends money back."""

import threading
from decimal import Decimal
from random import Random
from typing import Any

from tests.chaos.buyers import EVENT
from tests.chaos.client import Client
from tests.chaos.journal import Journal

# Title: price, currency, stock, and how much buyers want it. Two are scarce, one is to be archived.
WARES = {
    "Backstage tour": ("120.00", "USD", 20, 5),
    "Poster, signed": ("4500", "JPY", 20, 4),
    "Tote bag": ("15.00", "EUR", 5000, 4),
    "Ticket for the afterparty": ("9.50", "USD", None, 3),
    "Sticker sheet": ("0.00", "USD", 300, 2),
    "Dinner": ("12.500", "KWD", 400, 2),
}
# What is not named here is merchandise, collected at the event.
TYPES = {
    "Backstage tour": {"offer_type": "TICKET_UPGRADE", "ticket_tier": "vip"},
    "Ticket for the afterparty": {"offer_type": "TICKET_UPGRADE", "ticket_tier": "vip"},
    "Dinner": {"offer_type": "SERVICE"},
}
SCARCE = ("Backstage tour", "Poster, signed")
ARCHIVED = "Dinner"
ARCHIVED_AFTER = 0.7  # of the storm
CHANGE = 0.35
FULL_REFUND = 0.6
TWICE = 0.2


class Organizer(threading.Thread):
    """The owner of the demo event, from `open_shop` until `over` is set."""

    def __init__(
        self, *, url: str, journal: Journal, over: threading.Event, seed: int, seconds: float
    ) -> None:
        """`seconds` is how long the storm will be."""
        super().__init__(name="organizer", daemon=True)
        self._client = Client(url, "organizer", journal, over)
        self._journal = journal
        self._over = over
        self._rng = Random(f"{seed}/organizer")  # noqa: S311 - chance that can be repeated
        self._archive_in = seconds * ARCHIVED_AFTER
        self._pause = (0.3, 1.0) if seconds < 60 else (0.5, 2.0)
        self.offers: dict[str, str] = {}

    def open_shop(self) -> dict[str, int]:
        """Put everything on sale; the offers' ids, and how much each is wanted."""
        if not self._client.log_in(self._rng):
            raise RuntimeError("The organizer can't log in.")
        for title, (price, currency, total, _) in WARES.items():
            answer = self._client.call(
                "offer",
                "POST",
                "offers/",
                json={
                    "event": EVENT,
                    "title": title,
                    **TYPES.get(title, {"offer_type": "MERCHANDISE"}),
                    "placement": "IN_EVENT",
                    "price": price,
                    "currency": currency,
                    "inventory_total": total,
                },
            )
            if answer is None or answer.status != 201:
                raise RuntimeError(f"{title} can't be put on sale: {answer}")
            self.offers[title] = answer.body["id"]
        return {self.offers[title]: ware[3] for title, ware in WARES.items()}

    def run(self) -> None:
        """Change offers and refund purchases, one thing at a time."""
        archiving = threading.Timer(self._archive_in, self._archive)
        archiving.daemon = True
        archiving.start()
        while not self._over.wait(self._rng.uniform(*self._pause)):
            if self._rng.random() < CHANGE:
                self._change_total(self.offers[self._rng.choice(SCARCE)])
            else:
                self._refund()
        archiving.cancel()

    def _change_total(self, offer_id: str) -> None:
        answer = self._client.call("look", "GET", f"offers/{offer_id}/")
        if answer is None or answer.status != 200:
            return
        # Mostly more, so that there is always something to fight for; less may be refused.
        total = max(0, answer.body["inventory"]["total"] + self._rng.choice((-3, 2, 4, 6)))
        self._client.call("change", "PATCH", f"offers/{offer_id}/", json={"inventory_total": total})

    def _archive(self) -> None:
        path = f"offers/{self.offers[ARCHIVED]}/"
        self._client.twin().call_patiently("archive", "DELETE", path, self._rng)

    def _refund(self) -> None:
        paid = self._journal.paid_purchases()
        if not paid or not self._journal.has_refunds:
            return
        purchase_id = self._rng.choice(paid)
        wanted: dict[str, Any] = {"reason": "chaos"}
        if self._rng.random() > FULL_REFUND:
            told = self._journal.purchases[purchase_id]
            if not Decimal(told.price):
                return
            wanted["amount"] = _about_half(told.price, told.currency)
        if self._rng.random() < 0.2:
            wanted["restock"] = False
        self._journal.note_refund_asked(purchase_id)
        for _ in range(2 if self._rng.random() < TWICE else 1):
            answer = self._client.call(
                "refund", "POST", f"purchases/{purchase_id}/refund/", json=wanted
            )
            if answer is not None and answer.status in (404, 405):
                self._journal.has_refunds = False


def _about_half(price: str, currency: str) -> str:
    """Half of it, with the currency's own digits (Stripe wants a 0 as the last of three)."""
    half = Decimal(price) / 2
    if currency == "KWD":
        return f"{half:.2f}0"
    return f"{half:.{len(price.partition('.')[2])}f}"
