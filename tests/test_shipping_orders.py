"""What staff do with an order, and what a refund does: each once, and refused where it can't be."""

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail as outbox
from django.utils import timezone

from fulfillment import delivery
from fulfillment.codes import text as code_text
from fulfillment.errors import FulfillmentAlreadyResolved, FulfillmentNotFound, NotPaidFor
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.shipping import orders, stages
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
from fulfillment.shipping.stages import Stage
from offers.models import Offer
from purchases import mail
from purchases.models import Email, Purchase
from purchases.states import Status as PurchaseStatus
from tests.conftest import deliver_now
from tests.factories import UserFactory
from tests.test_shipping import (
    ADDRESS,
    BY,
    again,
    collected,
    for_real,
    occasions,
    packed,
    paid,
    placed,
    refund,
    ship,
)

pytestmark = pytest.mark.django_db


# -- Shipped --------------------------------------------------------------------------------------


def test_correcting_the_tracking_number_sends_no_second_mail() -> None:
    purchase = paid()
    order = placed(purchase)
    first = ship(order, "00340")
    later = timezone.now() + timedelta(hours=1)
    assert ship(order, "00340", now=later).shipped_at == first.shipped_at

    corrected = ship(order, "00341", carrier="UPS", now=later)

    assert (corrected.carrier, again(order).tracking_number) == ("UPS", "00341")
    assert again(order).shipped_at == first.shipped_at
    assert occasions(purchase) == ["order_placed", "shipped"]
    names = FulfillmentTransition.objects.values_list("name", flat=True)
    assert list(names) == ["take_on", "fulfill", "correct_tracking"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"carrier": " "}, "carrier"),
        ({"carrier": "x" * 61}, "carrier"),
        ({"tracking_number": "1" * 101}, "tracking_number"),
        ({"tracking_number": "1\x1b2"}, "tracking_number"),
        ({"tracking_url": "http://dhl.example/1"}, "tracking_url"),
        ({"tracking_url": "javascript:alert(1)"}, "tracking_url"),
        ({"tracking_url": f"https://dhl.example/{'1' * 500}"}, "tracking_url"),
    ],
    ids=str,
)
def test_shipment_that_can_not_be_is_refused(wrong: dict[str, str], field: str) -> None:
    order = placed(paid())
    with pytest.raises(InvalidShipment) as refusal:
        ship(order, **{"number": wrong.pop("tracking_number", "1"), **wrong})
    assert refusal.value.field == field
    assert again(order).shipped_at is None


@for_real
def test_parcel_without_tracking_can_be_marked_as_shipped() -> None:
    order = ship(placed(paid()), "")
    assert (order.carrier, order.tracking_number) == ("DHL", "")
    mail.send_due(now=timezone.now())
    assert "Tracking" not in outbox.outbox[-1].body


@pytest.mark.parametrize("status", [PurchaseStatus.REFUNDING, PurchaseStatus.REFUNDED])
def test_nothing_is_shipped_or_handed_over_once_a_refund_is_asked_for(status: str) -> None:
    sent, bag = placed(paid()), placed(collected())
    Purchase.objects.update(status=status)
    with pytest.raises(NotPaidFor):
        ship(sent)
    with pytest.raises(NotPaidFor):
        orders.hand_over(bag.pk, now=timezone.now(), source="page")
    with pytest.raises(NotPaidFor):
        orders.enter_address(sent.fulfillment_id, ADDRESS, now=timezone.now(), **BY)
    assert not ShippingOrder.objects.filter(shipped_at__isnull=False).exists()
    assert not Email.objects.filter(occasion="shipped").exists()
    assert packed() == []


def test_refund_that_fails_puts_the_order_back_on_the_packing_list() -> None:
    order = placed(paid())
    Purchase.objects.update(status=PurchaseStatus.REFUNDING)
    assert stages.stage(again(order)) == Stage.HELD
    Purchase.objects.update(status=PurchaseStatus.PAID, fulfillment_due=True)
    delivery.take_in(now=timezone.now())
    assert stages.stage(again(order)) == Stage.TO_PACK
    assert len(packed()) == 1


def test_delivered_is_noted_once_and_after_shipping() -> None:
    order = placed(paid())
    now = timezone.now()
    with pytest.raises(NotShippedYet):
        orders.mark_delivered(order.pk, now=now, **BY)
    ship(order)
    orders.mark_delivered(order.pk, now=now, **BY)
    orders.mark_delivered(order.pk, now=now + timedelta(days=1), **BY)
    assert again(order).delivered_at == now
    assert stages.stage(again(order)) == Stage.DELIVERED
    assert FulfillmentTransition.objects.filter(name="mark_delivered").count() == 1


def test_what_is_collected_is_not_shipped_and_the_other_way_round() -> None:
    sent, bag = placed(paid()), placed(collected())
    now = timezone.now()
    with pytest.raises(WrongMethod, match="hand it over"):
        ship(bag)
    with pytest.raises(WrongMethod):
        orders.mark_delivered(bag.pk, now=now, **BY)
    with pytest.raises(WrongMethod):
        orders.enter_address(bag.fulfillment_id, ADDRESS, now=now, **BY)
    with pytest.raises(WrongMethod, match="mark it shipped"):
        orders.hand_over(sent.pk, now=now, **BY)


def test_unknown_orders_are_not_found() -> None:
    with pytest.raises(OrderNotFound):
        orders.hand_over(1, now=timezone.now(), source="page")
    with pytest.raises(OrderNotFound):
        ship(ShippingOrder(pk=1))
    with pytest.raises(FulfillmentNotFound):
        orders.enter_address(paid().pk, ADDRESS, now=timezone.now(), **BY)


# -- Addresses ------------------------------------------------------------------------------------


def test_address_is_corrected_until_it_is_shipped() -> None:
    order = placed(paid())
    now = timezone.now()
    orders.enter_address(order.fulfillment_id, ADDRESS | {"line1": "Allee 2"}, now=now, **BY)
    assert again(order).line1 == "Allee 2"
    assert Purchase.objects.get().shipping_address == ADDRESS  # what the buyer said stays
    ship(order)
    with pytest.raises(AlreadyShipped):
        orders.enter_address(order.fulfillment_id, ADDRESS, now=now, **BY)
    assert again(order).line1 == "Allee 2"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"line1": "\n"}, "line1"),
        ({"city": ""}, "city"),
        ({"country": "XX"}, "country"),
        ({"country": ""}, "country"),
        ({"line2": "x" * 201}, "line2"),
        ({"line2": "\u202e"}, "line2"),
    ],
    ids=str,
)
def test_address_that_can_not_be_is_refused(wrong: dict[str, str], field: str) -> None:
    order = placed(paid())
    with pytest.raises(InvalidShipment) as refusal:
        orders.enter_address(order.fulfillment_id, ADDRESS | wrong, now=timezone.now(), **BY)
    assert refusal.value.field == field
    assert again(order).line1 == ADDRESS["line1"]


@pytest.mark.parametrize("end", ["mark_done", "revoke"])
def test_what_staff_have_ended_takes_no_address_and_is_not_shipped(end: str) -> None:
    order = placed(paid())
    now = timezone.now()
    getattr(delivery, end)(order.fulfillment_id, reason="by hand", now=now, **BY)
    with pytest.raises(FulfillmentAlreadyResolved):
        orders.enter_address(order.fulfillment_id, ADDRESS, now=now, **BY)
    with pytest.raises(FulfillmentAlreadyResolved):
        ship(order)
    assert packed() == []
    assert stages.stage(again(order)) == (Stage.DONE if end == "mark_done" else Stage.CANCELLED)


@pytest.mark.parametrize("purchase_of", [paid, collected])
def test_name_longer_than_its_column_is_cut(purchase_of: Any) -> None:
    user = UserFactory(first_name="A" * 150, last_name="B" * 150)
    address = {"shipping_address": ADDRESS | {"name": ""}} if purchase_of is paid else {}
    assert placed(purchase_of(user=user, **address)).name == "A" * 150 + " " + "B" * 49


def test_only_what_is_sent_can_be_without_an_address() -> None:
    purchase = paid(shipping_address=None)
    deliver_now(purchase.pk)
    for method, allows_collection, listed in (
        ("shipping", True, True),
        ("", False, True),
        ("", True, False),
        ("collection", True, False),
    ):
        Purchase.objects.update(delivery_method=method)
        Offer.objects.update(allows_collection=allows_collection)
        found = Fulfillment.objects.filter(stages.WITHOUT_ADDRESS)
        assert found.exists() == listed, (method, allows_collection)


# -- Collected ------------------------------------------------------------------------------------


def test_second_hand_over_says_when_the_first_was() -> None:
    order = placed(collected())
    now = timezone.now()
    orders.hand_over(order.pk, now=now, source="page")
    with pytest.raises(AlreadyHandedOver, match=f"{now:%Y-%m-%d at %H:%M}"):
        orders.hand_over(order.pk, now=now + timedelta(hours=2), source="page")
    assert again(order).delivered_at == now


def test_hand_over_of_what_staff_marked_as_done_says_when_that_was() -> None:
    order = placed(collected())
    delivery.mark_done(order.fulfillment_id, reason="", now=timezone.now(), **BY)
    with pytest.raises(AlreadyHandedOver):
        orders.hand_over(order.pk, now=timezone.now(), source="page")


def test_codes_have_no_look_alikes_and_are_not_guessed() -> None:
    codes = {code_text.new() for _ in range(200)}
    assert len(codes) == 200
    assert all(len(code) == 12 and not set(code) & set("ILOU") for code in codes)


# -- Taken back -----------------------------------------------------------------------------------


def test_refund_before_shipping_cancels_and_voids_the_code() -> None:
    sent, bag = paid(), collected()
    parcel, waiting = placed(sent), placed(bag)
    for purchase in (sent, bag):
        refund(purchase)
    assert stages.stage(again(parcel)) == Stage.CANCELLED
    assert packed() == []
    with pytest.raises(NotPaidFor):
        orders.hand_over(waiting.pk, now=timezone.now(), source="page")
    with pytest.raises(NothingToComeBack):
        orders.mark_returned(parcel.pk, now=timezone.now(), **BY)


def test_refund_after_shipping_keeps_the_row_until_it_came_back() -> None:
    purchase = paid()
    order = placed(purchase)
    ship(order)
    with pytest.raises(NothingToComeBack):
        orders.mark_returned(order.pk, now=timezone.now(), **BY)
    refund(purchase)
    assert stages.stage(again(order)) == Stage.COMES_BACK
    ship(order, "00349")  # a fact, whatever became of the money
    for _ in range(2):
        orders.mark_returned(order.pk, now=timezone.now(), **BY)
    assert stages.stage(again(order)) == Stage.CAME_BACK
    assert again(order).tracking_number == "00349"
