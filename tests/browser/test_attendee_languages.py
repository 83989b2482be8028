"""Attendees whose browser asks for German, on a phone: long words fit, and one tap changes it."""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from offers.models import Offer
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from tests.booked_services import Service
from tests.browser.test_attendee_shop import Fair
from tests.browser.visitor import PHONE, Visitor
from tests.conftest import deliver_now
from tests.factories import PurchaseFactory, TimeSlotFactory
from tests.test_shipping import ADDRESS

pytestmark = pytest.mark.django_db(transaction=True)

# What has a word that is wider than its box.
OVERFLOWING = """() => [...document.querySelectorAll(
    'button, .button, .tag, article, .note, legend, label, dt, dd, nav, h1, h2, h3')]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !e.closest('.unseen'))
  .map(e => e.textContent.trim().replace(/\\s+/g, ' ').slice(0, 80))"""


@pytest.fixture
def fair() -> Fair:
    return Fair()


@pytest.fixture
def german(visit: Callable[..., Visitor]) -> Callable[..., Visitor]:
    return lambda user=None: visit(user, size=PHONE, locale="de-DE")


def look(visitor: Visitor, name: str) -> None:
    assert visitor.page.evaluate(OVERFLOWING) == []
    visitor.look(f"german-{name}")


def test_german_phone_goes_from_the_events_to_the_own_purchases(
    german: Callable[..., Visitor], fair: Fair
) -> None:
    visitor = german()
    page = visitor.page
    visitor.open("/")
    look(visitor, "events")
    page.get_by_role("link", name="Harbour Days").click()
    expect(page.get_by_text("Mach mehr daraus")).to_be_visible()
    look(visitor, "offers")
    page.get_by_role("button", name="Kaufen Enamel mug").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Anmelden")
    look(visitor, "login")
    page.get_by_label("E-Mail-Adresse oder Benutzername").fill(fair.attendee.username)
    page.get_by_label("Passwort").fill("secret")
    page.locator("main").get_by_role("button", name="Anmelden").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Enamel mug")
    expect(page.get_by_text("12,50 €")).to_be_visible()
    look(visitor, "offer")
    page.get_by_role("link", name="Meine Käufe").click()
    expect(page.get_by_text("Du hast noch nichts gekauft.")).to_be_visible()
    look(visitor, "purchases_none")
    page.get_by_role("button", name="Abmelden").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Anmelden")


def test_german_words_fit_in_every_state_of_a_purchase(
    german: Callable[..., Visitor], fair: Fair
) -> None:
    now = timezone.now()
    for status in set(Status) - {Status.RESERVED}:
        PurchaseFactory(offer=fair.hoodie, user=fair.attendee, status=status)
    Purchase.objects.filter(status=Status.AWAITING_PAYMENT).update(
        checkout_url="http://127.0.0.1/pay"
    )
    Purchase.objects.filter(status=Status.PAID).update(refunded_amount=Decimal("12.5"))
    for reason in ReleaseReason:
        ended = PurchaseFactory(offer=fair.mug, user=fair.attendee, status=Status.RELEASED)
        Purchase.objects.filter(pk=ended.pk).update(release_reason=reason)
    late = PurchaseFactory(
        offer=fair.mug, user=fair.attendee, status=Status.AWAITING_PAYMENT,
        created_at=now - timedelta(minutes=20),
    )  # fmt: skip
    visitor = german(fair.attendee)
    visitor.open(fair.page)
    expect(visitor.page.get_by_role("link", name="Jetzt bezahlen").first).to_be_visible()
    look(visitor, "offers_with_hold")
    visitor.open("/purchases")
    expect(visitor.page.get_by_text("Noch zu bezahlen")).to_be_visible()
    look(visitor, "purchases")
    visitor.open(f"/purchases/{late.pk}")
    look(visitor, "time_is_up")
    waiting = Purchase.objects.get(offer=fair.hoodie, status=Status.AWAITING_PAYMENT)
    visitor.open(f"{fair.page}/success?session_id={waiting.checkout_session_id}")
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text(re.compile("Einen Moment"))
    look(visitor, "success")


def test_german_words_fit_in_every_delivery(german: Callable[..., Visitor], fair: Fair) -> None:
    service = Service(event=fair.event, title="Stagecraft", max_per_user=None)
    for _ in range(3):
        TimeSlotFactory(offer=service.offer, capacity=4)
    booked = service.sold(user=fair.attendee)
    service.pick(booked, service.slot(capacity=2))
    visitor = german(fair.attendee)

    def bought(offer: Offer, **facts: object) -> Purchase:
        purchase: Purchase = PurchaseFactory(
            offer=offer, user=fair.attendee, status=Status.PAID, **facts
        )
        deliver_now(purchase.pk)
        return purchase

    for name, purchase in {
        "booking": booked,
        "ticket": bought(fair.upgrade),
        "pick_up": bought(fair.mug, delivery_method="collection"),
        "parcel": bought(fair.hoodie, delivery_method="shipping", shipping_address=ADDRESS),
        "content_missing": bought(fair.recordings),
    }.items():
        visitor.open(f"/purchases/{purchase.pk}")
        look(visitor, f"purchase_{name}")


def test_german_words_fit_around_accounts(german: Callable[..., Visitor], fair: Fair) -> None:
    visitor = german()
    for name, path, status in (
        ("register", "/register", 200),
        ("reset", "/password/reset", 200),
        ("link_is_over", "/password/reset/x/y", 404),
        ("not_found", "/nowhere", 404),
    ):
        visitor.open(path, status=status)
        look(visitor, name)
    visitor = german(fair.attendee)
    visitor.open("/password/change")
    look(visitor, "change_password")


def test_tap_on_the_other_language_stays_on_the_page_and_is_remembered(
    visit: Callable[..., Visitor], fair: Fair
) -> None:
    visitor = visit(size=PHONE)
    page = visitor.page
    visitor.open(f"{fair.page}?placement=CHECKOUT")
    here = page.url
    expect(page.get_by_role("button", name="English")).to_have_attribute("aria-current", "true")
    visitor.press("Deutsch")
    assert page.url == here
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.get_by_role("button", name="Deutsch")).to_have_attribute("aria-current", "true")
    visitor.open("/login")
    expect(page.get_by_role("heading", level=1)).to_have_text("Anmelden")
    visitor.press("English")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
