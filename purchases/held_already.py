"""An unpaid hold that its buyer has, where Buy or Try again would make another one of the same."""

import uuid
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import F

from purchases.models import Purchase
from purchases.states import Status


def find(
    user: User,
    *,
    offer_id: uuid.UUID,
    quantity: int,
    delivery_method: str | None,
    now: datetime,
) -> Purchase | None:
    """The user's own unpaid hold of the same, at the price that is asked now.

    Called by the pages' buttons. Who came back from Stripe's page and presses Buy again means that
    one: a second hold would take units from others, and might be paid as well. The browser may have
    kept the form with its key, or asked for the page anew; other pages may be open, too.
    """
    same = Purchase.objects.filter(
        user=user,
        offer=offer_id,
        quantity=quantity,
        unit_price=F("offer__price"),
        currency=F("offer__currency"),
        status=Status.AWAITING_PAYMENT,
        reserved_until__gt=now,
        ending_until=None,
    )
    if delivery_method is not None:
        same = same.filter(delivery_method=delivery_method)
    return same.order_by("-reserved_until").first()
