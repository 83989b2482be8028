"""What we need to know of Stripe's objects, read out of its JSON and checked.

Money and stock move by what these say, so that whatever doesn't look like Stripe's is refused.
"""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from purchases.errors import InvalidWebhook

# 2100-01-01: nothing that happened has a later time, and far later ones overflow.
END_OF_TIME = 4_102_444_800
# Stripe's events are about ten levels deep.
DEEPEST = 100
# What JSON can say and PostgreSQL can't keep: NUL, and halves of surrogate pairs.
NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
# Of an address, as Stripe names them; Stripe takes up to 5000 characters a line, no label does.
ADDRESS_PARTS = ("line1", "line2", "city", "state", "postal_code", "country")
LONGEST_LINE = 200


@dataclass(frozen=True)
class CheckoutSession:
    """What we need to know of a Checkout Session, whether from the API or out of a webhook."""

    id: str
    url: str
    status: str
    payment_status: str
    amount_total: int
    currency: str
    client_reference_id: str | None
    payment_intent_id: str
    expires_at: datetime
    livemode: bool
    created: datetime
    # Of our offer, by our metadata.
    offer_reference: str | None
    # A delayed payment that the bank refused. Only the API tells: a webhook has its own type.
    payment_failed: bool
    # By Stripe's clock, where it is known; the buyer's deadline is judged by it.
    paid_at: datetime | None
    # Where to send what was bought, for a session that asked. Not shown: errors are logged.
    shipping_address: dict[str, str] | None = field(default=None, repr=False)

    @property
    def is_open(self) -> bool:
        return self.status == "open"

    @property
    def is_paid(self) -> bool:
        return self.status == "complete" and self.payment_status != "unpaid"

    def __post_init__(self) -> None:
        """Refuse, with ``ValueError``, what is no session: a guess could move money or stock."""
        texts = (self.id, self.url, self.status, self.currency, self.payment_intent_id)
        if (
            not all(isinstance(text, str) for text in texts)
            or not self.id
            # A status that is new to us is not simply "paid".
            or self.payment_status not in ("paid", "unpaid", "no_payment_required")
            or type(self.amount_total) is not int
            or type(self.livemode) is not bool
            or not isinstance(self.client_reference_id, str | None)
        ):
            raise ValueError(f"This is no Checkout Session: {self}")

    @classmethod
    def parse(cls, data: dict[str, Any], paid_at: datetime | None = None) -> "CheckoutSession":
        """Read Stripe's JSON. ``url`` is there only while the session is open.

        ``paid_at`` is for a webhook, whose own time is that of the payment.
        """
        intent = data.get("payment_intent") or ""
        expanded = intent if isinstance(intent, dict) else {}
        charge = expanded.get("latest_charge")
        if isinstance(charge, dict):
            paid_at = datetime.fromtimestamp(charge["created"], UTC)
        return cls(
            id=data["id"],
            url=data.get("url") or "",
            status=data.get("status") or "",
            payment_status=data["payment_status"],
            amount_total=data.get("amount_total") or 0,
            currency=(data.get("currency") or "").upper(),
            client_reference_id=data.get("client_reference_id"),
            payment_intent_id=intent["id"] if isinstance(intent, dict) else intent,
            expires_at=datetime.fromtimestamp(data["expires_at"], UTC),
            livemode=data["livemode"],
            created=datetime.fromtimestamp(data["created"], UTC),
            offer_reference=(data.get("metadata") or {}).get("offer"),
            payment_failed=data["payment_status"] == "unpaid"
            and expanded.get("status") in ("requires_payment_method", "canceled"),
            paid_at=paid_at,
            shipping_address=parsed_address(data),
        )


def parsed_address(session: dict[str, Any]) -> dict[str, str] | None:
    """Name and address that a session's page was given, as single lines; ``None`` without any.

    One that can't be an address counts as none: the payment is recorded all the same, and a person
    asks the buyer. The second place is where API versions before 2025-03-31 have it:
    https://docs.stripe.com/changelog/basil/2025-03-31/checkout-session-remove-shipping-details
    """
    collected = _object(session.get("collected_information"))
    details = _object(collected.get("shipping_details")) or _object(session.get("shipping_details"))
    address = _object(details.get("address"))
    given = {"name": details.get("name")} | {part: address.get(part) for part in ADDRESS_PARTS}
    if not all(isinstance(text, str | None) for text in given.values()):
        return None
    cleaned = {part: _line(text or "") for part, text in given.items()}
    return cleaned if cleaned["line1"] and len(cleaned["country"]) == 2 else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(text: str) -> str:
    """``text`` as one line that can be stored and printed."""
    return " ".join(NO_CHARACTER.sub("", text).split())[:LONGEST_LINE]


@dataclass(frozen=True)
class Refund:
    """What we need to know of a refund. ``amount`` is in minor units; ``reference`` is ours."""

    id: str
    status: str
    amount: int
    currency: str
    payment_intent_id: str
    reference: str | None
    created: datetime
    failure_reason: str

    def __post_init__(self) -> None:
        """Refuse, with ``ValueError``, what is no refund."""
        texts = (self.id, self.status, self.currency, self.payment_intent_id, self.failure_reason)
        if (
            not all(isinstance(text, str) for text in texts)
            or not self.id
            or type(self.amount) is not int
            or not isinstance(self.reference, str | None)
        ):
            raise ValueError(f"This is no refund: {self}")

    @classmethod
    def parse(cls, data: dict[str, Any]) -> "Refund":
        intent = data.get("payment_intent") or ""
        return cls(
            id=data["id"],
            status=data.get("status") or "",
            amount=data["amount"],
            currency=data["currency"].upper(),
            payment_intent_id=intent["id"] if isinstance(intent, dict) else intent,
            reference=(data.get("metadata") or {}).get("refund"),
            created=datetime.fromtimestamp(data["created"], UTC),
            failure_reason=data.get("failure_reason") or "",
        )


def parsed_event(text: str) -> dict[str, Any]:
    """The event in ``text``; ``InvalidWebhook`` for what can be none, or can't be stored."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidWebhook from None
    if not (_is_event(event) and _is_storable(event)):
        raise InvalidWebhook
    return cast("dict[str, Any]", event)


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict):
        return False
    name, kind, created = event.get("id"), event.get("type"), event.get("created")
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and isinstance(kind, str)
        and 0 < len(kind) <= 100
        and type(created) is int  # a boolean is an int too
        and 0 < created < END_OF_TIME
        and isinstance(event.get("data"), dict)
        and isinstance(event["data"].get("object"), dict)
    )


def _is_storable(event: dict[str, Any]) -> bool:
    """Whether PostgreSQL takes it as JSON: whole characters, finite numbers, no endless nesting."""
    level: list[Any] = [event]
    for _ in range(DEEPEST):
        if not level:
            return True
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif (isinstance(value, str) and NO_CHARACTER.search(value)) or (
                isinstance(value, float) and not math.isfinite(value)
            ):
                return False
        level = below
    return False
