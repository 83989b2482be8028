"""The whole path, once, through the API and Stripe's (sandbox) page."""

from typing import Any

import pytest

from purchases.models import Purchase, PurchaseTransition
from purchases.states import Status
from tests.conftest import buy, code, counters
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def test_purchase_is_held_then_paid_and_counted_as_sold(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=10)
    client = client_of(UserFactory())

    answer = buy(client, offer, 2)

    assert answer.status_code == 201, answer.content
    purchase = answer.json()
    assert purchase["status"] == "awaiting_payment"
    assert purchase["total_price"] == "100.00"
    assert purchase["checkout_url"].startswith("http")
    assert counters(offer) == (2, 0)

    sandbox.act(purchase["checkout_session_id"], "pay")
    sandbox.deliver()

    answer = client.get(f"/api/v1/purchases/{purchase['id']}/")
    assert answer.json()["status"] == "paid"
    assert answer.json()["paid_at"] is not None
    assert answer.json()["checkout_url"] is None
    assert counters(offer) == (0, 2)
    assert list(PurchaseTransition.objects.values_list("from_status", "to_status", "source")) == [
        ("", "reserved", "api"),
        ("reserved", "awaiting_payment", "api"),
        ("awaiting_payment", "paid", "webhook"),
    ]


def test_declined_card_leaves_the_hold_open_for_another_card(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    purchase = buy(client, offer).json()

    sandbox.act(purchase["checkout_session_id"], "decline")
    sandbox.deliver()

    assert client.get(f"/api/v1/purchases/{purchase['id']}/").json()["status"] == "awaiting_payment"
    sandbox.act(purchase["checkout_session_id"], "pay")
    sandbox.deliver()
    assert counters(offer) == (0, 1)


def test_free_offer_is_paid_at_once_and_stripe_is_not_asked(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(price=0)

    answer = buy(client_of(UserFactory()), offer, 3)

    assert answer.status_code == 201
    assert answer.json()["status"] == "paid"
    assert answer.json()["checkout_url"] is None
    assert counters(offer) == (0, 3)
    assert sandbox.process.get("requests")["data"] == []


def test_cancel_gives_the_units_back_and_the_page_can_no_longer_be_paid(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    purchase = buy(client, offer, 2).json()

    answer = client.post(f"/api/v1/purchases/{purchase['id']}/cancel/")

    assert answer.status_code == 200
    assert answer.json()["status"] == "released"
    assert answer.json()["release_reason"] == "cancelled"
    assert counters(offer) == (0, 0)
    assert [session["status"] for session in sandbox.sessions()] == ["expired"]
    sandbox.deliver()  # the session's own `expired` comes later, and changes nothing
    assert Purchase.objects.get().release_reason == "cancelled"
    again = client.post(f"/api/v1/purchases/{purchase['id']}/cancel/")
    assert (again.status_code, code(again)) == (409, "not_cancellable")
    assert counters(offer) == (0, 0)


def test_cancel_after_payment_records_the_payment_instead(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    purchase = buy(client, offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay")  # its webhook has not arrived yet

    answer = client.post(f"/api/v1/purchases/{purchase['id']}/cancel/")

    assert (answer.status_code, code(answer)) == (409, "not_cancellable")
    assert Purchase.objects.get().status == Status.PAID
    assert counters(offer) == (0, 1)


def test_delayed_method_keeps_the_stock_until_it_settles(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    purchase = buy(client, offer).json()

    sandbox.act(purchase["checkout_session_id"], "pay_async")
    sandbox.deliver()
    assert Purchase.objects.get().status == Status.PAYMENT_PROCESSING
    assert counters(offer) == (1, 0)

    sandbox.act(purchase["checkout_session_id"], "settle_async")
    sandbox.deliver()
    assert Purchase.objects.get().status == Status.PAID
    assert counters(offer) == (0, 1)


def test_delayed_method_that_fails_gives_the_stock_back(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay_async")
    sandbox.act(purchase["checkout_session_id"], "fail_async")
    sandbox.deliver()
    assert Purchase.objects.get().release_reason == "payment_failed"
    assert counters(offer) == (0, 0)
