"""Upgrades of one registration, delivered and refunded as the worker does it."""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from fulfillment import delivery
from fulfillment.models import Fulfillment
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Offer, Registration, TicketTier
from purchases import states, transitions
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import deliver_now
from tests.factories import OfferFactory, PurchaseFactory


def upgrade_offer(tier: TicketTier | None, **facts: Any) -> Offer:
    if tier is not None:
        facts.setdefault("event", tier.event)
    return OfferFactory(offer_type=Offer.Type.TICKET_UPGRADE, ticket_tier=tier, **facts)


def paid_upgrade(
    registration: Registration,
    tier: TicketTier | None,
    *,
    ago: timedelta = timedelta(0),
    **facts: Any,
) -> Purchase:
    """Paid for ``ago`` and not delivered yet; ``facts`` are the offer's."""
    return PurchaseFactory(
        offer=upgrade_offer(tier, **facts),
        user=registration.user,
        status=Status.PAID,
        created_at=timezone.now() - ago,
    )


def upgrade(registration: Registration, tier: TicketTier, **facts: Any) -> TicketUpgrade:
    fulfillment = deliver_now(paid_upgrade(registration, tier, **facts).pk)
    assert fulfillment.status == "FULFILLED", fulfillment.error
    return TicketUpgrade.objects.get(fulfillment=fulfillment)


def move_money(purchase: Purchase, *steps: states.Transition) -> None:
    """The purchase's money goes back, or fails to; fulfilment hasn't heard of it yet."""
    for step in steps:
        back = {"refunded_at": timezone.now(), "refunded_amount": purchase.total_price}
        with transaction.atomic():
            transitions.apply(
                transitions.lock(purchase.pk),
                step,
                now=timezone.now(),
                source="tests",
                **(back if step is states.REFUND else {}),
            )


def refund(sold: TicketUpgrade | Purchase) -> Fulfillment:
    purchase = sold.fulfillment.purchase if isinstance(sold, TicketUpgrade) else sold
    move_money(purchase, states.REFUND)
    fulfillment = delivery.hear_of(purchase.pk, now=timezone.now())
    assert fulfillment is not None
    return fulfillment


def tier_of(registration: Registration) -> str:
    return (
        Registration.objects.select_related("ticket_tier").get(pk=registration.pk).ticket_tier.slug
    )


def move_by_hand(registration: Registration, tier: TicketTier) -> None:
    Registration.objects.filter(pk=registration.pk).update(ticket_tier=tier)
