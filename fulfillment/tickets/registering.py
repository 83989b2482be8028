"""What a registration that staff have added makes possible."""

from contextlib import suppress
from datetime import datetime

from django.contrib.auth.models import User

from fulfillment import delivery
from fulfillment.errors import FulfillmentAlreadyResolved
from fulfillment.models import Fulfillment
from fulfillment.states import Status, Type
from offers.models import Registration


def retry_upgrades(registration: Registration, *, now: datetime, source: str, actor: User) -> int:
    """Have the attendee's upgrades tried again that failed, for want of a registration maybe.

    Called by admin once the registration is committed: a retry locks the purchase first and its
    delivery the registration last. Returns how many there are.
    """
    failed = Fulfillment.objects.filter(
        type=Type.TICKET,
        status=Status.FAILED,
        purchase__event=registration.event_id,
        purchase__user=registration.user_id,
    )
    count = 0
    for fulfillment_id in failed.order_by("paid_at").values_list("pk", flat=True):
        with suppress(FulfillmentAlreadyResolved):  # somebody was faster
            delivery.retry(fulfillment_id, now=now, source=source, actor=actor)
            count += 1
    return count
