"""The whole way from an event's offers to what was bought, as attendees go it on phone and desk."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from purchases.models import Purchase
from purchases.states import Status
from tests.browser.buying import (
    STRIPES_PAGE,
    SUCCESS_PAGE,
    Stall,
    buy_button,
    deliver,
    hear_of_it,
    pay_button,
    reads,
    says,
)
from tests.browser.visitor import DESKTOP, PATIENCE_MS, PHONE, Visitor
from tests.conftest import Sandbox
from tests.factories import EventFactory, OfferFactory, RegistrationFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

at_both_sizes = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])

# What Lighthouse calls slow 4G: bytes a second, and milliseconds of each request.
SLOW_4G = {
    "offline": False,
    "downloadThroughput": 1.6 * 1024 * 1024 / 8,
    "uploadThroughput": 750 * 1024 / 8,
    "latency": 150,
}
COUNT_TAPS = "addEventListener('click', () => window.tapped(), true)"
# The button that was pressed, and whether it shows that something is under way.
TELL_WHO_WAITS = """new MutationObserver(changes => changes.forEach(({target}) => {
  if (target.disabled) window.waits(target.textContent.trim()
    + (getComputedStyle(target, '::after').content === '""' ? ', turning' : ''));
})).observe(document, {subtree: true, attributes: true, attributeFilter: ['disabled']})"""


@at_both_sizes
def test_two_taps_lead_from_the_offers_to_what_was_bought(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size)
    page = visitor.page
    taps: list[str] = []
    page.expose_function("tapped", lambda: taps.append(page.url))
    page.add_init_script(COUNT_TAPS)
    stripe.faults(webhooks="drop")

    visitor.open(stall.page)
    visitor.look("walk-1-offers")
    buy_button(page, stall.recordings).click()
    page.wait_for_url(STRIPES_PAGE)
    visitor.look("walk-2-stripe")
    pay_button(page).click()
    page.wait_for_url(SUCCESS_PAGE)
    reads(visitor, "One moment…")
    visitor.look("walk-3-waiting")
    hear_of_it(stripe)
    reads(visitor, "Thank you, it's yours")
    visitor.look("walk-4-paid")
    deliver(Purchase.objects.get())
    says(visitor, "Your access code")
    visitor.look("walk-5-delivered")
    assert len(taps) == 2

    page.get_by_role("main").get_by_role("link", name="My purchases").click()
    reads(visitor, "My purchases")
    visitor.look("walk-6-my-purchases")
    page.get_by_role("link", name="1 × All recordings").click()
    says(visitor, "Your access code")
    assert stall.reserved_and_sold(stall.recordings) == (0, 1)


@at_both_sizes
def test_declined_card_can_be_followed_by_one_that_works(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size)
    page = visitor.page
    visitor.open(stall.page)
    buy_button(page, stall.mug).click()
    page.get_by_role("button", name="Decline the card").click()
    expect(page.get_by_role("alert")).to_contain_text("declined")
    pay_button(page).click()
    reads(visitor, "Thank you, it's yours")
    assert Purchase.objects.get().status == Status.PAID


@at_both_sizes
def test_after_a_declined_card_the_shop_says_what_is_held_and_leads_back_to_pay(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size)
    page = visitor.page
    visitor.open(stall.page)
    buy_button(page, stall.mug).click()
    page.get_by_role("button", name="Decline the card").click()
    page.get_by_role("link", name="Back").click()
    reads(visitor, "Harbour Days")
    says(visitor, "Reserved for you: 1 × Enamel mug.")
    expect(page.locator(".note time[data-until]")).to_have_text(re.compile(r"^1[45]:\d\d$"))
    visitor.look("walk-declined-and-back")
    page.get_by_role("link", name="Pay now").click()
    pay_button(page).click()
    reads(visitor, "Thank you, it's yours")
    assert Purchase.objects.get().status == Status.PAID
    assert stall.reserved_and_sold(stall.mug) == (0, 1)


@at_both_sizes
def test_whole_way_without_scripts(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(size=size, scripts=False)
    page = visitor.page

    def headed(heading: str) -> None:
        shown = page.get_by_role("heading", name=heading, level=1)
        expect(shown).to_be_visible(timeout=PATIENCE_MS)

    page.goto(stall.page)
    card = page.locator("article", has_text="Enamel mug")
    card.get_by_label("Quantity").fill("2")
    buy_button(page, stall.mug).click()
    page.locator("input[name=username]").fill(stall.attendee.username)
    page.locator("input[name=password]").fill("secret")
    page.locator("main").get_by_role("button").click()
    headed("Enamel mug")
    buy_button(page, stall.mug).click()
    page.get_by_role("button", name="Decline the card").click()
    page.get_by_role("link", name="Back").click()
    says(visitor, re.compile(r"Time left to pay: until .* UTC"))
    visitor.shoot("walk-no-scripts-held")
    page.get_by_role("link", name="Pay now").click()
    pay_button(page).click()
    headed("Thank you, it's yours")
    deliver(Purchase.objects.get())
    says(visitor, "It will be waiting for you")
    visitor.shoot("walk-no-scripts-delivered")
    page.get_by_role("main").get_by_role("link", name="My purchases").click()
    headed("My purchases")
    assert stall.reserved_and_sold(stall.mug) == (0, 2)

    page.goto(stall.page)
    buy_button(page, stall.mug).click()
    page.get_by_role("link", name="Back").click()
    page.get_by_role("main").get_by_role("link", name="My purchases").click()
    page.get_by_role("button", name="Cancel this purchase").click()
    says(visitor, "Cancelled. Nothing was charged.")
    assert stall.reserved_and_sold(stall.mug) == (0, 2)


def test_whole_way_on_a_slow_network(visit: Callable[..., Visitor], stripe: Sandbox) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=PHONE)
    page = visitor.page
    network = visitor.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", SLOW_4G)
    stripe.faults(latency_ms=1000, webhooks="drop")
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if r.method == "POST" else None)
    waits: list[str] = []
    page.expose_function("waits", lambda told: waits.append(told))
    page.add_init_script(TELL_WHO_WAITS)

    visitor.open(stall.page)
    # Not by the button's own click, which would wait for the next page.
    box = buy_button(page, stall.mug).bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.dblclick(*middle)
    page.mouse.click(*middle)
    page.keyboard.press("Enter")
    page.wait_for_url(STRIPES_PAGE)
    assert waits == ["Buy Enamel mug, turning"]
    assert len(sent) == 1
    pay_button(page).click()
    reads(visitor, "One moment…")
    hear_of_it(stripe)
    reads(visitor, "Thank you, it's yours")
    assert Purchase.objects.get().status == Status.PAID


@at_both_sizes
def test_link_to_a_private_event_leads_there_after_the_login(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    event = EventFactory(title="Crew dinner", slug="crew-dinner", is_public=False)
    offer = OfferFactory(event=event, title="A place at the table", currency="EUR")
    RegistrationFactory(event=event, user=UserFactory(username="tom.okafor"))
    visitor = visit(size=size)
    page = visitor.page
    visitor.open(f"/events/crew-dinner/offers/{offer.pk}")
    reads(visitor, "Log in")
    expect(page.get_by_text("Crew dinner")).to_have_count(0)
    visitor.look("walk-private-login")
    page.locator("input[name=username]").fill("tom.okafor")
    page.locator("input[name=password]").fill("secret")
    page.locator("main").get_by_role("button", name="Log in").click()
    reads(visitor, "A place at the table")
    visitor.look("walk-private-offer")
    buy_button(page, offer).click()
    pay_button(page).click()
    reads(visitor, "Thank you, it's yours")
