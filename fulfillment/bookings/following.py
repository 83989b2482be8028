"""Bookings follow their slot: whoever edits a slot locks it alone, and its people come after.

A booking may only be changed under the lock of its purchase, which comes before the slot's. So the
organizer's form changes the slot, and each booking that differs from it is then brought in line in
a transaction of its own: at once by a message, or by the sweep. What differs is the queue: nothing
is lost if a worker dies in the middle, and nobody is told twice.
"""

import math
import uuid
from datetime import datetime

from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from fulfillment.bookings import booking
from fulfillment.bookings.models import ServiceBooking
from offers import row_queue
from offers.contention import drop_broken_connection
from purchases.activity import log_failure
from purchases.models import Purchase


def strayed(*, now: datetime) -> QuerySet[ServiceBooking]:
    """The bookings to come that aren't what their slot is now."""
    where = Coalesce(F("slot__offer__service_details__location"), Value(""))
    in_line = Q(
        slot__is_called_off=False,
        scheduled_at=F("slot__starts_at"),
        ends_at=F("slot__ends_at"),
        location=where,
    )
    return ServiceBooking.objects.filter(~in_line, slot__isnull=False, scheduled_at__gt=now)


def follow(*, now: datetime, limit: int = 1000, until: float = math.inf) -> int:
    """Bring them in line; called by the sweep and after an edit. Returns how many were."""
    found = strayed(now=now).order_by("scheduled_at", "pk")
    rows = list(found.values_list("fulfillment", "fulfillment__purchase")[:limit])
    return sum(_follow(*row, now) for row in row_queue.in_time(rows, until))


def _follow(fulfillment_id: uuid.UUID, purchase_id: uuid.UUID, now: datetime) -> bool:
    try:
        return booking.follow_slot(fulfillment_id, now=now)
    except Exception as error:  # noqa: BLE001 - logged, and found again; the others get their turn
        drop_broken_connection()
        log_failure("follow_slot", Purchase.objects.get(pk=purchase_id), error)
    return False
