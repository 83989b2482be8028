"""Factories. A purchase at any status is built by the domain's own functions, never by hand."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import factory
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from factory.django import DjangoModelFactory

from fulfillment import delivery
from fulfillment import states as fulfillment_states
from fulfillment import transitions as fulfillment_transitions
from fulfillment.bookings.models import TimeSlot
from fulfillment.digital.models import AccessCode, DigitalContent
from fulfillment.models import Fulfillment
from offers import inventory
from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from purchases import states, transitions
from purchases.models import Dispute, Purchase, Refund
from purchases.states import ReleaseReason, Status


class UserFactory(DjangoModelFactory):
    class Meta:
        model = User

    username = factory.Sequence(lambda n: f"user{n}")
    password = factory.django.Password("secret")


class OrganizationFactory(DjangoModelFactory):
    class Meta:
        model = Organization

    name = factory.Sequence(lambda n: f"Organization {n}")
    slug = factory.Sequence(lambda n: f"organization-{n}")


class MembershipFactory(DjangoModelFactory):
    class Meta:
        model = Membership

    organization = factory.SubFactory(OrganizationFactory)
    user = factory.SubFactory(UserFactory)
    role = Membership.Role.OWNER


class EventFactory(DjangoModelFactory):
    class Meta:
        model = Event

    organization = factory.SubFactory(OrganizationFactory)
    title = factory.Sequence(lambda n: f"Event {n}")
    slug = factory.Sequence(lambda n: f"event-{n}")


class EventSessionFactory(DjangoModelFactory):
    class Meta:
        model = EventSession

    event = factory.SubFactory(EventFactory)
    title = factory.Sequence(lambda n: f"Session {n}")
    slug = factory.Sequence(lambda n: f"session-{n}")


class TicketTierFactory(DjangoModelFactory):
    class Meta:
        model = TicketTier

    event = factory.SubFactory(EventFactory)
    title = factory.Sequence(lambda n: f"Tier {n}")
    slug = factory.Sequence(lambda n: f"tier-{n}")


class RegistrationFactory(DjangoModelFactory):
    class Meta:
        model = Registration

    user = factory.SubFactory(UserFactory)
    event = factory.SubFactory(EventFactory)
    ticket_tier = factory.SubFactory(TicketTierFactory, event=factory.SelfAttribute("..event"))


class OfferFactory(DjangoModelFactory):
    class Meta:
        model = Offer

    event = factory.SubFactory(EventFactory)
    title = factory.Sequence(lambda n: f"Offer {n}")
    offer_type = Offer.Type.MERCHANDISE
    price = Decimal("50.00")
    currency = "USD"
    inventory_total = 10


# How to get from a fresh hold to each status: the transitions to apply, in order.
PATHS: dict[str, list[states.Transition]] = {
    Status.RESERVED: [],
    Status.AWAITING_PAYMENT: [states.OPEN_CHECKOUT],
    Status.PAYMENT_PROCESSING: [states.OPEN_CHECKOUT, states.AWAIT_SETTLEMENT],
    Status.PAID: [states.OPEN_CHECKOUT, states.PAY],
    Status.RELEASED: [states.OPEN_CHECKOUT, states.RELEASE],
    Status.REFUND_DUE: [states.OPEN_CHECKOUT, states.RELEASE, states.OWE_REFUND],
    Status.REFUNDING: [states.OPEN_CHECKOUT, states.PAY, states.REQUEST_REFUND],
    Status.REFUNDED: [states.OPEN_CHECKOUT, states.PAY, states.REFUND],
}


class PurchaseFactory(DjangoModelFactory):
    """``PurchaseFactory(status=Status.PAID)``: held in the offer's stock, then brought there."""

    class Meta:
        model = Purchase

    user = factory.SubFactory(UserFactory)
    offer = factory.SubFactory(OfferFactory)
    event = factory.SelfAttribute("offer.event")
    offer_title = factory.SelfAttribute("offer.title")
    quantity = 1
    unit_price = factory.SelfAttribute("offer.price")
    total_price = factory.LazyAttribute(lambda self: self.unit_price * self.quantity)
    currency = factory.SelfAttribute("offer.currency")
    created_at = factory.LazyFunction(timezone.now)
    reserved_until = factory.LazyAttribute(lambda self: self.created_at + timedelta(minutes=15))
    checkout_expires_at = factory.LazyAttribute(
        lambda self: self.created_at + timedelta(minutes=35)
    )

    @classmethod
    def _create(cls, model_class: type[Purchase], *args: Any, **kwargs: Any) -> Purchase:
        status = kwargs.pop("status", Status.RESERVED)
        session_id = kwargs.pop("checkout_session_id", None)
        with transaction.atomic():
            inventory.reserve(offer_id=kwargs["offer"].pk, quantity=kwargs["quantity"])
            purchase = super()._create(model_class, *args, **kwargs)
            for transition in PATHS[status]:
                transitions.apply(
                    purchase,
                    transition,
                    now=purchase.created_at,
                    source="tests",
                    **cls._facts(purchase, transition, session_id),
                )
                cls._add_refund(purchase, transition)
        purchase.offer.refresh_from_db()
        return purchase

    @staticmethod
    def _add_refund(purchase: Purchase, transition: states.Transition) -> None:
        """The row that stands behind money on its way back, or back."""
        asked = transition in (states.OWE_REFUND, states.REQUEST_REFUND, states.REFUND)
        if asked and purchase.total_price:
            is_back = transition is states.REFUND
            RefundFactory(
                purchase=purchase,
                cause=(
                    Refund.Cause.LATE_PAYMENT
                    if transition is states.OWE_REFUND
                    else Refund.Cause.STAFF
                ),
                state=Refund.State.SUCCEEDED if is_back else Refund.State.REQUESTED,
                settled_at=purchase.created_at if is_back else None,
            )

    @staticmethod
    def _facts(
        purchase: Purchase, transition: states.Transition, session_id: str | None
    ) -> dict[str, Any]:
        if transition is states.OPEN_CHECKOUT:
            return {"checkout_session_id": session_id or f"cs_test_{purchase.pk.hex}"}
        if transition in (states.PAY, states.OWE_REFUND):
            return {
                "paid_at": purchase.created_at,
                "payment_intent_id": f"pi_{purchase.pk.hex}",
            }
        if transition is states.RELEASE:
            return {"release_reason": ReleaseReason.EXPIRED}
        if transition is states.REFUND:
            return {
                "refunded_at": purchase.created_at,
                "refunded_amount": purchase.total_price,
            }
        return {}


class RefundFactory(DjangoModelFactory):
    """All of a purchase's payment, asked for by staff and not sent yet."""

    class Meta:
        model = Refund

    purchase = factory.SubFactory(PurchaseFactory, status=Status.PAID)
    payment_intent_id = factory.SelfAttribute("purchase.payment_intent_id")
    amount = factory.SelfAttribute("purchase.total_price")
    cause = Refund.Cause.STAFF
    created_at = factory.SelfAttribute("purchase.created_at")
    due_at = factory.SelfAttribute("created_at")


class DisputeFactory(DjangoModelFactory):
    class Meta:
        model = Dispute

    # No two hex digits after the underscore: admin takes those for an escape.
    id = factory.Sequence(lambda n: f"du_test{n}")
    purchase = factory.SubFactory(PurchaseFactory, status=Status.PAID)
    payment_intent_id = factory.SelfAttribute("purchase.payment_intent_id")
    amount = factory.SelfAttribute("purchase.total_price")
    currency = factory.SelfAttribute("purchase.currency")
    reason = "fraudulent"
    status = "needs_response"
    created_at = factory.SelfAttribute("purchase.created_at")
    updated_at = factory.SelfAttribute("created_at")
    evidence_due_by = factory.LazyAttribute(lambda self: self.created_at + timedelta(days=7))


class DigitalContentFactory(DjangoModelFactory):
    """An address to open; with ``codes=3``, three free codes beside it."""

    class Meta:
        model = DigitalContent

    offer = factory.SubFactory(OfferFactory, offer_type=Offer.Type.EXCLUSIVE_CONTENT)
    url = "https://content.example/recordings"

    @classmethod
    def _create(cls, model_class: type[DigitalContent], *args: Any, **kwargs: Any) -> Any:
        codes = kwargs.pop("codes", 0)
        offer = kwargs["offer"]
        AccessCode.objects.bulk_create(
            AccessCode(offer=offer, code=f"{offer.pk.hex[:6]}-{n}") for n in range(codes)
        )
        return super()._create(model_class, *args, **kwargs | {"gives_access_codes": codes > 0})


# How to get from a fresh fulfilment to each status: the transitions to apply, in order.
FULFILLMENT_PATHS: dict[str, list[fulfillment_states.Transition]] = {
    fulfillment_states.Status.PENDING: [],
    fulfillment_states.Status.PROCESSING: [fulfillment_states.FAIL, fulfillment_states.HAND_OVER],
    fulfillment_states.Status.FULFILLED: [fulfillment_states.FULFILL],
    fulfillment_states.Status.FAILED: [fulfillment_states.FAIL],
    fulfillment_states.Status.REVOKED: [fulfillment_states.REVOKE],
}


def make_fulfillment(
    purchase: Purchase | None = None, *, status: str = fulfillment_states.Status.PENDING
) -> Fulfillment:
    """The fulfilment of a paid purchase, brought to ``status``; its deliverer isn't asked."""
    purchase = purchase or PurchaseFactory(status=Status.PAID)
    fulfillment = delivery.hear_of(purchase.pk, now=purchase.created_at)
    assert fulfillment is not None
    with transaction.atomic():
        fulfillment = fulfillment_transitions.lock(fulfillment.pk)
        for transition in FULFILLMENT_PATHS[status]:
            fulfillment_transitions.apply(
                fulfillment, transition, now=purchase.created_at, source="tests"
            )
    return fulfillment


class TimeSlotFactory(DjangoModelFactory):
    """Half an hour, the next one an hour after it, ten days from now."""

    class Meta:
        model = TimeSlot

    offer = factory.SubFactory(OfferFactory, offer_type=Offer.Type.SERVICE)
    starts_at = factory.Sequence(
        lambda n: (timezone.now() + timedelta(days=10, hours=n)).replace(
            minute=0, second=0, microsecond=0
        )
    )
    ends_at = factory.LazyAttribute(lambda self: self.starts_at + timedelta(minutes=30))
