"""Attendees with a phone and at a desk follow what they buy: each state, without their reload."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from fulfillment import queue
from offers.models import Offer
from purchases import checkout, holds, refunds
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from tests.browser.visitor import DESKTOP, PATIENCE_MS, PHONE, Visitor
from tests.conftest import Sandbox, release_unasked
from tests.factories import (
    DigitalContentFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    TimeSlotFactory,
    UserFactory,
)
from tests.sandbox_process import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

SIZES = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])


@pytest.fixture
def user() -> User:
    made: User = UserFactory(username="lena.fischer", email="lena@example.com")
    return made


def hold(visitor_url: str, user: User, offer: Offer | None = None, quantity: int = 1) -> Purchase:
    """What Buy does: the hold, and Stripe's session, which leads back to the site."""
    offer = offer or OfferFactory(title="Festival hoodie", event__title="Harbour Days")
    return checkout.start(
        user=user,
        offer_id=offer.pk,
        quantity=quantity,
        idempotency_key=None,
        site_url=visitor_url,
        now=timezone.now(),
    ).purchase


def success(purchase: Purchase) -> str:
    path = f"/events/{purchase.event.slug}/offers/success"
    return f"{path}?session_id={purchase.checkout_session_id}"


def act(stripe: Sandbox, purchase: Purchase, action: str) -> None:
    stripe.act(purchase.checkout_session_id or "", action)


def reads(visitor: Visitor, heading: str) -> None:
    expect(visitor.page.get_by_role("heading", name=heading, level=1)).to_be_visible(
        timeout=PATIENCE_MS
    )


def say(visitor: Visitor, text: str | re.Pattern[str]) -> None:
    expect(visitor.page.locator("main").get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)


@SIZES
def test_success_page_goes_from_waiting_to_paid_to_delivered_by_itself(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User, size: tuple[int, int]
) -> None:
    visitor = visit(user, size=size)
    offer = OfferFactory(
        title="All recordings", event__title="Harbour Days", offer_type="EXCLUSIVE_CONTENT"
    )
    DigitalContentFactory(offer=offer, codes=3)
    purchase = hold(visitor.base_url, user, offer)
    visitor.open(success(purchase))
    reads(visitor, "One moment…")
    expect(visitor.page.locator("time[data-until]")).to_have_text(re.compile(r"^1[45]:\d\d$"))
    visitor.look("bought-waiting")
    act(stripe, purchase, "pay")
    reads(visitor, "Thank you, it's yours")
    say(visitor, "It is being prepared for you")
    visitor.look("bought-paid")
    queue.deliver_one(purchase.pk, now=timezone.now())
    say(visitor, "Your access code")
    expect(visitor.page.get_by_role("link", name="Open")).to_be_visible()
    visitor.look("bought-delivered")
    # Nothing is asked any more, once there is nothing to wait for.
    expect(visitor.page.locator("[data-watch]")).to_have_count(0)


def test_success_page_without_scripts_gets_there_too(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User
) -> None:
    visitor = visit(user, size=PHONE, scripts=False)
    purchase = hold(visitor.base_url, user)
    visitor.page.goto(success(purchase))
    reads(visitor, "One moment…")
    say(visitor, re.compile(r"until .* UTC"))
    act(stripe, purchase, "pay")
    reads(visitor, "Thank you, it's yours")
    queue.deliver_one(purchase.pk, now=timezone.now())
    say(visitor, "It will be waiting for you")


@SIZES
def test_payment_that_takes_days_and_then_fails(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User, size: tuple[int, int]
) -> None:
    visitor = visit(user, size=size)
    purchase = hold(visitor.base_url, user)
    visitor.open(success(purchase))
    act(stripe, purchase, "pay_async")
    reads(visitor, "Your payment is on its way")
    visitor.look("bought-processing")
    act(stripe, purchase, "fail_async")
    wait_for(lambda: Purchase.objects.get().status == Status.RELEASED)
    reads(visitor, "Your payment did not go through")
    visitor.look("bought-failed")


@SIZES
def test_declined_purchase_is_still_held_and_can_be_paid_or_cancelled(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User, size: tuple[int, int]
) -> None:
    visitor = visit(user, size=size)
    purchase = hold(visitor.base_url, user)
    act(stripe, purchase, "decline")
    visitor.open(f"/purchases/{purchase.pk}")
    say(visitor, "Reserved for you")
    pay = visitor.page.get_by_role("link", name="Pay now")
    expect(pay).to_have_attribute("href", purchase.checkout_url)
    visitor.look("bought-held")
    visitor.open("/purchases")
    say(visitor, "Still to be paid")
    visitor.press("Cancel this purchase")
    say(visitor, "Cancelled. Nothing was charged.")
    visitor.open(f"/purchases/{purchase.pk}")
    say(visitor, "You cancelled this purchase")
    visitor.look("bought-cancelled")


@SIZES
def test_expired_purchase_is_tried_again_with_one_tap(
    visit: Callable[..., Visitor],
    stripe: Sandbox,
    user: User,
    size: tuple[int, int],
    settings: Any,
) -> None:
    visitor = visit(user, size=size)
    settings.RESERVATION_MINUTES = 0.1
    purchase = hold(visitor.base_url, user)
    settings.RESERVATION_MINUTES = 15
    visitor.open(f"/purchases/{purchase.pk}")
    # Counted down to zero, and said by the page itself.
    say(visitor, "The time to pay is up")
    visitor.look("bought-overdue")
    holds.end(
        Purchase.objects.get(), reason=ReleaseReason.EXPIRED, now=timezone.now(), source="sweep"
    )
    say(visitor, "Your time to pay ran out")
    visitor.look("bought-expired")
    visitor.press("Try again")
    again = Purchase.objects.exclude(pk=purchase.pk).get()
    assert visitor.page.url == again.checkout_url


def test_sold_out_meanwhile_is_said_and_not_offered_again(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User
) -> None:
    visitor = visit(user, size=PHONE)
    purchase = hold(visitor.base_url, user, OfferFactory(title="Poster", inventory_total=1))
    holds.cancel(purchase_id=purchase.pk, user=user, now=timezone.now())
    visitor.open("/purchases")
    PurchaseFactory(offer=purchase.offer, status=Status.PAID)
    visitor.press("Try again")
    say(visitor, "This offer is sold out.")
    expect(visitor.page.get_by_role("button", name="Try again")).to_have_count(0)
    visitor.look("bought-sold-out")


@SIZES
def test_late_payment_is_sent_back_and_the_page_says_so(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User, size: tuple[int, int]
) -> None:
    visitor = visit(user, size=size)
    offer = OfferFactory(title="Enamel mug", event__title="Harbour Days", inventory_total=1)
    purchase = hold(visitor.base_url, user, offer)
    release_unasked(str(purchase.pk))
    PurchaseFactory(offer=offer, status=Status.PAID)
    act(stripe, purchase, "pay")
    wait_for(lambda: Purchase.objects.get(pk=purchase.pk).status == Status.REFUND_DUE)
    visitor.open(success(purchase))
    reads(visitor, "Your money is on its way back")
    say(visitor, "when everything was sold")
    visitor.look("bought-refund-due")
    refunds.send_due(now=timezone.now())
    reads(visitor, "Your money was sent back")
    visitor.look("bought-refunded")


@SIZES
def test_my_purchases_show_each_state(
    visit: Callable[..., Visitor], user: User, size: tuple[int, int]
) -> None:
    now = timezone.now()
    for ago, status in enumerate(Status):
        PurchaseFactory(
            user=user,
            quantity=2,
            offer__title=f"Lantern workshop {ago + 1}",
            offer__event__title="Harbour Days and Winter Lights",
            status=status,
            created_at=now - timedelta(minutes=ago),
        )
    visitor = visit(user, size=size)
    visitor.open("/purchases")
    expect(visitor.page.locator("article")).to_have_count(len(Status))
    visitor.look("purchases")
    dark = visit(user, size=size, dark=True)
    dark.open("/purchases")
    dark.look("purchases-dark")


@SIZES
def test_page_of_each_kind_of_delivery(
    visit: Callable[..., Visitor], user: User, size: tuple[int, int]
) -> None:
    visitor = visit(user, size=size)
    registration = RegistrationFactory(user=user, event__title="Harbour Days")
    event = registration.event
    vip = TicketTierFactory(event=event, title="VIP")
    offers = {
        "ticket": OfferFactory(event=event, offer_type="TICKET_UPGRADE", ticket_tier=vip),
        "pickup": OfferFactory(event=event, title="Festival hoodie"),
        "service": OfferFactory(event=event, title="Backstage tour", offer_type="SERVICE"),
    }
    for _ in range(4):
        TimeSlotFactory(offer=offers["service"], capacity=3)
    for name, offer in offers.items():
        method = "collection" if name == "pickup" else ""
        sold = PurchaseFactory(user=user, offer=offer, status=Status.PAID, delivery_method=method)
        queue.deliver_one(sold.pk, now=timezone.now())
        visitor.open(f"/purchases/{sold.pk}")
        visitor.look(f"bought-{name}")
        if name == "ticket":
            dark = visit(user, size=size, dark=True)
            dark.open(f"/purchases/{sold.pk}")
            dark.look("bought-ticket-dark")
        if name == "service":
            visitor.page.get_by_role("radio").first.check()
            visitor.press("Book this time")
            say(visitor, "Booked:")
            visitor.look("bought-service-booked")


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("UTC", {"Monday, June 3, 2030": 2, "Tuesday, June 4, 2030": 1}),
        ("Asia/Tokyo", {"Monday, June 3, 2030": 1, "Tuesday, June 4, 2030": 2}),
        ("America/Los_Angeles", {"Monday, June 3, 2030": 3}),
    ],
)
def test_slots_stand_under_the_days_of_who_reads_them(
    visit: Callable[..., Visitor], user: User, zone: str, days: dict[str, int]
) -> None:
    service = OfferFactory(title="Backstage tour", offer_type="SERVICE")
    for day, hour in ((3, 14), (3, 16), (4, 1)):
        starts_at = datetime(2030, 6, day, hour, tzinfo=UTC)
        TimeSlotFactory(
            offer=service, starts_at=starts_at, ends_at=starts_at + timedelta(minutes=30)
        )
    sold = PurchaseFactory(user=user, offer=service, status=Status.PAID)
    queue.deliver_one(sold.pk, now=timezone.now())
    visitor = visit(user, zone=zone)
    visitor.open(f"/purchases/{sold.pk}")
    groups = visitor.page.locator("form.slots fieldset").all()
    shown = {
        group.locator("legend").inner_text(): group.get_by_role("radio").count() for group in groups
    }
    assert shown == days
    visitor.page.get_by_role("radio").last.check()
    visitor.press("Book this time")
    say(visitor, "Booked:")


def test_page_that_nobody_looks_at_asks_nothing(
    visit: Callable[..., Visitor], stripe: Sandbox, user: User
) -> None:
    visitor = visit(user, size=PHONE)
    asked: list[str] = []
    visitor.page.on("request", lambda r: asked.append(r.url) if "/status?" in r.url else None)
    hide = """hidden => {
      Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    purchase = hold(visitor.base_url, user)
    visitor.open(success(purchase))
    with visitor.page.expect_request(re.compile("/status?")):
        pass
    visitor.page.evaluate(hide, True)
    visitor.page.wait_for_load_state("networkidle")
    before = len(asked)
    act(stripe, purchase, "pay")
    wait_for(lambda: Purchase.objects.get().status == Status.PAID)
    visitor.page.wait_for_timeout(2500)  # more than two of its pauses
    assert len(asked) == before
    visitor.page.evaluate(hide, False)
    reads(visitor, "Thank you, it's yours")
