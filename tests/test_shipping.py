"""Merchandise, from the purchase to the packing list and the parcel, and back by a refund."""

import csv
import io
import threading
from typing import Any

import pytest
from django.core import mail as outbox
from django.db import transaction
from django.template.loader import render_to_string
from django.test import Client
from django.utils import timezone

from fulfillment import delivery, queue
from fulfillment.codes import text as code_text
from fulfillment.errors import NotPaidFor
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.shipping import checking, orders, packing, stages
from fulfillment.shipping.errors import (
    AlreadyHandedOver,
    WrongMethod,
)
from fulfillment.shipping.models import ShippingOrder
from fulfillment.shipping.stages import Stage
from fulfillment.states import Status
from purchases import mail, refunds, transitions
from purchases.models import Email, Purchase
from purchases.states import REQUEST_REFUND
from purchases.states import Status as PurchaseStatus
from tests.conftest import at_once, buy, counters, deliver_now
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory
from tests.test_admin_pages import blocked_backends

pytestmark = pytest.mark.django_db
for_real = pytest.mark.django_db(transaction=True)

ADDRESS = {
    "name": "Ada Lovelace", "line1": "Unter den Linden 1", "line2": "", "postal_code": "10117",
    "city": "Berlin", "state": "", "country": "DE",
}  # fmt: skip
BY = {"source": "admin", "actor": None}


def paid(**kwargs: Any) -> Purchase:
    """A paid purchase of merchandise that is sent, unless told otherwise."""
    defaults: dict[str, Any] = {"delivery_method": "shipping", "shipping_address": ADDRESS}
    user = kwargs.pop("user", None) or UserFactory(email="ada@example.com")
    return PurchaseFactory(status=PurchaseStatus.PAID, user=user, **(defaults | kwargs))


def collected(**kwargs: Any) -> Purchase:
    return paid(delivery_method="collection", shipping_address=None, **kwargs)


def placed(purchase: Purchase) -> ShippingOrder:
    fulfillment = deliver_now(purchase.pk)
    assert fulfillment.status == Status.PROCESSING
    return again(fulfillment.shipping_order)


def again(order: ShippingOrder) -> ShippingOrder:
    """The order as it is in the database."""
    found = ShippingOrder.objects.select_related("fulfillment__purchase")
    return found.get(pk=order.pk)


def ship(order: ShippingOrder, number: str = "00340", **more: Any) -> ShippingOrder:
    given = {"carrier": "DHL", "tracking_number": number, "now": timezone.now(), **BY, **more}
    return orders.mark_shipped(order.pk, **given)


def refund(purchase: Purchase) -> None:
    """What Stripe's confirmation of a full refund does, without Stripe."""
    Purchase.objects.filter(pk=purchase.pk).update(
        status=PurchaseStatus.REFUNDED, fulfillment_due=True
    )
    delivery.take_in(now=timezone.now())


def occasions(purchase: Purchase) -> list[str]:
    ours = Email.objects.filter(purchase=purchase, occasion__in=["order_placed", "shipped"])
    return list(ours.order_by("pk").values_list("occasion", flat=True))


def packed(text: str | None = None) -> list[dict[str, str]]:
    text = text or packing.as_csv(packing.to_pack(ShippingOrder.objects.all()))
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


# -- All the way, and back ------------------------------------------------------------------------


@for_real
def test_parcel_goes_from_the_purchase_to_the_packing_list_and_back_by_a_refund(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory(title="Hoodie", shipping_countries=["DE", "AT"])
    client = client_of(UserFactory(email="ada@example.com"))
    purchase = buy(client, offer, 2).json()
    assert purchase["delivery_method"] == "shipping"
    [session] = sandbox.sessions()
    assert session["shipping_address_collection"] == {"allowed_countries": ["DE", "AT"]}
    address = {k: v for k, v in ADDRESS.items() if k != "name"}
    sandbox.act(session["id"], "pay", name="Ada Lovelace", address=address)
    sandbox.deliver()
    assert Purchase.objects.get().shipping_address == ADDRESS

    fulfillment = deliver_now(purchase["id"])

    assert (fulfillment.type, fulfillment.status) == ("PHYSICAL", Status.PROCESSING)
    [row] = packed()
    assert {field: row[field] for field in ADDRESS} == ADDRESS
    assert (row["purchase"], row["offer"], row["quantity"]) == (purchase["id"], "Hoodie", "2")
    assert (row["country_name"], row["tracking_number"]) == ("Germany", "")
    mail.send_due(now=timezone.now())
    letter = outbox.outbox[-1]
    assert letter.subject == "We are packing Hoodie for you"
    assert "Unter den Linden 1\n10117 Berlin\nGERMANY" in letter.body
    url = f"/api/v1/purchases/{purchase['id']}/"
    told = client.get(url).json()["fulfillment"]
    assert (told["status"], told["carrier"], told["pickup_code"]) == ("PROCESSING", None, None)

    ship(fulfillment.shipping_order, tracking_url="https://dhl.example/00340")

    told = client.get(url).json()["fulfillment"]
    assert told["status"] == "FULFILLED"
    assert (told["carrier"], told["tracking_number"]) == ("DHL", "00340")
    assert told["tracking_url"] == "https://dhl.example/00340"
    assert told["delivery_method"] == "shipping"
    assert told["shipped_at"] == told["fulfilled_at"]
    assert told["delivered_at"] is None
    assert packed() == []
    mail.send_due(now=timezone.now())
    letter = outbox.outbox[-1]
    assert letter.subject == "Hoodie is on its way"
    assert "with DHL now" in letter.body
    assert "Tracking number: 00340" in letter.body

    staff = MembershipFactory(organization=offer.event.organization).user
    assert client_of(staff).post(f"{url}refund/").status_code == 202
    told = client.get(url).json()["fulfillment"]
    assert (told["carrier"], told["tracking_number"], told["shipped_at"]) == (None, None, None)
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    delivery.take_in(now=timezone.now())
    fulfillment.refresh_from_db()
    assert fulfillment.status == Status.REVOKED
    order = again(fulfillment.shipping_order)
    assert (order.tracking_number, stages.stage(order)) == ("00340", Stage.COMES_BACK)
    assert client.get(url).json()["fulfillment"]["tracking_number"] is None
    assert counters(offer) == (0, 0)


@for_real
def test_collection_goes_from_the_purchase_to_the_hand_over(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(title="Hoodie", shipping_countries=["DE"])
    client = client_of(UserFactory(email="ada@example.com"))
    body = {"offer": str(offer.pk), "quantity": 1, "delivery_method": "collection"}
    purchase = client.post("/api/v1/purchases/", body).json()
    assert purchase["delivery_method"] == "collection"
    assert sandbox.sessions()[0]["shipping_address_collection"] is None
    sandbox.act(purchase["checkout_session_id"], "pay")
    sandbox.deliver()
    fulfillment = deliver_now(purchase["id"])
    url = f"/api/v1/purchases/{purchase['id']}/"
    code = client.get(url).json()["fulfillment"]["pickup_code"]
    assert len(code) == 12
    mail.send_due(now=timezone.now())
    letter = outbox.outbox[-1]
    assert code_text.spaced(code) in letter.body
    [(name, picture, mimetype)] = letter.attachments
    assert (name, mimetype) == ("pick-up-code.png", "image/png")
    assert picture.startswith(b"\x89PNG")

    orders.hand_over(fulfillment.shipping_order.pk, now=timezone.now(), source="page")

    told = client.get(url).json()["fulfillment"]
    assert (told["status"], told["pickup_code"]) == ("FULFILLED", None)
    assert told["delivered_at"] == told["fulfilled_at"]
    assert stages.stage(again(fulfillment.shipping_order)) == Stage.HANDED_OVER
    assert occasions(fulfillment.purchase) == ["order_placed"]


@for_real
def test_free_merchandise_is_collected(sandbox: Any, client_of: Any) -> None:
    purchase = buy(client_of(UserFactory()), OfferFactory(price=0)).json()
    assert (purchase["status"], purchase["delivery_method"]) == ("paid", "collection")
    order = placed(Purchase.objects.get())
    assert order.is_collected


# -- Placed ---------------------------------------------------------------------------------------


def test_delivering_twice_places_one_order_and_sends_one_mail() -> None:
    purchase = collected()
    order = placed(purchase)
    Fulfillment.objects.update(due_at=timezone.now())
    assert placed(purchase).pickup_code == order.pickup_code
    assert ShippingOrder.objects.count() == 1
    assert occasions(purchase) == ["order_placed"]


def test_parcel_without_an_address_fails_until_staff_enter_one() -> None:
    purchase = paid(shipping_address=None)
    fulfillment = deliver_now(purchase.pk)
    assert fulfillment.status == Status.FAILED
    assert "no address" in fulfillment.error
    assert not ShippingOrder.objects.exists()
    assert occasions(purchase) == []
    assert list(Fulfillment.objects.filter(stages.WITHOUT_ADDRESS)) == [fulfillment]

    orders.enter_address(fulfillment.pk, ADDRESS | {"country": "de"}, now=timezone.now(), **BY)

    assert placed(purchase).city == "Berlin"
    assert Purchase.objects.get().shipping_address == ADDRESS
    assert not Fulfillment.objects.filter(stages.WITHOUT_ADDRESS).exists()
    assert occasions(purchase) == ["order_placed"]


def test_recipient_without_a_name_is_the_buyer() -> None:
    user = UserFactory(username="ada", email="ada@example.com")
    assert placed(paid(user=user, shipping_address=ADDRESS | {"name": ""})).name == "ada"


@pytest.mark.parametrize(
    ("address", "allows_collection", "expected"),
    [(ADDRESS, True, "shipping"), (None, True, "collection"), (None, False, None)],
    ids=["known address", "can be collected", "neither"],
)
def test_what_was_bought_before_there_was_a_choice_is_delivered_as_it_can_be(
    address: Any, allows_collection: bool, expected: str | None
) -> None:
    offer = OfferFactory(allows_collection=allows_collection)
    purchase = paid(offer=offer, delivery_method="", shipping_address=address)
    fulfillment = deliver_now(purchase.pk)
    order = ShippingOrder.objects.first()
    assert (order and order.method) == expected
    assert (fulfillment.status == Status.FAILED) == (expected is None)


# -- Two at once ----------------------------------------------------------------------------------


@for_real
def test_two_staff_who_ship_at_once_send_one_mail() -> None:
    purchase = paid()
    order = placed(purchase)
    answers = at_once([lambda n=n: ship(order, f"0034{n}") for n in range(6)])  # type: ignore[misc]
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert FulfillmentTransition.objects.filter(name="fulfill").count() == 1
    assert occasions(purchase) == ["order_placed", "shipped"]
    assert len({answer.shipped_at for answer in answers}) == 1


@for_real
def test_code_shown_at_two_desks_at_once_is_good_for_one() -> None:
    order = placed(collected())
    answers = at_once(
        [lambda: orders.hand_over(order.pk, now=timezone.now(), source="page") for _ in range(6)]
    )
    refused = [answer for answer in answers if isinstance(answer, AlreadyHandedOver)]
    assert len(refused) == 5, answers


@for_real
def test_parcel_whose_refund_is_being_asked_for_waits_and_stays() -> None:
    """Somebody ships while the refund's transaction holds the purchase."""
    purchase = paid()
    order = placed(purchase)
    answers: list[Any] = []
    with transaction.atomic():
        held = transitions.lock(purchase.pk)
        shipping = threading.Thread(target=lambda: answers.extend(at_once([lambda: ship(order)])))
        shipping.start()
        while not blocked_backends():
            assert shipping.is_alive(), answers
        now = timezone.now()
        transitions.apply(held, REQUEST_REFUND, now=now, source="tests", actor=None)
    shipping.join()
    assert isinstance(answers[0], NotPaidFor), answers
    assert again(order).shipped_at is None
    assert "shipped" not in occasions(purchase)


@for_real
def test_workers_that_deliver_at_once_place_one_order() -> None:
    purchase = collected()
    at_once([lambda: queue.deliver_one(purchase.pk, now=timezone.now()) for _ in range(4)])
    assert ShippingOrder.objects.count() == 1
    assert occasions(purchase) == ["order_placed"]


# -- The buyer's page -----------------------------------------------------------------------------


def test_page_says_where_the_parcel_is() -> None:
    purchase = paid()
    order = placed(purchase)
    browser = Client()
    browser.force_login(purchase.user)

    def shown() -> str:
        return browser.get(f"/purchases/{purchase.pk}").content.decode()

    assert "being packed" in shown()
    assert "10117 Berlin" in shown()
    ship(order, tracking_url="https://dhl.example/00340")
    assert "with DHL" in shown()
    assert '<a href="https://dhl.example/00340" rel="noopener noreferrer">00340</a>' in shown()
    orders.mark_delivered(order.pk, now=timezone.now(), **BY)
    assert "DHL delivered it" in shown()
    refund(purchase)
    assert "Your money was sent back" in shown()
    assert "00340" not in shown()


def test_page_shows_the_pickup_code_until_it_is_used() -> None:
    purchase = collected()
    order = placed(purchase)
    code = str(order.pickup_code)
    browser = Client()
    browser.force_login(purchase.user)
    page = browser.get(f"/purchases/{purchase.pk}").content.decode()
    assert code_text.spaced(code) in page
    assert f'src="/purchases/{purchase.pk}/code.svg"' in page
    orders.hand_over(order.pk, now=timezone.now(), source="page")
    page = browser.get(f"/purchases/{purchase.pk}").content.decode()
    assert "handed over" in page
    assert code_text.spaced(code) not in page


def test_list_of_purchases_takes_as_many_queries_for_fifty_parcels(
    client_of: Any, django_assert_max_num_queries: Any
) -> None:
    user, offer = UserFactory(email="ada@example.com"), OfferFactory(inventory_total=None)
    for _ in range(50):
        ship(placed(paid(user=user, offer=offer)))
    client = client_of(user)
    with django_assert_max_num_queries(8):
        results = client.get("/api/v1/purchases/").json()["results"]
    assert [found["fulfillment"]["carrier"] for found in results] == ["DHL"] * 50


# -- At the desk ----------------------------------------------------------------------------------


def desk(fulfillment: Fulfillment) -> str:
    """What the check-in page includes for a code."""
    context = {"fulfillment": fulfillment, "purchase": fulfillment.purchase}
    return render_to_string(checking.TEMPLATE, context | checking.show(fulfillment))


def test_code_tells_the_desk_what_to_hand_over_and_when_it_was() -> None:
    purchase = collected(quantity=2)
    order = placed(purchase)
    found = checking.find(str(order.pickup_code))
    assert found is not None
    assert checking.code_of(found) == order.pickup_code
    assert checking.show(found)["may_hand_over"]
    assert f"Hand over 2 × {purchase.offer_title}" in desk(found)

    checking.hand_over(found.pk, actor=UserFactory(), now=timezone.now())

    found = checking.find(str(order.pickup_code))
    assert found is not None
    assert checking.code_of(found) is None
    assert not checking.show(found)["may_hand_over"]
    assert "Handed over already" in desk(found)


def test_code_of_a_refunded_purchase_tells_the_desk_that_there_is_nothing() -> None:
    purchase = collected()
    code = str(placed(purchase).pickup_code)
    refund(purchase)
    found = checking.find(code)
    assert found is not None
    assert "Nothing to hand over" in desk(found)
    with pytest.raises(NotPaidFor):
        checking.hand_over(found.pk, actor=UserFactory(), now=timezone.now())
    parcel = placed(paid())
    assert checking.code_of(parcel.fulfillment) is None
    with pytest.raises(WrongMethod):
        checking.hand_over(parcel.fulfillment_id, actor=UserFactory(), now=timezone.now())
