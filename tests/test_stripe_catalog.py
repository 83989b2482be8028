"""Offers as Products and Prices at Stripe."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from offers.models import Offer
from purchases import stripe_catalog
from purchases.models import Purchase
from tests.conftest import buy
from tests.factories import EventFactory, MembershipFactory, OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timedelta(seconds=30)  # when the next sweep comes


def sweep(after: timedelta = timedelta(0)) -> int:
    return stripe_catalog.sync_due_offers(now=timezone.now() + after)


def product(sandbox: Any, offer: Offer) -> Any:
    offer.refresh_from_db()
    return sandbox.client.v1.products.retrieve(offer.stripe_product_id)


def active_prices(sandbox: Any, offer: Offer) -> list[tuple[str, int]]:
    prices = sandbox.client.v1.prices.list({"product": offer.stripe_product_id, "active": True})
    return [(price.id, price.unit_amount) for price in prices.data]


def test_offer_made_by_the_api_gets_its_product_and_price(sandbox: Any, client_of: Any) -> None:
    member = MembershipFactory()
    event = EventFactory(organization=member.organization)
    answer = client_of(member.user).post(
        "/api/v1/offers/",
        {"event": event.slug, "title": "Hoodie", "offer_type": "MERCHANDISE", "price": "39.00"},
    )
    assert answer.status_code == 201, answer.content

    assert sweep() == 1

    offer = Offer.objects.get()
    assert product(sandbox, offer).name == "Hoodie"
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 3900)]
    assert sweep() == 0


def test_offer_made_in_admin_gets_its_product_and_price(sandbox: Any) -> None:
    User.objects.create_superuser("root", "", "secret")
    admin = Client()
    admin.login(username="root", password="secret")
    answer = admin.post(
        "/admin/offers/offer/add/",
        {
            "event": str(EventFactory().pk),
            "title": "Poster",
            "offer_type": "MERCHANDISE",
            "placement": "IN_EVENT",
            "price": "5.00",
            "currency": "EUR",
            "allows_collection": "on",
            "is_active": "on",
        },
    )
    assert answer.status_code == 302, answer.content

    assert sweep() == 1

    offer = Offer.objects.get()
    assert product(sandbox, offer).name == "Poster"
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 500)]


def test_save_is_no_concern_of_stripes_and_the_sweep_catches_up(sandbox: Any) -> None:
    sandbox.faults(error_rate=1.0, error_status=500)
    offer = OfferFactory(price=Decimal("12.00"))
    assert sweep() == 0
    offer.refresh_from_db()
    assert offer.stripe_product_id is None

    sandbox.faults()
    assert sweep(SOON) == 1
    assert product(sandbox, offer).active
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 1200)]


def test_sync_that_lost_stripes_answer_makes_no_second_product(sandbox: Any) -> None:
    offer = OfferFactory()
    sandbox.faults(drop_rate=1.0)
    assert sweep() == 0
    sandbox.faults()
    assert sweep(SOON) == 1
    assert len(sandbox.client.v1.products.list().data) == 1
    offer.refresh_from_db()
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 5000)]


@pytest.mark.parametrize("fault", ["error_rate", "drop_rate"])
def test_price_that_failed_once_is_made_by_the_next_try_and_only_once(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Stripe keeps a 500 under its idempotency key, and a Price whose answer was lost as well."""
    offer = OfferFactory()
    tell = stripe_catalog._tell_product

    def fail_from_here_on(told: Offer) -> str:
        product_id = tell(told)
        sandbox.faults(**{fault: 1.0})
        return product_id

    with monkeypatch.context() as patch:
        patch.setattr(stripe_catalog, "_tell_product", fail_from_here_on)
        assert sweep() == 0
    sandbox.faults()
    assert sweep(SOON) == 1

    offer.refresh_from_db()
    assert [price.id for price in sandbox.client.v1.prices.list().data] == [offer.stripe_price_id]
    assert offer.is_in_stripes_hands
    assert sweep(SOON) == 0


def test_new_price_makes_a_new_price_and_deactivates_the_old(sandbox: Any) -> None:
    offer = OfferFactory()
    sweep()
    offer.refresh_from_db()
    old = offer.stripe_price_id

    offer.price = Decimal("60.00")
    offer.save()
    assert sweep() == 1

    offer.refresh_from_db()
    assert offer.stripe_price_id != old
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 6000)]
    assert not sandbox.client.v1.prices.retrieve(old).active


def test_price_that_changes_back_is_charged_by_an_active_price(sandbox: Any) -> None:
    offer = OfferFactory(price=Decimal("50.00"))
    sweep()
    for price in ("60.00", "50.00"):
        offer.refresh_from_db()
        offer.price = Decimal(price)
        offer.save()
        sweep()
    offer.refresh_from_db()
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 5000)]


def test_save_during_a_sync_is_told_by_the_next_one(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory(title="Old")
    tell = stripe_catalog._tell_stripe

    def save_meanwhile(told: Offer) -> None:
        again = Offer.objects.get(pk=offer.pk)
        again.title, again.price = "New", Decimal("70.00")
        again.save()
        tell(told)

    with monkeypatch.context() as patch:
        patch.setattr(stripe_catalog, "_tell_stripe", save_meanwhile)
        sweep()
    assert sweep() == 1
    assert product(sandbox, offer).name == "New"
    assert active_prices(sandbox, offer) == [(offer.stripe_price_id, 7000)]


def test_archive_deactivates_the_product_and_free_offers_have_no_price(
    sandbox: Any, client_of: Any
) -> None:
    member = MembershipFactory()
    offer = OfferFactory(event__organization=member.organization, price=0)
    sweep()
    assert product(sandbox, offer).active
    assert offer.stripe_price_id is None

    assert client_of(member.user).delete(f"/api/v1/offers/{offer.pk}/").status_code == 204
    assert sweep() == 1
    assert not product(sandbox, offer).active


def test_checkout_names_the_price_when_it_is_current(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    sweep()
    offer.refresh_from_db()
    session = buy(client_of(UserFactory()), offer).json()["checkout_session_id"]
    items = sandbox.client.v1.checkout.sessions.line_items.list(session).data
    assert [item.price.id for item in items] == [offer.stripe_price_id]


def test_session_charges_the_price_at_the_time_of_the_hold(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(price=Decimal("50.00"))
    sweep()
    Offer.objects.filter(pk=offer.pk).update(price=Decimal("60.00"))  # Stripe hasn't heard of it
    dearer = buy(client_of(UserFactory()), offer).json()
    assert dearer["unit_price"] == "60.00"
    amounts = [session["amount_total"] for session in sandbox.sessions()]
    assert amounts == [6000]

    Offer.objects.filter(pk=offer.pk).update(price=Decimal("70.00"))
    sandbox.act(dearer["checkout_session_id"], "pay")
    sandbox.deliver()
    assert Purchase.objects.get().status == "paid"
    assert Purchase.objects.get().total_price == Decimal("60.00")


def test_price_that_was_deactivated_meanwhile_is_replaced_by_the_amount_itself(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    sweep()
    offer.refresh_from_db()
    sandbox.client.v1.prices.update(offer.stripe_price_id, {"active": False})

    answer = buy(client_of(UserFactory()), offer)

    assert answer.status_code == 201
    assert [session["amount_total"] for session in sandbox.sessions()] == [5000]
