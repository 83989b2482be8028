"""A service with slots and the people who bought it, for the tests about bookings."""

import base64
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from icalendar import Calendar

from fulfillment.bookings import booking as bookings
from fulfillment.bookings.models import ServiceBooking, ServiceDetails, TimeSlot
from offers.models import Offer
from purchases import transitions as purchase_transitions
from purchases.models import Email, Purchase
from purchases.states import REFUND_FAILED, REQUEST_REFUND, Status
from tests.conftest import deliver_now
from tests.factories import OfferFactory, PurchaseFactory, TimeSlotFactory, UserFactory


class Service:
    """``now`` is a full second, so that times survive a calendar's file."""

    def __init__(self, *, deadline: int = 24, **offer: Any) -> None:
        self.now = timezone.now().replace(microsecond=0)
        offer = {"title": "Coaching", "offer_type": Offer.Type.SERVICE} | offer
        self.offer: Offer = OfferFactory(**offer)
        self.details = ServiceDetails.objects.create(
            offer=self.offer, location="Room 3", change_deadline_hours=deadline
        )

    def slot(self, *, hours: float = 48, capacity: int = 1) -> TimeSlot:
        starts_at = self.now + timedelta(hours=hours)
        return TimeSlotFactory(
            offer=self.offer,
            starts_at=starts_at,
            ends_at=starts_at + timedelta(minutes=30),
            capacity=capacity,
        )

    def sold(self, quantity: int = 1, user: User | None = None) -> Purchase:
        """Bought, paid, and delivered as far as the worker can."""
        user = user or UserFactory(email=f"{uuid.uuid4().hex[:8]}@example.com")
        purchase = PurchaseFactory(
            offer=self.offer, quantity=quantity, user=user, status=Status.PAID
        )
        deliver_now(purchase.pk)
        return purchase

    def pick(self, purchase: Purchase, slot: TimeSlot, now: datetime | None = None) -> Any:
        return bookings.pick(
            purchase_id=purchase.pk, user=purchase.user, slot_id=slot.pk, now=now or self.now
        )

    def cancel(self, purchase: Purchase, now: datetime | None = None) -> Any:
        return bookings.cancel(purchase_id=purchase.pk, user=purchase.user, now=now or self.now)


def booking_of(purchase: Purchase) -> ServiceBooking:
    return ServiceBooking.objects.select_related("fulfillment").get(fulfillment__purchase=purchase)


def taken(*slots: TimeSlot) -> list[int]:
    """Seats taken of each, checked against the bookings."""
    found = []
    for slot in slots:
        slot.refresh_from_db()
        booked = slot.bookings.values_list("fulfillment__purchase__quantity", flat=True)
        assert sum(booked) == slot.taken
        found.append(slot.taken)
    return found


def told(purchase: Purchase) -> list[str]:
    """The occasions of the buyer's e-mails about the booking, oldest first."""
    ours = ["booking_open", "booked", "booking_cancelled", "service_reminder"]
    emails = purchase.emails.filter(occasion__in=ours)
    return list(emails.order_by("pk").values_list("occasion", flat=True))


def entry_in(email: Email) -> tuple[Calendar, Any]:
    """The calendar that goes with an e-mail, and the one event in it."""
    (attachment,) = email.attachments
    calendar = Calendar.from_ical(base64.b64decode(attachment["content"]))
    (event,) = calendar.events
    assert attachment["mimetype"] == f"text/calendar; method={calendar['method']}"
    return calendar, event


def last_entry(purchase: Purchase) -> tuple[Calendar, Any]:
    email = purchase.emails.exclude(attachments=[]).latest("pk")
    return entry_in(email)


def refunding(purchase: Purchase, now: datetime) -> None:
    with transaction.atomic():
        purchase_transitions.apply(
            purchase_transitions.lock(purchase.pk), REQUEST_REFUND, now=now, source="tests"
        )


def refund_failed(purchase: Purchase, now: datetime) -> None:
    with transaction.atomic():
        purchase_transitions.apply(
            purchase_transitions.lock(purchase.pk), REFUND_FAILED, now=now, source="tests"
        )
