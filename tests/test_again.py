"""Try again: one tap from a purchase that ended unpaid to Stripe's page for a new one."""

import itertools
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client
from django.utils import timezone

from offers import targeting
from offers.errors import NotEligible, NotRegistered
from offers.models import Offer
from purchases import holds, trying_again
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from tests.conftest import at_once, counters
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db(transaction=True)

BUTTON = "Try again"


@pytest.fixture
def user() -> User:
    made: User = UserFactory()
    return made


@pytest.fixture
def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def press(browser: Client, purchase: Purchase) -> Any:
    return browser.post(f"/purchases/{purchase.pk}/again")


def pages(browser: Client, purchase: Purchase) -> list[str]:
    """My purchases, and the page of the one."""
    paths = ("/purchases", f"/purchases/{purchase.pk}")
    return [browser.get(path).content.decode() for path in paths]


def test_one_tap_leads_to_stripe_for_the_same_thing(
    sandbox: Any, browser: Client, user: User
) -> None:
    offer = OfferFactory(shipping_countries=["DE"], allows_collection=True)
    ended = PurchaseFactory(
        user=user, offer=offer, quantity=3, delivery_method="collection", status=Status.RELEASED
    )
    assert all(BUTTON in page for page in pages(browser, ended))
    answer = press(browser, ended)
    new = Purchase.objects.exclude(pk=ended.pk).get()
    assert (answer.status_code, answer.url) == (302, new.checkout_url)
    assert (new.offer, new.quantity, new.delivery_method) == (offer, 3, "collection")
    assert new.status == Status.AWAITING_PAYMENT
    assert counters(offer) == (3, 0)
    # The new one has Pay and Cancel; the old one is done with.
    assert not any(BUTTON in page for page in pages(browser, ended))


def test_double_click_makes_one_purchase(sandbox: Any, user: User, browser: Client) -> None:
    ended = PurchaseFactory(user=user, status=Status.RELEASED)
    other = Client()
    other.force_login(user)
    answers = at_once([lambda: press(browser, ended), lambda: press(other, ended)])
    assert len({answer.url for answer in answers}) == 1
    assert counters(ended.offer) == (1, 0)


def test_what_was_tried_again_and_ended_too_is_tried_again_itself(
    sandbox: Any, browser: Client, user: User
) -> None:
    first = PurchaseFactory(user=user, status=Status.RELEASED)
    press(browser, first)
    second = Purchase.objects.exclude(pk=first.pk).get()
    holds.cancel(purchase_id=second.pk, user=user, now=timezone.now())
    listed = pages(browser, second)[0]
    assert f"/purchases/{second.pk}/again" in listed
    assert f"/purchases/{first.pk}/again" not in listed
    # From a page that was open all the while, too.
    answer = press(browser, first)
    third = Purchase.objects.exclude(pk__in=[first.pk, second.pk]).get()
    assert answer.url == third.checkout_url
    assert press(browser, second).url == third.checkout_url
    assert counters(first.offer) == (1, 0)


@pytest.mark.parametrize("status", [s for s in Status if s != Status.RELEASED])
def test_only_what_ended_unpaid_is_tried_again(browser: Client, user: User, status: str) -> None:
    purchase = PurchaseFactory(user=user, status=status)
    assert not any(BUTTON in page for page in pages(browser, purchase))
    answer = press(browser, purchase)
    assert answer.url == "/purchases"
    assert "nothing to try again" in browser.get("/purchases").content.decode()
    assert Purchase.objects.count() == 1


@pytest.mark.parametrize("reason", ReleaseReason)
def test_every_end_can_be_tried_again(browser: Client, user: User, reason: str) -> None:
    purchase = PurchaseFactory(user=user, status=Status.RELEASED)
    Purchase.objects.update(release_reason=reason)
    assert all(BUTTON in page for page in pages(browser, purchase))


def test_hold_that_was_made_anew_in_the_shop_is_the_one_that_is_meant(
    sandbox: Any, browser: Client, user: User
) -> None:
    """Two holds of the same might both be paid."""
    ended = PurchaseFactory(user=user, status=Status.RELEASED)
    again = PurchaseFactory(user=user, offer=ended.offer, status=Status.AWAITING_PAYMENT)
    Purchase.objects.filter(pk=again.pk).update(checkout_url="https://stripe.example.com/c/1")
    assert not any(BUTTON in page for page in pages(browser, ended))
    # From a page that was left open.
    assert press(browser, ended).url == "https://stripe.example.com/c/1"
    assert Purchase.objects.count() == 2


def test_what_was_bought_meanwhile_is_not_proposed_again(browser: Client, user: User) -> None:
    ended = PurchaseFactory(user=user, status=Status.RELEASED)
    PurchaseFactory(user=user, offer=ended.offer, status=Status.PAID)
    assert not any(BUTTON in page for page in pages(browser, ended))


def test_refusal_leads_back_to_my_purchases_with_the_reason(browser: Client, user: User) -> None:
    ended = PurchaseFactory(user=user, offer__inventory_total=1, status=Status.RELEASED)
    PurchaseFactory(offer=ended.offer, status=Status.PAID)
    assert not any(BUTTON in page for page in pages(browser, ended))
    answer = press(browser, ended)
    assert answer.url == "/purchases"
    assert "sold out" in browser.get("/purchases").content.decode()
    assert counters(ended.offer) == (0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"inventory_total": 1},
        {"is_active": False},
        {"is_archived": True},
        {"expires_at": timezone.now()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_button_is_only_there_while_the_offer_can_be_bought(
    browser: Client, user: User, change: dict[str, Any]
) -> None:
    ended = PurchaseFactory(user=user, quantity=2, status=Status.RELEASED)
    Offer.objects.update(**change)
    assert not any(BUTTON in page for page in pages(browser, ended))


def test_strangers_purchase_is_not_tried_again(browser: Client) -> None:
    ended = PurchaseFactory(status=Status.RELEASED)
    press(browser, ended)
    assert Purchase.objects.count() == 1


def test_too_many_tries_are_told_to_wait(sandbox: Any, browser: Client, user: User) -> None:
    ended = PurchaseFactory(user=user, status=Status.RELEASED)
    with time_machine.travel(timezone.now(), tick=False):  # all of it in one window
        for _ in range(10):
            press(browser, ended)
        assert press(browser, ended).url == "/purchases"
    assert "Too many tries" in browser.get("/purchases").content.decode()


def test_what_can_be_tried_again_takes_two_queries_for_any_number(
    user: User, django_assert_num_queries: Any
) -> None:
    for number in (1, 30):
        PurchaseFactory.create_batch(number, user=user, status=Status.RELEASED)
        purchases = list(Purchase.objects.all())
        caches["switches"].clear()  # remembered for two seconds
        trying_again.possible(user, purchases, now=timezone.now())  # knows the kill switch now
        with django_assert_num_queries(2):
            assert len(trying_again.possible(user, purchases, now=timezone.now())) == len(purchases)


def test_offers_that_can_be_bought_are_those_that_a_purchase_would_not_refuse(user: User) -> None:
    """One query for all events and the check of a single offer are of one opinion."""
    for is_public, tier, sessions in itertools.product(
        (True, False), (None, "own", "other"), (None, "all", "own", "other", "nowhere")
    ):
        event = EventFactory(is_public=is_public)
        tiers = TicketTierFactory.create_batch(2, event=event)
        halls = EventSessionFactory.create_batch(2, event=event)
        if tier is not None:
            place = RegistrationFactory(
                user=user, event=event, ticket_tier=tiers[0] if tier == "own" else tiers[1]
            )
            if sessions in ("own", "other"):
                place.sessions.add(halls[0] if sessions == "own" else halls[1])
        for with_tier, with_session in itertools.product((False, True), repeat=2):
            offer = OfferFactory(event=event)
            if with_tier:
                offer.target_ticket_tiers.add(tiers[0])
            if with_session:
                offer.target_sessions.add(halls[0])
    expected = set()
    for offer in Offer.objects.select_related("event"):
        try:
            targeting.refuse_unless_eligible(user, offer)
        except (NotEligible, NotRegistered):
            continue
        expected.add(offer.pk)
    assert 0 < len(expected) < Offer.objects.count()
    assert set(targeting.buyable_by(user).values_list("pk", flat=True)) == expected
