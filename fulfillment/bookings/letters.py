"""What the e-mails about a booking are told, when they go out.

A message says what the calendar's entry that goes with it says. If the booking has been changed
before it could go out, another message tells of that, and this one doesn't go out at all.
"""

import base64
from typing import Any

from django.utils import timezone

from fulfillment.bookings import invitation, slots
from fulfillment.bookings.models import ServiceBooking, details_of
from fulfillment.states import Status
from purchases import mail
from purchases.models import Email
from purchases.states import Status as PurchaseStatus


def _opening(email: Email) -> dict[str, Any]:
    purchase = email.purchase
    free = slots.free_slots(purchase.offer_id, purchase.quantity, now=email.created_at)
    return {"has_slots": free.exists()}


def _read(email: Email) -> tuple[invitation.Entry, ServiceBooking]:
    """The entry that goes with it, and the booking as it is now."""
    entry = invitation.read(base64.b64decode(email.attachments[0]["content"]))
    booking = ServiceBooking.objects.select_related("fulfillment").get(
        fulfillment__purchase=email.purchase_id
    )
    return entry, booking


def _entry(email: Email) -> dict[str, Any]:
    entry, booking = _read(email)
    deadline = booking.can_change_until
    may_change = (
        booking.scheduled_at == entry.starts_at
        and deadline is not None
        and deadline > email.created_at
    )
    return {
        "entry": entry,
        "instructions": details_of(email.purchase.offer).instructions.strip(),
        "can_change_until": deadline if may_change else None,
        "may_choose": (
            booking.fulfillment.status == Status.PROCESSING
            and email.purchase.status == PurchaseStatus.PAID
        ),
    }


def _nothing_to_choose(email: Email) -> str:
    # While the money is on its way back it may still fail to arrive, and nobody would be asked.
    if (
        email.purchase.fulfillment.status in (Status.FULFILLED, Status.REVOKED)
        or email.purchase.status == PurchaseStatus.REFUNDED
    ):
        return "There was no time to choose any more when this could be sent."
    return ""


def _changed(email: Email) -> str:
    entry, booking = _read(email)
    # Each number is that of an e-mail, but a time that is over is called off without one.
    is_off = booking.scheduled_at is None and email.occasion != "booking_cancelled"
    if booking.sequence != entry.sequence or is_off:
        return "The booking was changed before this could be sent: its newest e-mail says to what."
    return ""


def _no_reminder(email: Email) -> str:
    entry, _ = _read(email)
    if entry.starts_at <= timezone.now():
        return "The time had come before this could be sent."
    return _changed(email)


mail.OVERTAKEN |= {
    "booking_open": _nothing_to_choose,
    "booked": _changed,
    "booking_cancelled": _changed,
    "service_reminder": _no_reminder,
}
mail.CONTEXT |= {
    "booking_open": _opening,
    "booked": _entry,
    "booking_cancelled": _entry,
    "service_reminder": _entry,
}
