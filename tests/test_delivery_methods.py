"""Sent or collected: what is asked for, what Stripe is asked, and the address that comes of it."""

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from offers import wanted
from offers.models import Offer
from purchases import checkout, holds, reconciliation, session_requests
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from purchases.stripe_objects import CheckoutSession
from tests.conftest import LATER, buy, code, counters, receive
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory
from tests.test_secrets import log

__all__ = ["log"]  # the fixture

pytestmark = pytest.mark.django_db
reaches_stripe = pytest.mark.django_db(transaction=True)

ADDRESS = {
    "line1": "Unter den Linden 1", "line2": None, "city": "Berlin", "state": None,
    "postal_code": "D-10117", "country": "DE",
}  # fmt: skip
STORED = {key: value or "" for key, value in ADDRESS.items()} | {"name": "Ada"}


def ask(client: Any, offer: Offer, method: Any, key: str | None = None) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"offer": str(offer.pk), "quantity": 1, "delivery_method": method}
    return client.post("/api/v1/purchases/", body, headers=headers)


def refusal(answer: Any) -> tuple[int, str | None, str]:
    [error] = answer.json()["errors"]
    return answer.status_code, error["attr"], error["detail"]


@pytest.fixture
def client(client_of: Any) -> Any:
    return client_of(UserFactory())


# -- What is asked for ----------------------------------------------------------------------------


@reaches_stripe
@pytest.mark.parametrize(
    ("countries", "collection", "asked", "expected"),
    [
        (["DE"], True, None, "shipping"),
        (["DE"], True, "shipping", "shipping"),
        (["DE"], True, "collection", "collection"),
        (["DE"], False, None, "shipping"),
        ([], True, None, "collection"),
        ([], True, "collection", "collection"),
        ([], False, None, "collection"),
    ],
)
def test_purchase_gets_the_method_it_asks_for_or_the_offers_first(
    sandbox: Any, client: Any, countries: list[str], collection: bool, asked: Any, expected: str
) -> None:
    offer = OfferFactory(shipping_countries=countries, allows_collection=collection)
    answer = ask(client, offer, asked) if asked else buy(client, offer)
    assert answer.status_code == 201, answer.content
    assert answer.json()["delivery_method"] == expected
    [session] = sandbox.sessions()
    asks = session["shipping_address_collection"]
    assert asks == ({"allowed_countries": countries} if expected == "shipping" else None)


@pytest.mark.parametrize(
    ("offer", "asked", "said"),
    [
        ({}, "shipping", "use collection"),
        ({"shipping_countries": ["DE"], "allows_collection": False}, "collection", "use shipping"),
        ({"price": 0, "shipping_countries": ["DE"]}, "shipping", "use collection"),
        ({"offer_type": "SERVICE"}, "collection", "Only merchandise"),
        ({"offer_type": "EXCLUSIVE_CONTENT"}, "shipping", "Only merchandise"),
        ({}, "pigeon", "Use one of shipping, collection."),
        ({}, "", "Use one of"),
        ({}, None, "null"),
        ({}, ["shipping"], "Use one of"),
    ],
    ids=str,
)
def test_method_the_offer_does_not_have_is_refused_and_nothing_is_held(
    client: Any, offer: dict[str, Any], asked: Any, said: str
) -> None:
    sold = OfferFactory(**offer)
    status, attr, detail = refusal(ask(client, sold, asked))
    assert (status, attr) == (400, "delivery_method")
    assert said in detail
    assert counters(sold) == (0, 0)
    assert not Purchase.objects.exists()


@reaches_stripe
def test_method_is_judged_by_the_offer_as_it_is_when_the_units_are_held(
    sandbox: Any, client: Any, monkeypatch: Any
) -> None:
    """The organizer stops shipping between the first look and the lock."""
    offer = OfferFactory(shipping_countries=["DE"])
    look = wanted.find

    def find(*args: Any) -> wanted.Wanted:
        found = look(*args)
        edited = Offer.objects.get(pk=offer.pk)
        edited.shipping_countries = []
        edited.save()
        return found

    monkeypatch.setattr(wanted, "find", find)
    assert refusal(ask(client, offer, "shipping"))[:2] == (400, "delivery_method")
    assert counters(offer) == (0, 0)
    assert not Purchase.objects.exists()


def test_other_offers_have_no_delivery_method(client: Any) -> None:
    offer = OfferFactory(offer_type="SERVICE", price=0)
    assert buy(client, offer).json()["delivery_method"] is None


# -- Repeated requests ----------------------------------------------------------------------------


@reaches_stripe
def test_method_is_part_of_what_makes_a_request_the_same(sandbox: Any, client: Any) -> None:
    offer = OfferFactory(shipping_countries=["DE"])
    first = ask(client, offer, "collection", key="k1")
    assert first.status_code == 201
    assert ask(client, offer, "collection", key="k1").json() == first.json()
    for answer in (ask(client, offer, "shipping", key="k1"), buy(client, offer, key="k1")):
        assert (answer.status_code, code(answer)) == (422, "idempotency_key_reused")
    assert counters(offer) == (1, 0)


@reaches_stripe
def test_request_without_a_method_is_the_same_one_as_before_there_were_any(
    sandbox: Any, client: Any
) -> None:
    offer = OfferFactory(shipping_countries=["DE"])
    first = buy(client, offer, key="k1").json()
    of_old = hashlib.sha256(f"{offer.pk}:1".encode()).hexdigest()
    assert Purchase.objects.get().request_fingerprint == of_old
    assert buy(client, offer, key="k1").json() == first
    # Named, it is another request, though it means the same.
    assert code(ask(client, offer, "shipping", key="k1")) == "idempotency_key_reused"


@reaches_stripe
def test_second_attempt_at_stripe_asks_for_the_address_too(sandbox: Any, client: Any) -> None:
    """Stripe fails once; meanwhile the organizer ships elsewhere."""
    offer = OfferFactory(shipping_countries=["DE", "AT"])
    sandbox.faults(error_rate=1.0, error_status=500)
    purchase = PurchaseFactory(offer=offer, delivery_method="shipping")
    request = session_requests.session_request(purchase, offer, "https://tickets.example")
    Purchase.objects.update(checkout_request=request)
    Offer.objects.update(shipping_countries=["FR"])
    purchase.refresh_from_db()
    again = checkout._next_attempt(purchase, checkout.ProviderFailed())
    sandbox.faults()
    checkout.resume(again)
    [session] = sandbox.sessions()
    assert session["shipping_address_collection"] == {"allowed_countries": ["DE", "AT"]}


# -- The address ----------------------------------------------------------------------------------


def pay_without_telling(sandbox: Any, client: Any, action: str = "pay") -> Purchase:
    """The buyer has paid, and no webhook has come yet."""
    bought = buy(client, OfferFactory(shipping_countries=["DE"])).json()
    sandbox.act(bought["checkout_session_id"], action, name="Ada", address=ADDRESS)
    return Purchase.objects.get()


@reaches_stripe
@pytest.mark.parametrize("by", ["webhook", "sweep", "cancel", "events", "sessions"])
def test_address_is_stored_with_the_payment_whoever_hears_of_it(
    sandbox: Any, client: Any, monkeypatch: Any, by: str
) -> None:
    purchase = pay_without_telling(sandbox, client)
    if by == "webhook":
        sandbox.deliver()
    elif by == "sweep":
        now = timezone.now() + LATER
        overdue = holds.overdue(now=now)
        list(holds.end_all(overdue, reason=ReleaseReason.EXPIRED, now=now, source="sweep"))
    elif by == "cancel":
        client.post(f"/api/v1/purchases/{purchase.pk}/cancel/")
    else:
        if by == "sessions":
            monkeypatch.setattr(reconciliation, "_missed_events", lambda run: [])
        now = timezone.now() + timedelta(seconds=1)
        since = now - timedelta(hours=72)
        list(reconciliation.reconcile(reconciliation.Run(since=since, now=now, source="tests")))
    purchase.refresh_from_db()
    assert (purchase.status, purchase.shipping_address) == (Status.PAID, STORED)


@reaches_stripe
def test_address_of_a_delayed_payment_outlives_events_without_one(
    sandbox: Any, client: Any
) -> None:
    purchase = pay_without_telling(sandbox, client, "pay_async")
    sandbox.deliver()
    purchase.refresh_from_db()
    assert (purchase.status, purchase.shipping_address) == (Status.PAYMENT_PROCESSING, STORED)
    sandbox.act(purchase.checkout_session_id, "settle_async")
    for event in sandbox.events("checkout.session.async_payment_succeeded"):
        event["data"]["object"]["collected_information"] = None
        receive(event)
    purchase.refresh_from_db()
    assert (purchase.status, purchase.shipping_address) == (Status.PAID, STORED)


def session_with(**parts: Any) -> dict[str, Any]:
    return {
        "id": "cs_1", "payment_status": "paid", "status": "complete", "livemode": False,
        "created": 1, "expires_at": 2, "amount_total": 100, "currency": "usd", **parts,
    }  # fmt: skip


@pytest.mark.parametrize(
    "parts",
    [
        {"collected_information": {"shipping_details": {"name": "Ada", "address": ADDRESS}}},
        {"shipping_details": {"name": "Ada", "address": ADDRESS}},
        {
            "collected_information": {"shipping_details": None},
            "shipping_details": {"name": " Ada\n", "address": ADDRESS},
        },
    ],
    ids=["now", "before 2025-03-31", "both"],
)
def test_address_is_read_where_each_version_of_the_api_has_it(parts: Any) -> None:
    assert CheckoutSession.parse(session_with(**parts)).shipping_address == STORED


@pytest.mark.parametrize(
    "details",
    [
        None, [], "Berlin", {"name": "Ada", "address": None}, {"name": "Ada", "address": []},
        {"name": "Ada", "address": ADDRESS | {"line1": None}},
        {"name": "Ada", "address": ADDRESS | {"line1": " \n"}},
        {"name": "Ada", "address": ADDRESS | {"country": "Germany"}},
        {"name": 7, "address": ADDRESS},
        {"name": "Ada", "address": ADDRESS | {"city": {"name": "Berlin"}}},
    ],
    ids=str,
)  # fmt: skip
def test_address_that_is_none_does_not_stop_the_payment(details: Any) -> None:
    session = CheckoutSession.parse(
        session_with(collected_information={"shipping_details": details})
    )
    assert session.is_paid
    assert session.shipping_address is None


def test_address_is_stored_as_short_lines_that_can_be_stored() -> None:
    wild = {"line1": "a\0b\ud800\r\n  c", "city": "x" * 5000}
    details = {"name": None, "address": ADDRESS | wild}
    session = session_with(collected_information={"shipping_details": details})
    parsed = CheckoutSession.parse(session).shipping_address
    assert parsed == STORED | {"name": "", "line1": "ab c", "city": "x" * 200}


@reaches_stripe
def test_address_is_in_no_log(sandbox: Any, client: Any, log: Callable[[], str]) -> None:
    """Neither of what went well, nor of a session that can't be read."""
    purchase = pay_without_telling(sandbox, client)
    [event] = sandbox.events("checkout.session.completed")
    event["data"]["object"]["payment_status"] = "new"
    receive(event | {"id": "evt_damaged"})
    sandbox.deliver()
    assert Purchase.objects.get(pk=purchase.pk).shipping_address == STORED
    said = log()
    assert "This is no Checkout Session" in said
    assert "pay" in said
    for personal in ("Unter den Linden", "D-10117", "Berlin"):
        assert personal not in said
    with pytest.raises(ValueError, match="no Checkout Session") as error:
        CheckoutSession.parse(event["data"]["object"])
    assert "Linden" not in str(error.value)


# -- The page -------------------------------------------------------------------------------------


@reaches_stripe
def test_page_asks_how_to_get_it_where_there_is_a_choice(sandbox: Any) -> None:
    browser = Client()
    browser.force_login(UserFactory())
    offer = OfferFactory(shipping_countries=["DE"])
    only_sent = OfferFactory(event=offer.event, shipping_countries=["DE"], allows_collection=False)
    OfferFactory(event=offer.event)
    url = f"/events/{offer.event.slug}/offers"
    page = browser.get(url).content.decode()
    assert page.count('<select name="delivery_method">') == 1
    key = re.search(r'name="key" value="([^"]+)"', page)[1]  # type: ignore[index]
    form = {"key": key, "offer": str(offer.pk), "quantity": 1}
    browser.post(url, form | {"delivery_method": "collection"})
    browser.post(url, form | {"delivery_method": "collection"})
    browser.post(url, form | {"delivery_method": "shipping"})
    browser.post(url, form | {"offer": str(only_sent.pk)})
    bought = Purchase.objects.order_by("created_at").values_list("delivery_method", flat=True)
    assert list(bought) == ["collection", "shipping", "shipping"]
    answer = browser.post(url, form | {"offer": str(only_sent.pk), "delivery_method": "collection"})
    assert "use shipping" in browser.get(answer.url).content.decode()


# -- The offer's rules ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "change", "fields"),
    [
        ({}, {"shipping_countries": ["DE", "AT"]}, set()),
        ({}, {"shipping_countries": ["DE"], "allows_collection": False}, set()),
        ({"shipping_countries": ["DE"]}, {"allows_collection": False}, set()),
        ({"shipping_countries": ["DE"]}, {"shipping_countries": []}, set()),
        ({"shipping_countries": ["DE"]}, {"shipping_countries": [], "price": "0"}, set()),
        ({}, {"allows_collection": False}, {"allows_collection"}),
        ({}, {"shipping_countries": ["XX"]}, {"shipping_countries.0"}),
        ({}, {"shipping_countries": "DE"}, {"shipping_countries"}),
        ({"price": 0}, {"shipping_countries": ["DE"]}, {"shipping_countries"}),
        ({"shipping_countries": ["DE"]}, {"price": "0"}, {"shipping_countries"}),
        (
            {"shipping_countries": ["DE"], "allows_collection": False},
            {"shipping_countries": []},
            {"allows_collection"},
        ),
        ({"shipping_countries": ["DE"]}, {"offer_type": "SERVICE"}, {"shipping_countries"}),
        ({"offer_type": "SERVICE"}, {"shipping_countries": ["DE"]}, {"shipping_countries"}),
        (
            {"offer_type": "SERVICE", "allows_collection": False},
            {"offer_type": "MERCHANDISE"},
            {"allows_collection"},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["patch", "post"])
def test_offer_says_how_it_reaches_its_buyers(
    client_of: Any, stored: dict[str, Any], change: dict[str, Any], fields: set[str], how: str
) -> None:
    offer = OfferFactory(**stored)
    member = client_of(MembershipFactory(organization=offer.event.organization).user)
    if how == "patch":
        answer = member.patch(f"/api/v1/offers/{offer.pk}/", change)
    else:
        whole = {
            "event": offer.event.slug, "title": "New", "offer_type": offer.offer_type,
            "price": str(offer.price), "currency": "USD",
        } | stored | change  # fmt: skip
        answer = member.post("/api/v1/offers/", whole)
    wrong = {error["attr"] for error in answer.json().get("errors", [])}
    assert wrong == fields, answer.content
    assert (answer.status_code == 400) == bool(fields)
    if how == "patch":
        offer.refresh_from_db()
        expected = stored if fields else stored | change
        for field in ("shipping_countries", "allows_collection"):
            if field in expected:
                assert getattr(offer, field) == expected[field]
