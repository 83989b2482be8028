"""What the e-mails about a booking are told, when they go out.

A message says what the calendar's entry that goes with it says: the booking itself may have been
changed since, and then another message tells of that.
"""

import base64
from typing import Any

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


def _entry(email: Email) -> dict[str, Any]:
    entry = invitation.read(base64.b64decode(email.attachments[0]["content"]))
    booking = ServiceBooking.objects.select_related("fulfillment").get(
        fulfillment__purchase=email.purchase_id
    )
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


mail.CONTEXT |= {
    "booking_open": _opening,
    "booked": _entry,
    "booking_cancelled": _entry,
    "service_reminder": _entry,
}
