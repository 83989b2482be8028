"""A page of offers that is left open: what others buy is seen there, without a reload."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import F
from playwright.sync_api import Page, Route, expect

from offers.models import Offer
from tests.browser.visitor import PHONE, Visitor
from tests.conftest import Sandbox, buy
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

LIVE = re.compile(r"/offers/live\?")
# The browser is told that its tab is in front, or isn't: headless ones are always.
TAB = """is_hidden => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => is_hidden});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def page_of(offer: Offer) -> str:
    return f"/events/{offer.event.slug}/offers"


def card(page: Page, offer: Offer) -> Any:
    return page.locator(f'[data-offer="{offer.pk}"]')


def next_look(page: Page) -> Any:
    return page.expect_response(LIVE, timeout=20_000)


def test_open_page_follows_what_others_buy(
    visit: Callable[..., Visitor], stripe: Sandbox, client_of: Any
) -> None:
    offer = OfferFactory(title="Hoodie", inventory_total=3)
    plenty = OfferFactory(title="Recordings", event=offer.event, inventory_total=None)
    attendee, guest = visit(UserFactory(), size=PHONE), visit()
    for visitor in (attendee, guest):
        visitor.open(page_of(offer))
        expect(card(visitor.page, offer)).to_contain_text("only 3 left")
        visitor.page.evaluate("window.unloaded = false")
    buyer = client_of(UserFactory())

    buy(buyer, offer, 1)
    for visitor in (attendee, guest):
        expect(card(visitor.page, offer)).to_contain_text("only 2 left")
        expect(visitor.page.locator("[role=status]").last).to_be_empty()

    hold = buy(buyer, offer, 2).json()
    button = card(attendee.page, offer).get_by_role("button", name="Buy")
    button.focus()
    for visitor in (attendee, guest):
        expect(card(visitor.page, offer).locator("[data-sold-out]")).to_be_visible()
        expect(card(visitor.page, offer).locator("[data-buy]")).to_be_hidden()
        expect(card(visitor.page, plenty).locator("[data-buy]")).to_be_visible()
        expect(visitor.page.locator("[role=status]").last).to_have_text("Hoodie: sold out")
        visitor.look("live_sold_out" if visitor is attendee else "live_sold_out_guest")
    # Who was about to press it is where they were, and not at the top of the page.
    expect(card(attendee.page, offer).locator("[data-sold-out]")).to_be_focused()

    buyer.post(f"/api/v1/purchases/{hold['id']}/cancel/")
    for visitor in (attendee, guest):
        expect(card(visitor.page, offer)).to_contain_text("only 2 left")
        expect(card(visitor.page, offer).locator("[data-buy]")).to_be_visible()

    Offer.objects.filter(pk=offer.pk).update(is_active=False)
    for visitor in (attendee, guest):
        expect(card(visitor.page, offer)).to_contain_text("This offer has ended.")
        expect(card(visitor.page, offer).locator("[data-buy]")).to_be_hidden()
        assert visitor.page.evaluate("window.unloaded") is False


def test_guests_ask_without_cookies_and_attendees_with(visit: Callable[..., Visitor]) -> None:
    offer = OfferFactory()
    for user in (None, UserFactory()):
        visitor = visit(user)
        visitor.open(page_of(offer))
        with next_look(visitor.page) as looked:
            pass
        headers = looked.value.request.all_headers()
        assert ("sessionid" in headers.get("cookie", "")) == (user is not None)
        assert user is not None or "cookie" not in headers
        assert headers["accept-language"] == "en"
        with next_look(visitor.page) as looked:
            pass
        assert looked.value.status == 304


def test_hidden_tab_does_not_look_and_does_at_once_when_it_is_back(
    visit: Callable[..., Visitor],
) -> None:
    offer = OfferFactory(inventory_total=5)
    visitor = visit()
    page = visitor.page
    # Time goes by as the test says, and nobody waits for it.
    page.clock.install()
    visitor.open(page_of(offer))
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url) if LIVE.search(request.url) else 0)
    with next_look(page):
        page.clock.run_for(5_000)
    page.evaluate(TAB, True)
    seen = len(looks)
    Offer.objects.update(inventory_total=F("inventory_total") - 1)
    page.clock.run_for(10 * 60_000)
    assert len(looks) == seen
    with next_look(page):
        page.evaluate(TAB, False)
    expect(card(page, offer)).to_contain_text("only 4 left")


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_asks_for_a_rest_gets_it(visit: Callable[..., Visitor], status: int) -> None:
    offer = OfferFactory(inventory_total=5)
    visitor = visit()
    page = visitor.page
    page.clock.install()
    looks: list[str] = []

    def refuse(route: Route) -> None:
        looks.append(route.request.url)
        visitor._expected.add(route.request.url)
        route.fulfill(status=status, headers={"Retry-After": "300"}, body="")

    page.route(LIVE, refuse)
    visitor.open(page_of(offer))
    with next_look(page):
        page.clock.run_for(5_000)
    page.clock.run_for(290_000)
    page.evaluate(TAB, True)
    page.evaluate(TAB, False)
    assert len(looks) == 1
    page.unroute(LIVE)
    Offer.objects.update(inventory_total=4)
    with next_look(page):
        page.clock.run_for(60_000)
    expect(card(page, offer)).to_contain_text("only 4 left")


def test_looks_are_rarer_while_nothing_changes_or_nothing_answers(
    visit: Callable[..., Visitor],
) -> None:
    offer = OfferFactory(inventory_total=5)
    visitor = visit()
    page = visitor.page
    page.clock.install()
    page.add_init_script("Math.random = () => 0.5")

    def waits(times: int) -> list[int]:
        """Seconds from one look to the next, so many times."""
        found = []
        for _ in range(times):
            waited = 0
            seen = len(looks)
            while len(looks) == seen:
                page.clock.run_for(1_000)
                waited += 1
                page.evaluate("fetch('/livez')")  # whatever was asked before, we heard of by then
            found.append(waited)
            while len(answers) < len(looks):
                page.wait_for_timeout(30)  # in which this page's events are heard
            page.evaluate("fetch('/livez')")  # its script has had its turn by then
        return found

    looks: list[str] = []
    answers: list[str] = []
    page.on("request", lambda request: looks.append(request.url) if LIVE.search(request.url) else 0)
    for event in ("requestfinished", "requestfailed"):
        page.on(
            event, lambda request: answers.append(request.url) if LIVE.search(request.url) else 0
        )
    visitor.open(page_of(offer))
    quiet = waits(8)
    assert quiet == sorted(quiet)
    assert quiet[0] in (3, 4)
    assert 9 <= quiet[-1] <= 11
    Offer.objects.update(inventory_total=4)
    waits(1)
    expect(card(page, offer)).to_contain_text("only 4 left")
    assert waits(1)[0] <= 4  # something happens here

    page.route(LIVE, lambda route: route.abort("internetdisconnected"))
    visitor.page.remove_listener("requestfailed", visitor._failed)
    visitor.page.remove_listener("console", visitor._heard)
    waits(1)
    away = waits(5)
    assert away == sorted(away)
    assert away[-1] > 60


def test_event_that_is_gone_is_not_asked_about_any_more(visit: Callable[..., Visitor]) -> None:
    offer = OfferFactory(inventory_total=5)
    visitor = visit()
    page = visitor.page
    page.clock.install()
    visitor.open(page_of(offer))
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url) if LIVE.search(request.url) else 0)
    visitor._expected.add(visitor.base_url + page_of(offer) + "/live?lang=en")
    offer.event.is_public = False
    offer.event.save()
    with next_look(page) as looked:
        page.clock.run_for(5_000)
    assert looked.value.status == 404
    page.clock.run_for(600_000)
    assert len(looks) == 1
    expect(card(page, offer)).to_contain_text("only 5 left")


def test_page_works_without_the_script(visit: Callable[..., Visitor]) -> None:
    offer = OfferFactory(inventory_total=5)
    visitor = visit(UserFactory())
    visitor.page.route(re.compile("live.js"), lambda route: route.fulfill(body=""))
    visitor.open(page_of(offer))
    expect(card(visitor.page, offer)).to_contain_text("only 5 left")
    expect(card(visitor.page, offer).get_by_role("button", name="Buy")).to_be_visible()
