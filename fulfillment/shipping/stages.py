"""Where an order stands: what is to be done with it, or was."""

from django.db import models
from django.db.models import Q

from fulfillment.shipping.models import ShippingOrder
from fulfillment.states import Status, Type
from purchases.models import DeliveryMethod
from purchases.states import Status as PurchaseStatus

# What staff have in hand: neither gone, nor refunded, nor about to be.
OUTSTANDING = Q(
    fulfillment__status=Status.PROCESSING, fulfillment__purchase__status=PurchaseStatus.PAID
)


class Stage(models.TextChoices):
    """What is to be done with an order, or was; each order is at one of these."""

    TO_PACK = "to_pack", "to pack"
    TO_COLLECT = "to_collect", "to collect"
    SHIPPED = "shipped", "shipped"
    DELIVERED = "delivered", "delivered"
    HANDED_OVER = "handed_over", "handed over"
    DONE = "done", "done by staff"
    HELD = "held", "refund under way"
    CANCELLED = "cancelled", "cancelled"
    COMES_BACK = "comes_back", "refunded: came back?"
    CAME_BACK = "came_back", "came back"


_SENT = Q(method=DeliveryMethod.SHIPPING)
_LEFT = Q(shipped_at__isnull=False) | Q(delivered_at__isnull=False)
_KEPT = Q(revoked_at__isnull=True)
STAGES: dict[str, Q] = {
    Stage.TO_PACK: OUTSTANDING & _SENT,
    Stage.TO_COLLECT: OUTSTANDING & ~_SENT,
    Stage.SHIPPED: _KEPT & Q(shipped_at__isnull=False, delivered_at__isnull=True),
    Stage.DELIVERED: _KEPT & _SENT & Q(delivered_at__isnull=False),
    Stage.HANDED_OVER: _KEPT & ~_SENT & Q(delivered_at__isnull=False),
    Stage.DONE: _KEPT & ~_LEFT & Q(fulfillment__status=Status.FULFILLED),
    Stage.HELD: _KEPT & ~_LEFT & ~OUTSTANDING & ~Q(fulfillment__status=Status.FULFILLED),
    Stage.CANCELLED: ~_KEPT & ~_LEFT,
    Stage.COMES_BACK: ~_KEPT & _LEFT & Q(returned_at__isnull=True),
    Stage.CAME_BACK: Q(returned_at__isnull=False),
}


def stage(order: ShippingOrder) -> Stage:
    """The stage of an order that was read together with its fulfilment and purchase."""
    if order.revoked_at is not None:
        if not order.has_left:
            return Stage.CANCELLED
        return Stage.COMES_BACK if order.returned_at is None else Stage.CAME_BACK
    if order.delivered_at is not None:
        return Stage.HANDED_OVER if order.is_collected else Stage.DELIVERED
    if order.shipped_at is not None:
        return Stage.SHIPPED
    fulfillment = order.fulfillment
    if fulfillment.status == Status.FULFILLED:
        return Stage.DONE
    if (fulfillment.status, fulfillment.purchase.status) != (
        Status.PROCESSING,
        PurchaseStatus.PAID,
    ):
        return Stage.HELD
    return Stage.TO_COLLECT if order.is_collected else Stage.TO_PACK


# Paid, to be sent (``orders.place`` says what is), and nobody knows where to.
WITHOUT_ADDRESS = Q(
    Q(purchase__delivery_method=DeliveryMethod.SHIPPING)
    | Q(purchase__delivery_method="", purchase__offer__allows_collection=False),
    type=Type.PHYSICAL,
    status=Status.FAILED,
    shipping_order__isnull=True,
    purchase__shipping_address__isnull=True,
    purchase__status=PurchaseStatus.PAID,
)
