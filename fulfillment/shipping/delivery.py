"""What becomes of paid merchandise: an order for staff to pack, or to hand over at the event."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fulfillment.codes import qr
from fulfillment.codes import text as code_text
from fulfillment.models import Fulfillment
from fulfillment.shipping import addresses, orders
from fulfillment.shipping.checking import code_of, is_waiting
from fulfillment.shipping.models import ShippingOrder
from offers.models import Offer
from offers.times import written
from purchases import mail

# What ``describe`` reads, as lookups from the fulfilment.
PREFETCH: tuple[str, ...] = ("shipping_order",)
# Shown of what has left.
TEXTS = ("carrier", "tracking_number", "tracking_url")
TIMES = ("shipped_at", "delivered_at")


def deliver(fulfillment: Fulfillment, *, now: datetime) -> bool:
    """Place the order and tell the buyer; the rest is a person's.

    Raises ``CannotDeliver`` for a parcel without an address.
    """
    placed = _placed(orders.place(fulfillment, now=now))
    mail.enqueue(fulfillment.purchase, placed.occasion, now=now, attachments=placed.attachments)
    return False


def _placed(order: ShippingOrder) -> mail.Letter:
    code = order.pickup_code
    return mail.Letter(
        "order_placed", [qr.attachment(code, name="pick-up-code.png")] if code else []
    )


def letter(fulfillment: Fulfillment, *, now: datetime) -> mail.Letter | None:
    """That it is packed, or waits with its code, or has left; nothing of what was collected."""
    order = _order(fulfillment)
    if order is not None and is_waiting(fulfillment):
        return _placed(order)
    return mail.Letter("shipped") if order is not None and order.shipped_at else None


def missing(offer: Offer, *, now: datetime) -> str | None:
    return None  # an offer of merchandise is not stored without a way to its buyers


def revoke(fulfillment: Fulfillment, *, now: datetime) -> None:
    orders.take_back(fulfillment, now=now)


def describe(fulfillment: Fulfillment, *, absolute: Callable[[str], str]) -> dict[str, Any]:
    """Carrier and tracking once it is shipped; the pick-up code until it is collected."""
    order = _order(fulfillment)
    method = order.method if order else fulfillment.purchase.delivery_method
    shown = order if fulfillment.is_handed_out else None
    return {
        "delivery_method": method or None,
        **{field: getattr(shown, field, None) or None for field in TEXTS},
        **{field: written(getattr(shown, field, None)) for field in TIMES},
        "pickup_code": order.pickup_code if order and is_waiting(fulfillment) else None,
    }


def page(fulfillment: Fulfillment, *, now: datetime) -> dict[str, Any]:
    order = _order(fulfillment)
    if order is None:
        return {}
    code = code_of(fulfillment)
    return {
        "order": order,
        "address": addresses.label(order),
        "pickup_code": code and code_text.spaced(code),
    }


def _order(fulfillment: Fulfillment) -> ShippingOrder | None:
    order: ShippingOrder | None = getattr(fulfillment, "shipping_order", None)
    return order
