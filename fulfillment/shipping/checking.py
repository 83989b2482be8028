"""What a pick-up code tells staff at the event: what to hand over, or why not."""

import uuid
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from fulfillment.models import Fulfillment
from fulfillment.shipping import orders
from fulfillment.shipping.errors import OrderNotFound
from fulfillment.shipping.models import ShippingOrder
from fulfillment.states import Status
from purchases.states import Status as PurchaseStatus

TEMPLATE = "fulfillment/check_in/merchandise.html"


def find(code: str) -> Fulfillment | None:
    """Whose code it is; what the caller may know of it is the page's to say."""
    return (
        Fulfillment.objects.filter(shipping_order__pickup_code=code)
        .select_related("purchase__event", "purchase__user", "shipping_order")
        .first()
    )


def code_of(fulfillment: Fulfillment) -> str | None:
    """The code that its buyer may show now: until it is collected, or refunded."""
    if not is_waiting(fulfillment):
        return None
    return (
        ShippingOrder.objects.filter(fulfillment=fulfillment)
        .values_list("pickup_code", flat=True)
        .first()
    )


def show(fulfillment: Fulfillment) -> dict[str, Any]:
    return {"order": fulfillment.shipping_order, "may_hand_over": is_waiting(fulfillment)}


def hand_over(fulfillment_id: uuid.UUID, *, actor: User, now: datetime) -> None:
    """Raises what ``orders.hand_over`` does."""
    order = ShippingOrder.objects.filter(fulfillment=fulfillment_id).first()
    if order is None:
        raise OrderNotFound
    orders.hand_over(order.pk, now=now, source="page", actor=actor)


def is_waiting(fulfillment: Fulfillment) -> bool:
    """Whether an order is in the organizer's hands still, and to be had."""
    paid = fulfillment.purchase.status == PurchaseStatus.PAID
    return paid and fulfillment.status == Status.PROCESSING
