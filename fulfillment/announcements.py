"""What organizations' own systems are told of purchases and what they became (docs/webhooks.md).

Each is called inside the transaction that makes it true, by whoever makes it so.
"""

from datetime import datetime
from typing import Any

from django.db.models import UUIDField

from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.states import Status
from offers import money
from offers.models import Event
from offers.prepared import Given, Row
from purchases.models import Purchase
from purchases.subscribers import publish

TYPES = {
    Status.FULFILLED: "fulfillment.fulfilled",
    Status.FAILED: "fulfillment.failed",
    Status.REVOKED: "fulfillment.revoked",
}
_EVENT = Row(
    lambda: Event.objects.filter(pk=Given("event", UUIDField())).values_list(
        "slug", "organization_id"
    )
)


def paid(purchase: Purchase, *, now: datetime) -> None:
    total = money.format_amount(purchase.total_price, purchase.currency)
    facts = {"total_price": total, "currency": purchase.currency, "paid_at": purchase.paid_at}
    _of_money("purchase.paid", purchase, facts, now=now)


def refunded(purchase: Purchase, *, now: datetime) -> None:
    amount = money.format_amount(purchase.refunded_amount, purchase.currency)
    facts = {
        "refunded_amount": amount,
        "currency": purchase.currency,
        "refunded_at": purchase.refunded_at,
    }
    _of_money("purchase.refunded", purchase, facts, now=now)


def changed(fulfillment: Fulfillment, transition: FulfillmentTransition, *, now: datetime) -> None:
    """A fulfilment reached ``transition.to_status``; nothing is told of those on the way."""
    event = TYPES.get(Status(transition.to_status))
    if event is None:
        return
    facts: dict[str, Any] = {"status": fulfillment.status}
    if fulfillment.status == Status.FULFILLED:
        facts["fulfilled_at"] = fulfillment.fulfilled_at
    of_delivery(event, fulfillment, facts, key=str(transition.pk), now=now)


def of_delivery(
    event: str, fulfillment: Fulfillment, facts: dict[str, Any], *, key: str, now: datetime
) -> None:
    """Something about a fulfilment; ``key`` tells it from others of the same type."""
    about = {
        "offer_title": fulfillment.purchase.offer_title,
        "fulfillment_type": fulfillment.type,
    }
    key = f"{event}:{fulfillment.pk}:{key}"
    _tell(event, fulfillment.purchase, about | facts, key=key, now=now)


def _of_money(event: str, purchase: Purchase, facts: dict[str, Any], *, now: datetime) -> None:
    about = {
        "offer_id": purchase.offer_id,
        "offer_title": purchase.offer_title,
        "quantity": purchase.quantity,
    }
    _tell(event, purchase, about | facts, key=f"{event}:{purchase.pk}", now=now)


def _tell(
    event: str, purchase: Purchase, facts: dict[str, Any], *, key: str, now: datetime
) -> None:
    found = _EVENT.get(event=purchase.event_id)
    assert found is not None  # noqa: S101 - a foreign key says so
    slug, organization_id = found
    about = {"purchase_id": purchase.pk, "event": slug}
    publish(organization_id=organization_id, type=event, key=key, data=about | facts, now=now)
