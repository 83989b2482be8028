"""What is on sale, on an attendee's phone and desk: every kind of card, and the way to buy."""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from offers.models import Event, Offer
from purchases.models import Purchase
from purchases.states import Status
from tests.browser.visitor import DESKTOP, PHONE, Visitor
from tests.conftest import Sandbox
from tests.factories import (
    EventFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db(transaction=True)

at_both_sizes = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])

# A picture that asks nobody: the tests' browser may talk to this site only.
LANTERNS = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180">
<rect width="320" height="180" fill="#1d2b53"/><circle cx="90" cy="80" r="34" fill="#ffa300"/>
<circle cx="190" cy="60" r="22" fill="#ff004d"/><circle cx="250" cy="110" r="28" fill="#ffec27"/>
</svg>"""
PICTURE = f"data:image/svg+xml;base64,{b64encode(LANTERNS).decode()}"


class Fair:
    """An event with every kind of card there is."""

    def __init__(self) -> None:
        self.now = timezone.now()
        self.event: Event = EventFactory(
            title="Harbour Days",
            slug="harbour-days",
            description="Three days of music, boats and lanterns along the old quay.",
            starts_at=self.now + timedelta(days=20),
        )
        self.attendee = UserFactory(username="lena.fischer", email="lena@example.com")
        self.standard = TicketTierFactory(event=self.event, title="Standard", slug="standard")
        self.vip = TicketTierFactory(event=self.event, title="VIP", slug="vip")
        RegistrationFactory(event=self.event, user=self.attendee, ticket_tier=self.standard)
        self.hoodie = self.offer(
            "Festival hoodie", "MERCHANDISE", "39", original_price=Decimal(49), image_url=PICTURE,
            description="Organic cotton, in two colours.", shipping_countries=["DE", "DK"],
        )  # fmt: skip
        self.mug = self.offer(
            "Enamel mug", "MERCHANDISE", "12.50", inventory_total=7,
            description="For tea at the quay.", expires_at=self.now + timedelta(hours=30),
        )  # fmt: skip
        self.recordings = self.offer(
            "All recordings", "EXCLUSIVE_CONTENT", "0", inventory_total=None,
            expires_at=self.now + timedelta(days=30),
        )  # fmt: skip
        self.tour = self.offer(
            "Backstage tour with the stage crew, on both evenings", "SERVICE", "35",
            starts_at=self.now + timedelta(days=2),
        )  # fmt: skip
        self.poster = self.offer("Poster, signed", "MERCHANDISE", "25", inventory_total=0)
        self.scarf = self.offer("Winter scarf", "MERCHANDISE", "28", inventory_total=2)
        PurchaseFactory(offer=self.scarf, quantity=2)
        self.upgrade = self.offer(
            "VIP upgrade", "TICKET_UPGRADE", "60", ticket_tier=self.vip, placement="CHECKOUT",
            original_price=Decimal(80), description="Front rows and the lounge.",
        )  # fmt: skip
        self.lounge = self.offer("Lounge dinner", "SERVICE", "90", placement="EMAIL")
        self.lounge.target_ticket_tiers.add(self.vip)

    def offer(self, title: str, kind: str, price: str, **more: Any) -> Offer:
        made: Offer = OfferFactory(
            **{
                "event": self.event, "title": title, "offer_type": kind, "price": Decimal(price),
                "currency": "EUR", "inventory_total": 120,
            } | more
        )  # fmt: skip
        return made

    @property
    def page(self) -> str:
        return f"/events/{self.event.slug}/offers"

    def page_of(self, offer: Offer) -> str:
        return f"{self.page}/{offer.pk}"


@at_both_sizes
def test_front_page_leads_to_what_is_on_sale(
    visit: Callable[..., Visitor], size: tuple[int, int]
) -> None:
    fair = Fair()
    past = fair.now - timedelta(days=100)
    EventFactory(title="Spring Regatta", starts_at=past, ends_at=past + timedelta(days=1))
    EventFactory(title="Winter Lights", starts_at=fair.now + timedelta(days=70))
    visitor = visit(size=size)
    visitor.open("/")
    visitor.look("shop_events")
    visitor.page.get_by_role("link", name="Harbour Days").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Harbour Days")


@at_both_sizes
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_kind_of_card_can_be_read(
    visit: Callable[..., Visitor], size: tuple[int, int], dark: bool
) -> None:
    fair = Fair()
    hold: Purchase = PurchaseFactory(
        offer=fair.mug, user=fair.attendee, quantity=2, status=Status.AWAITING_PAYMENT
    )
    Purchase.objects.filter(pk=hold.pk).update(checkout_url="http://127.0.0.1/pay")
    visitor = visit(fair.attendee, size=size, dark=dark)
    visitor.open(fair.page)
    page = visitor.page
    expect(page.locator("article[data-offer]")).to_have_count(7)
    expect(page.get_by_text("only 5 left")).to_be_visible()
    expect(page.locator(".note time[data-until]")).to_have_text(re.compile(r"^1[45]:\d\d$"))
    for button in page.get_by_role("button", name="Buy").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
    visitor.look(f"shop_offers{'_dark' if dark else ''}")


@at_both_sizes
def test_pages_of_single_offers_can_be_read(
    visit: Callable[..., Visitor], size: tuple[int, int]
) -> None:
    fair = Fair()
    visitor, anybody = visit(fair.attendee, size=size), visit(size=size)
    for who, offer, name in (
        (visitor, fair.hoodie, "buyable"),
        (visitor, fair.poster, "sold_out"),
        (visitor, fair.scarf, "on_hold"),
        (visitor, fair.tour, "upcoming"),
        (visitor, fair.lounge, "not_for_you"),
        (anybody, fair.lounge, "log_in"),
        (anybody, fair.hoodie, "logged_out"),
    ):
        who.open(fair.page_of(offer))
        expect(who.page.get_by_role("heading", level=1)).to_have_text(offer.title)
        who.look(f"shop_offer_{name}")


def test_attendee_buys_in_three_taps(
    visit: Callable[..., Visitor], stripe: Sandbox, settings: Any, live_server: Any
) -> None:
    settings.FRONTEND_URL = live_server.url
    fair = Fair()
    visitor = visit(fair.attendee, size=PHONE)
    visitor.open("/")
    page = visitor.page
    page.get_by_role("link", name="Harbour Days").click()
    page.get_by_role("button", name="Buy Enamel mug").click()
    page.get_by_role("button", name=re.compile(r"^Pay .*12\.50")).click()
    page.wait_for_url("**/offers/success?**")
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you, it's yours")


def test_visitor_logs_in_on_the_way_and_keeps_what_they_chose(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    fair = Fair()
    visitor = visit(size=PHONE)
    visitor.open(fair.page)
    page = visitor.page
    card = page.locator("article", has_text="Festival hoodie")
    card.get_by_label("Quantity").fill("3")
    card.get_by_label("Delivery").select_option("collection")
    card.get_by_role("button", name="Buy").click()
    page.locator("input[name=username]").fill(fair.attendee.username)
    page.locator("input[name=password]").fill("secret")
    page.locator("main button").click()
    expect(page.get_by_label("Quantity")).to_have_value("3")
    expect(page.get_by_label("Delivery")).to_have_value("collection")
    page.get_by_role("button", name="Buy").click()
    expect(page.get_by_text("€117.00").first).to_be_visible()


def test_refusal_is_said_where_buy_was_pressed(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    fair = Fair()
    visitor = visit(fair.attendee, size=PHONE)
    visitor.open(fair.page_of(fair.mug))
    page = visitor.page
    page.get_by_label("Quantity").fill("6")
    PurchaseFactory(offer=fair.mug, quantity=3)
    page.get_by_role("button", name="Buy").click()
    expect(page.get_by_role("alert")).to_have_text("Only 4 left: choose a smaller quantity.")
    expect(page.get_by_label("Quantity")).to_have_value("4")
    visitor.look("shop_refused")
