"""Reminders: one e-mail for each time that was booked, a day before."""

import math
import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet

from fulfillment import transitions
from fulfillment.bookings import invitation
from fulfillment.bookings.models import ServiceBooking
from fulfillment.states import Status
from offers import row_queue
from offers.contention import drop_broken_connection, retried
from purchases import mail
from purchases.activity import log_failure
from purchases.models import Purchase
from purchases.states import Status as PurchaseStatus

AHEAD = timedelta(hours=24)
# Who has booked, or was told of another time, within these needs no reminder yet.
FRESH = timedelta(hours=2)


def due(*, now: datetime) -> QuerySet[ServiceBooking]:
    """The bookings whose attendees are to be reminded now."""
    return ServiceBooking.objects.filter(
        ~Q(reminded_for=F("scheduled_at")) | Q(reminded_for__isnull=True),
        scheduled_at__gt=now,
        scheduled_at__lte=now + AHEAD,
        changed_at__lte=now - FRESH,
        fulfillment__status=Status.FULFILLED,
        fulfillment__purchase__status=PurchaseStatus.PAID,
    )


def remind(*, now: datetime, limit: int = 1000, until: float = math.inf) -> int:
    """Have everybody reminded whose time is near; called by the sweep. Returns how many were."""
    found = due(now=now).order_by("scheduled_at", "pk")
    rows = list(found.values_list("fulfillment", "fulfillment__purchase")[:limit])
    return sum(_remind(*row, now) for row in row_queue.in_time(rows, until))


def _remind(fulfillment_id: uuid.UUID, purchase_id: uuid.UUID, now: datetime) -> bool:
    try:
        return remind_one(fulfillment_id, now=now)
    except Exception as error:  # noqa: BLE001 - logged, and found again; the others get their turn
        drop_broken_connection()
        log_failure("remind", Purchase.objects.get(pk=purchase_id), error)
    return False


@retried
def remind_one(fulfillment_id: uuid.UUID, *, now: datetime) -> bool:
    """Store the reminder, unless another sweep, a move or a refund was faster."""
    with transaction.atomic():
        fulfillment = transitions.lock(fulfillment_id)
        booking = due(now=now).filter(fulfillment=fulfillment).first()
        if booking is None or booking.scheduled_at is None:
            return False
        booking.fulfillment = fulfillment
        entry = invitation.write(booking, method="REQUEST", now=now)
        mail.enqueue(
            fulfillment.purchase,
            "service_reminder",
            now=now,
            reference=booking.scheduled_at.isoformat(),
            attachments=[mail.Attachment("invite.ics", "text/calendar; method=REQUEST", entry)],
        )
        booking.reminded_for = booking.scheduled_at
        booking.save(update_fields=["reminded_for"])
    return True
