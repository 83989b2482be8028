"""What people asked for and what they were told, written down as it happens, by many threads."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ANY = "*"
AWAY = {"busy"}
NO_SALE = {
    "insufficient_inventory", "sold_out", "offer_inactive", "offer_archived", "offer_not_started",
    "offer_expired", "purchase_limit_reached", "too_many_open_holds", "idempotency_key_in_use",
}  # fmt: skip
# The contract: which status each call may get, and with which codes.
CONTRACT: dict[str, dict[int, set[str]]] = {
    "log in": {200: set(), 429: {"throttled"}, 503: AWAY},
    "offer": {201: set()},
    "look": {200: set(), 503: AWAY},
    "buy": {
        201: set(),
        200: set(),
        409: NO_SALE,
        429: {"throttled"},
        503: {"payment_provider_unavailable", "busy"},
    },
    "poll": {200: set(), 503: AWAY},
    "list": {200: set(), 503: AWAY},
    "cancel": {200: set(), 409: {"not_cancellable"}, 503: {"payment_provider_unavailable", *AWAY}},
    "change": {200: set(), 400: {ANY}, 503: AWAY},
    "archive": {204: set(), 503: AWAY},
    # The contract names no codes for a refund that can't be.
    "refund": {202: set(), 400: {ANY}, 409: {ANY}, 503: {ANY}},
}
SHOWN = 1500


@dataclass
class Told:
    """A purchase as its buyer knows it."""

    buyer: str
    price: str
    currency: str
    keys: set[str] = field(default_factory=set)
    was_paid: bool = False


@dataclass
class Journal:
    """Everything the people of one storm noted. Its methods may be called by any thread."""

    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    purchases: dict[str, Told] = field(default_factory=dict)
    refunds_asked: set[str] = field(default_factory=set)
    made_by_key: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[str, str]] = field(default_factory=list)
    has_refunds: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_answer(
        self, call: str, status: int, codes: Iterable[str], body: str, *, retry_after: bool
    ) -> None:
        """Count one answer, and note it as a violation unless the contract has it."""
        code = ", ".join(codes)
        with self._lock:
            self.answers[call, str(status), code] += 1
        allowed = CONTRACT[call].get(status)
        if allowed is None or (status >= 400 and ANY not in allowed and code not in allowed):
            self.violation("an answer that isn't in the contract", f"{call}: {status} {body}")
        elif status in (429, 503) and not retry_after:
            self.violation("no Retry-After", f"{call}: {status} {body}")

    def note_silence(self, call: str, error: str) -> None:
        """Count a request that got no answer."""
        with self._lock:
            self.answers[call, "none", error] += 1

    def note_seconds(self, call: str, seconds: float) -> None:
        """How long an answer took."""
        with self._lock:
            self.seconds.setdefault(call, []).append(seconds)

    def note_try(self, key: str) -> None:
        """Somebody wants to buy something, under this Idempotency-Key."""
        with self._lock:
            self.tried.add(key)

    def note_act(self, act: str) -> None:
        """Count what a buyer did at Stripe, or the bank for them."""
        with self._lock:
            self.acts[act] += 1

    def note_purchase(
        self, buyer: str, purchase: dict[str, Any], *, key: str = "", made: bool = False
    ) -> None:
        """The buyer was shown this purchase; `made` by this very request if it got a 201."""
        with self._lock:
            told = self.purchases.setdefault(
                purchase["id"], Told(buyer, purchase["total_price"], purchase["currency"])
            )
            told.was_paid |= purchase["status"] == "paid"
            if key:
                told.keys.add(key)
            if made:
                self.made_by_key[key] += 1

    def note_refund_asked(self, purchase_id: str) -> None:
        """The organizer is about to ask for a refund, whatever the answer will be."""
        with self._lock:
            self.refunds_asked.add(purchase_id)

    def paid_purchases(self) -> list[str]:
        """Ids that a buyer was told are paid, and of which no refund was asked yet."""
        with self._lock:
            return [
                purchase_id
                for purchase_id, told in self.purchases.items()
                if told.was_paid and purchase_id not in self.refunds_asked
            ]

    def violation(self, rule: str, detail: str) -> None:
        """Something that must never happen, happened."""
        with self._lock:
            self.violations.append((rule, detail[:SHOWN]))
