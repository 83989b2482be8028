"""An attendee on the way from an event's offers to what they bought, for tests that walk it."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from fulfillment import queue
from offers.models import Event, Offer
from purchases.models import Purchase
from purchases.states import Status
from tests.browser.visitor import PATIENCE_MS, Visitor
from tests.conftest import Sandbox
from tests.factories import DigitalContentFactory, EventFactory, OfferFactory, UserFactory
from tests.sandbox_process import wait_for

STRIPES_PAGE = re.compile(r"/c/pay/cs_test_")
SUCCESS_PAGE = re.compile(r"/offers/success\?session_id=")


class Stall:
    """A public event that sells a mug and recordings, and somebody who wants them."""

    def __init__(self, **mug: Any) -> None:
        self.event: Event = EventFactory(
            title="Harbour Days",
            slug="harbour-days",
            starts_at=timezone.now() + timedelta(days=20),
        )
        self.attendee: User = UserFactory(username="lena.fischer", email="lena@example.com")
        self.mug = self._offer(
            **{"title": "Enamel mug", "price": Decimal("12.50"), "inventory_total": 7} | mug
        )
        self.recordings = self._offer(
            title="All recordings", price=Decimal(19), offer_type=Offer.Type.EXCLUSIVE_CONTENT
        )
        DigitalContentFactory(offer=self.recordings, codes=9)

    def _offer(self, **what: Any) -> Offer:
        made: Offer = OfferFactory(event=self.event, currency="EUR", **what)
        return made

    @property
    def page(self) -> str:
        return f"/events/{self.event.slug}/offers"

    def reserved_and_sold(self, offer: Offer) -> tuple[int, int]:
        offer.refresh_from_db()
        return offer.inventory_reserved, offer.inventory_sold


def buy_button(page: Page, offer: Offer) -> Locator:
    return page.get_by_role("button", name=f"Buy {offer.title}")


def pay_button(page: Page) -> Locator:
    """The one on Stripe's page."""
    return page.get_by_role("button", name=re.compile(r"^Pay .*\d\.\d\d"))


def reads(visitor: Visitor, heading: str) -> None:
    """Wait until the page is headed so, by itself or by what was done before."""
    expect(visitor.page.get_by_role("heading", name=heading, level=1)).to_be_visible(
        timeout=PATIENCE_MS
    )
    visitor.settle()


def says(visitor: Visitor, text: str | re.Pattern[str]) -> None:
    expect(visitor.page.locator("main").get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)


def hear_of_it(stripe: Sandbox) -> None:
    """Stripe's webhooks, which were kept back (``webhooks="drop"``), come now."""
    stripe.faults()
    for webhook in stripe.process.get("webhooks")["data"]:
        stripe.process.control(f"webhooks/{webhook['event_id']}/resend")


def deliver(purchase: Purchase) -> None:
    """What the worker does a moment after the payment."""
    wait_for(lambda: Purchase.objects.get(pk=purchase.pk).status == Status.PAID)
    queue.deliver_one(purchase.pk, now=timezone.now())


def run_out_of_time(purchase: Purchase) -> None:
    """Make it a hold whose time to pay was up a moment ago."""
    over = timezone.now() - timedelta(seconds=1)
    Purchase.objects.filter(pk=purchase.pk).update(reserved_until=over)
