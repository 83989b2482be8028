"""The life of an order: placed, then shipped and delivered, or handed over; or else taken back.

Every function that changes one takes the locks of its purchase and its fulfilment first
(``transitions.lock``), so that of two at once the second sees what the first has done. Called by
admin and the check-in page; each is one transaction, together with its e-mail.
"""

import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from fulfillment import announcements, transitions
from fulfillment.codes import text as code_text
from fulfillment.errors import CannotDeliver, FulfillmentAlreadyResolved, NotPaidFor
from fulfillment.models import Fulfillment
from fulfillment.shipping import addresses
from fulfillment.shipping.errors import (
    AlreadyHandedOver,
    AlreadyShipped,
    InvalidShipment,
    NothingToComeBack,
    NotShippedYet,
    OrderNotFound,
    WrongMethod,
)
from fulfillment.shipping.models import ShippingOrder
from fulfillment.states import FULFILL, RETRY, Status
from offers import countries
from offers.contention import retried
from offers.wake import wake
from purchases import mail
from purchases.models import DeliveryMethod, Purchase
from purchases.states import Status as PurchaseStatus
from purchases.stripe_objects import LONGEST_LINE

# What the columns take.
LONGEST = {"carrier": 60, "tracking_number": 100, "tracking_url": 500}
HTTPS = re.compile(r"https://[^\s/]+\.[^\s/]+(/\S*)?")


def _lock(order_id: int) -> ShippingOrder:
    """The order, with its purchase's and its fulfilment's rows locked; ``OrderNotFound``."""
    fulfillment_id = (
        ShippingOrder.objects.filter(pk=order_id).values_list("fulfillment", flat=True).first()
    )
    if fulfillment_id is None:
        raise OrderNotFound
    fulfillment = transitions.lock(fulfillment_id)
    order = ShippingOrder.objects.get(pk=order_id)
    order.fulfillment = fulfillment
    return order


def _write(order: ShippingOrder, **changes: Any) -> bool:
    """Store what is different, and say whether anything is."""
    changed = [field for field, value in changes.items() if getattr(order, field) != value]
    for field in changed:
        setattr(order, field, changes[field])
    if changed:
        order.save(update_fields=changed)
    return bool(changed)


# -- Placed and taken back, by the engine ---------------------------------------------------------


def place(fulfillment: Fulfillment, *, now: datetime) -> ShippingOrder:
    """Make the order of a paid purchase, once; called under the locks, by the deliverer.

    Raises ``CannotDeliver`` for a parcel without an address.
    """
    placed = ShippingOrder.objects.filter(fulfillment=fulfillment).first()
    if placed is not None:
        return placed
    purchase = fulfillment.purchase
    # First and last name together may be longer than the column.
    buyer = (purchase.user.get_full_name() or purchase.user.get_username())[:LONGEST_LINE]
    if _method(purchase) == DeliveryMethod.COLLECTION:
        goes_to: dict[str, Any] = {
            "method": DeliveryMethod.COLLECTION,
            "name": buyer,
            "pickup_code": code_text.new(),
        }
    else:
        if purchase.shipping_address is None:
            raise CannotDeliver(
                "There is no address on record to send this to: ask the buyer, and enter it under "
                "Shipping orders, Without address."
            )
        address = addresses.copied(purchase.shipping_address)
        goes_to = {"method": DeliveryMethod.SHIPPING, **address, "name": address["name"] or buyer}
    return ShippingOrder.objects.create(fulfillment=fulfillment, created_at=now, **goes_to)


def _method(purchase: Purchase) -> str:
    """What was chosen; what was bought before there was a choice has no address but by chance."""
    if purchase.delivery_method:
        return purchase.delivery_method
    can_collect = purchase.shipping_address is None and purchase.offer.allows_collection
    return DeliveryMethod.COLLECTION if can_collect else DeliveryMethod.SHIPPING


def take_back(fulfillment: Fulfillment, *, now: datetime) -> None:
    """Cancel the order; what has left stays on record, for staff to see whether it comes back.

    Called under the locks, by the deliverer. A pick-up code is void from then on.
    """
    ShippingOrder.objects.filter(fulfillment=fulfillment, revoked_at=None).update(revoked_at=now)


# -- What staff do --------------------------------------------------------------------------------


@retried
def mark_shipped(
    order_id: int,
    *,
    carrier: str,
    tracking_number: str,
    tracking_url: str = "",
    corrects: bool = True,
    now: datetime,
    source: str,
    actor: User | None = None,
) -> ShippingOrder:
    """A parcel has left: the purchase is fulfilled and the buyer is told, once.

    Asked again with other values, it corrects them, unless ``corrects`` is off. Raises
    ``InvalidShipment``, ``OrderNotFound``, ``WrongMethod``, and for what may not leave any more
    ``NotPaidFor`` and ``FulfillmentAlreadyResolved``.
    """
    shipment = _checked_shipment(carrier, tracking_number, tracking_url)
    with transaction.atomic():
        order = _lock(order_id)
        if order.is_collected:
            raise WrongMethod(is_collected=True)
        if order.shipped_at is not None:
            if corrects and _write(order, **shipment):
                _record(order, "correct_tracking", now=now, source=source, actor=actor)
            return order
        _fulfill(order, now=now, source=source, actor=actor, reason="shipped")
        _write(order, **shipment, shipped_at=now)
        mail.enqueue(order.fulfillment.purchase, "shipped", now=now)
        facts = {"carrier": order.carrier, "tracking_number": order.tracking_number}
        announcements.of_delivery("fulfillment.shipped", order.fulfillment, facts, key="", now=now)
    return order


@retried
def mark_delivered(
    order_id: int, *, now: datetime, source: str, actor: User | None = None
) -> ShippingOrder:
    """The carrier says that a parcel has arrived; the first time counts.

    Raises ``OrderNotFound``, ``WrongMethod`` and ``NotShippedYet``.
    """
    with transaction.atomic():
        order = _lock(order_id)
        if order.is_collected:
            raise WrongMethod(is_collected=True)
        if order.shipped_at is None:
            raise NotShippedYet
        if order.delivered_at is None:
            _write(order, delivered_at=now)
            _record(order, "mark_delivered", now=now, source=source, actor=actor)
    return order


@retried
def hand_over(
    order_id: int, *, now: datetime, source: str, actor: User | None = None
) -> ShippingOrder:
    """Somebody has shown a code, or is known to staff, and gets the goods.

    Whether ``actor`` may is the edge's. Raises ``OrderNotFound``, ``WrongMethod``,
    ``AlreadyHandedOver``, which says when, ``NotPaidFor`` for what is refunded or about to be, and
    ``FulfillmentAlreadyResolved`` for what staff have revoked.
    """
    with transaction.atomic():
        order = _lock(order_id)
        if not order.is_collected:
            raise WrongMethod(is_collected=False)
        fulfillment = order.fulfillment
        at = order.delivered_at or (
            fulfillment.fulfilled_at if fulfillment.status == Status.FULFILLED else None
        )
        if at is not None:
            raise AlreadyHandedOver(at=at)
        _fulfill(order, now=now, source=source, actor=actor, reason="handed over")
        _write(order, delivered_at=now)
    return order


@retried
def mark_returned(
    order_id: int, *, now: datetime, source: str, actor: User | None = None
) -> ShippingOrder:
    """What was refunded after it had left is back; stock is the offer's total, changed by hand.

    Raises ``OrderNotFound`` and ``NothingToComeBack``.
    """
    with transaction.atomic():
        order = _lock(order_id)
        if order.revoked_at is None or not order.has_left:
            raise NothingToComeBack
        if order.returned_at is None:
            _write(order, returned_at=now)
            _record(order, "mark_returned", now=now, source=source, actor=actor)
    return order


@retried
def enter_address(
    fulfillment_id: uuid.UUID,
    address: Mapping[str, str],
    *,
    now: datetime,
    source: str,
    actor: User | None = None,
) -> None:
    """Say where a parcel goes, until it is shipped; one that had no address is placed at once.

    Raises ``InvalidShipment``, ``NotPaidFor``, ``WrongMethod``, ``AlreadyShipped``,
    ``FulfillmentNotFound`` and ``FulfillmentAlreadyResolved``.
    """
    checked = _checked_address(address)
    with transaction.atomic():
        fulfillment = transitions.lock(fulfillment_id)
        purchase = fulfillment.purchase
        order = ShippingOrder.objects.filter(fulfillment=fulfillment).first()
        if order is not None and order.has_left:
            raise AlreadyShipped
        if purchase.status != PurchaseStatus.PAID:
            raise NotPaidFor
        if fulfillment.status in (Status.FULFILLED, Status.REVOKED):
            raise FulfillmentAlreadyResolved(
                status=fulfillment.status, transition="change its address"
            )
        if (order.method if order else _method(purchase)) == DeliveryMethod.COLLECTION:
            raise WrongMethod(is_collected=True)
        if order is not None:
            order.fulfillment = fulfillment
            if _write(order, **checked):
                _record(order, "change_address", now=now, source=source, actor=actor)
            return
        purchase.shipping_address = checked
        purchase.save(update_fields=["shipping_address"])
        if fulfillment.status in RETRY.sources:
            transitions.apply(
                fulfillment, RETRY, now=now, source=source, actor=actor, due_at=now, attempts=0
            )
        transaction.on_commit(lambda: wake("fulfillment.deliver_purchase", str(purchase.pk)))


def _fulfill(
    order: ShippingOrder, *, now: datetime, source: str, actor: User | None, reason: str
) -> None:
    if order.fulfillment.purchase.status != PurchaseStatus.PAID:
        raise NotPaidFor  # whatever its fulfilment is by now: this is what staff have to know
    transitions.apply(
        order.fulfillment, FULFILL, now=now, source=source, actor=actor, reason=reason
    )


def _record(
    order: ShippingOrder, name: str, *, now: datetime, source: str, actor: User | None
) -> None:
    """On record with the fulfilment, whose status stays; no address or number, which are logged."""
    fulfillment = order.fulfillment
    status = Status(fulfillment.status)
    transitions.record(fulfillment, name, status, now=now, source=source, actor=actor)


# -- What staff type ------------------------------------------------------------------------------


def _checked_shipment(carrier: str, tracking_number: str, tracking_url: str) -> dict[str, str]:
    given = {
        "carrier": carrier,
        "tracking_number": tracking_number,
        "tracking_url": tracking_url,
    }
    shipment = _checked_lines(given)
    if not shipment["carrier"]:
        raise InvalidShipment("carrier", "Say who carries it, for example DHL.")
    if shipment["tracking_url"] and not HTTPS.fullmatch(shipment["tracking_url"]):
        raise InvalidShipment("tracking_url", "Use an address that starts with https://.")
    return shipment


def _checked_address(address: Mapping[str, str]) -> dict[str, str]:
    checked = _checked_lines({part: address.get(part, "") for part in addresses.PARTS})
    checked["country"] = checked["country"].upper()
    for part, missing in (
        ("name", "Say whom it is for."),
        ("line1", "Say which street and number, or which box."),
        ("city", "Say which town."),
    ):
        if not checked[part]:
            raise InvalidShipment(part, missing)
    if checked["country"] not in countries.SHIPPABLE:
        raise InvalidShipment("country", "Use the country's two letters, for example DE.")
    return checked


def _checked_lines(given: Mapping[str, str]) -> dict[str, str]:
    """Each as one line that its column takes."""
    checked = {}
    for field, text in given.items():
        line = " ".join(text.split())
        if len(line) > LONGEST.get(field, LONGEST_LINE):
            raise InvalidShipment(field, "This is too long.")
        if not line.isprintable():
            raise InvalidShipment(field, "This has characters that can't be printed.")
        checked[field] = line
    return checked
