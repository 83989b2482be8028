"""An organizer who logs in for the first time sets up an offer, with two mistakes on the way."""

import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from offers.models import Membership, Offer
from tests.browser import labels
from tests.browser.visitor import DESKTOP, PHONE, Visitor
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_offer_is_created_from_an_empty_form_after_two_mistakes(
    visit: Callable[..., Visitor], size: tuple[int, int]
) -> None:
    event = EventFactory(title="Harbour Days")
    person = UserFactory(username="mara", password="a long passphrase")
    MembershipFactory(organization=event.organization, user=person, role=Membership.Role.MANAGER)
    visitor = visit(size=size)
    page = visitor.page

    visitor.open(reverse("admin:offers_offer_add"))  # the login page, that is
    page.get_by_label(labels.USERNAME).fill("mara")
    page.get_by_label(labels.PASSWORD).fill("a long passphrase")
    page.get_by_role("button", name=labels.LOG_IN).click()
    page.wait_for_url(re.compile("/offers/offer/add/"))
    visitor.settle()

    # The only one that is theirs is chosen already.
    expect(page.locator("[name=event] option:checked")).to_have_text("Harbour Days")
    visitor.field(labels.TITLE).fill("Boat trip")
    visitor.field(labels.OFFER_TYPE).select_option(label="Service")
    visitor.field(labels.PRICE).fill("0.10")  # less than Stripe charges
    page.locator("[name=currency]").fill("EUR")
    visitor.field(labels.TOTAL).fill("12")
    page.locator("[name=starts_at_0]").fill("2030-06-02")
    page.locator("[name=starts_at_1]").fill("10:00:00")
    page.locator("[name=expires_at_0]").fill("2030-06-01")  # the day before it starts
    page.locator("[name=expires_at_1]").fill("10:00:00")
    visitor.press(labels.SAVE)

    for field in ("price", "expires_at"):
        expect(page.locator(f".field-{field} .errorlist")).to_be_visible()
    expect(page.locator(".errorlist li")).to_have_count(2)
    assert not Offer.objects.exists()
    expect(visitor.field(labels.TITLE)).to_have_value("Boat trip")
    expect(visitor.field(labels.TOTAL)).to_have_value("12")
    expect(page.locator("[name=event] option:checked")).to_have_text("Harbour Days")
    visitor.look("offer_form_with_errors")

    visitor.field(labels.PRICE).fill("18")
    page.locator("[name=expires_at_0]").fill("2030-06-03")
    visitor.press(labels.SAVE)

    page.wait_for_url(re.compile(r"/offers/offer/(\?.*)?$"))
    visitor.settle()
    visitor.see("Boat trip")
    offer = Offer.objects.get()
    assert (offer.title, offer.event, offer.offer_type) == ("Boat trip", event, Offer.Type.SERVICE)
    assert (offer.price, offer.currency, offer.inventory_total) == (Decimal(18), "EUR", 12)
    assert offer.starts_at is not None
    assert offer.starts_at.isoformat() == "2030-06-02T10:00:00+00:00"


def test_form_offers_the_sessions_and_tiers_of_the_event_that_is_chosen(
    visit: Callable[..., Visitor], superuser: User
) -> None:
    here, there = EventFactory(title="Harbour Days"), EventFactory(title="Inland Days")
    for event in (here, there):
        EventSessionFactory(event=event, title=f"Opening of {event.title}")
        TicketTierFactory(event=event, title=f"VIP of {event.title}")
    visitor = visit(superuser)

    visitor.open(reverse("admin:offers_offer_add"))
    assert len(visitor.choices(labels.SESSIONS, "opening")) == 2
    visitor.choose(labels.EVENT, "Harbour Days")
    (session,) = visitor.choices(labels.SESSIONS, "opening")
    assert "Harbour" in session
    assert visitor.choices(labels.EVENT, "days") == ["Harbour Days", "Inland Days"]

    visitor.open(reverse("admin:offers_offer_change", args=[OfferFactory(event=there).pk]))
    (tier,) = visitor.choices(labels.TIERS, "vip")
    assert "Inland" in tier
