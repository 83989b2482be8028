"""What people do on the way: go back, press twice, reload, open a second tab, come too late."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from offers.models import Membership
from purchases import refund_requests, refunds, tasks
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from tests.browser.buying import (
    STRIPES_PAGE,
    SUCCESS_PAGE,
    Stall,
    buy_button,
    deliver,
    hear_of_it,
    pay_button,
    reads,
    run_out_of_time,
    says,
)
from tests.browser.visitor import DESKTOP, PATIENCE_MS, PHONE, Visitor
from tests.conftest import Sandbox
from tests.factories import MembershipFactory
from tests.sandbox_process import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

at_both_sizes = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])

# What a browser tells a page that it had kept as it was, and now shows again.
SHOWN_AGAIN = "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))"


def buy(page: Page, stall: Stall) -> Purchase:
    """Press Buy on the mug's card, and be on Stripe's page; the newest purchase."""
    buy_button(page, stall.mug).click()
    page.wait_for_url(STRIPES_PAGE)
    return Purchase.objects.latest("created_at")


# -- Back -----------------------------------------------------------------------------------------


@at_both_sizes
def test_back_from_stripe_and_buy_again_is_the_same_purchase(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size)
    page = visitor.page
    visitor.open(stall.page)
    purchase = buy(page, stall)
    page.go_back()
    reads(visitor, "Harbour Days")
    says(visitor, "Reserved for you: 1 × Enamel mug.")
    expect(buy_button(page, stall.mug)).to_be_enabled()
    visitor.look("back-from-stripe")
    assert buy(page, stall) == purchase
    assert page.url == purchase.checkout_url
    assert stall.reserved_and_sold(stall.mug) == (1, 0)

    # Another quantity is another wish.
    page.go_back()
    page.locator("article", has_text="Enamel mug").get_by_label("Quantity").fill("2")
    assert buy(page, stall) != purchase
    assert stall.reserved_and_sold(stall.mug) == (3, 0)


def test_page_that_the_browser_kept_can_be_sent_again(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=PHONE)
    page = visitor.page
    visitor.open(stall.page)
    # The answer that leaves a page as it is, and so as it was when it was left.
    page.route("**/offers", lambda route: route.fulfill(status=204), times=1)
    buy = buy_button(page, stall.mug)
    buy.click()
    expect(buy).to_be_disabled()
    visitor.look("buy-was-pressed")
    page.evaluate(SHOWN_AGAIN)
    expect(buy).to_be_enabled()
    buy.click()
    page.wait_for_url(STRIPES_PAGE)
    assert page.url == Purchase.objects.get().checkout_url


def test_form_of_before_the_payment_leads_to_what_was_bought(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=PHONE)
    page, kept = visitor.page, visitor.context.new_page()
    visitor.open(stall.page)
    form = page.content()
    buy(page, stall)
    pay_button(page).click()
    reads(visitor, "Thank you, it's yours")
    kept.route(
        "**/offers", lambda route: route.fulfill(body=form, content_type="text/html"), times=1
    )
    kept.goto(stall.page)
    buy_button(kept, stall.mug).click()
    expect(kept.get_by_role("heading", level=1)).to_have_text("1 × Enamel mug")
    expect(kept.get_by_text("Paid").first).to_be_visible()
    assert stall.reserved_and_sold(stall.mug) == (0, 1)


# -- Twice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@at_both_sizes
def test_double_click_on_buy_is_one_purchase(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int], scripts: bool
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size, scripts=scripts)
    page = visitor.page
    page.goto(stall.page)
    buy_button(page, stall.mug).dblclick()
    # Without scripts both are sent, and the second may come while the first is under way, whose
    # page then never arrives: what counts is where it ends.
    expect(page).to_have_url(
        re.compile(rf"{STRIPES_PAGE.pattern}|/purchases$"), timeout=PATIENCE_MS
    )
    page.wait_for_load_state()
    purchase = Purchase.objects.get()
    wait_for(lambda: Purchase.objects.get().status == Status.AWAITING_PAYMENT)
    if not STRIPES_PAGE.search(page.url):
        page.reload()
        page.get_by_role("link", name="Pay now").click()
    assert page.url == Purchase.objects.get(pk=purchase.pk).checkout_url
    assert stall.reserved_and_sold(stall.mug) == (1, 0)
    assert len(stripe.sessions()) == 1


def test_double_click_on_pay_now_and_try_again_is_one_purchase(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=PHONE)
    page = visitor.page
    visitor.open(stall.page)
    buy(page, stall)
    visitor.open("/purchases")
    page.get_by_role("button", name="Cancel this purchase").dblclick()
    says(visitor, "Cancelled. Nothing was charged.")
    page.get_by_role("button", name="Try again").dblclick()
    page.wait_for_url(STRIPES_PAGE)
    assert stall.reserved_and_sold(stall.mug) == (1, 0)
    page.go_back()
    page.get_by_role("link", name="Pay now").dblclick()
    page.wait_for_url(STRIPES_PAGE)
    assert Purchase.objects.count() == 2


# -- Reload ---------------------------------------------------------------------------------------


@at_both_sizes
def test_success_page_can_be_reloaded_at_any_time(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size)
    page = visitor.page
    visitor.open(stall.page)
    stripe.faults(webhooks="drop")
    purchase = buy(page, stall)
    pay_button(page).click()
    page.wait_for_url(SUCCESS_PAGE)
    address = page.url
    reads(visitor, "One moment…")
    page.reload()
    reads(visitor, "One moment…")
    hear_of_it(stripe)
    reads(visitor, "Thank you, it's yours")
    page.reload()
    reads(visitor, "Thank you, it's yours")
    deliver(purchase)
    says(visitor, "It will be waiting for you")

    # Opened again the next day, from the history: the organizer has sent the money back.
    owner = MembershipFactory(organization=stall.event.organization, role=Membership.Role.OWNER)
    now = timezone.now()
    refund_requests.request(purchase.pk, actor=owner.user, source="tests", now=now)
    later = visit(stall.attendee, size=size)
    later.open(address)
    reads(later, "Your money is on its way back")
    later.look("reload-refunding")
    refunds.send_due(now=timezone.now())
    reads(later, "Your money was sent back")
    later.look("reload-refunded")
    assert stall.reserved_and_sold(stall.mug) == (0, 0)


# -- Two tabs -------------------------------------------------------------------------------------


def test_same_offer_bought_in_two_tabs_is_one_purchase(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee)
    first, second = visitor.page, visitor.context.new_page()
    for tab in (first, second):
        tab.goto(stall.page)
    purchase = buy(first, stall)
    assert buy(second, stall) == purchase
    assert second.url == first.url
    assert stall.reserved_and_sold(stall.mug) == (1, 0)
    pay_button(first).click()
    reads(visitor, "Thank you, it's yours")
    # Stripe's page in the other tab takes no second payment.
    pay_button(second).click()
    second.get_by_role("link", name="Continue").click()
    expect(second.get_by_role("heading", level=1)).to_have_text("Thank you, it's yours")
    assert stall.reserved_and_sold(stall.mug) == (0, 1)


def test_tabs_together_hold_no_more_than_one_may(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall(inventory_total=50)
    visitor = visit(stall.attendee, size=PHONE)
    tabs = [visitor.context.new_page() for _ in range(3)]
    for tab in (visitor.page, *tabs):
        tab.goto(stall.page)
    for quantity, tab in enumerate(tabs, 1):
        tab.locator("article", has_text="Enamel mug").get_by_label("Quantity").fill(str(quantity))
        buy(tab, stall)
    page = visitor.page
    page.locator("article", has_text="Enamel mug").get_by_label("Quantity").fill("4")
    buy_button(page, stall.mug).click()
    expect(page.get_by_role("alert")).to_contain_text("You have 3 unpaid purchases open")
    says(visitor, "Reserved for you: 3 × Enamel mug.")
    visitor.settle()
    visitor.look("tabs-too-many-holds")
    assert stall.reserved_and_sold(stall.mug) == (6, 0)


def test_what_one_tab_cancels_the_other_shows_by_itself(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee)
    page = visitor.page
    visitor.open(stall.page)
    purchase = buy(page, stall)
    visitor.open("/purchases")
    says(visitor, "Still to be paid")
    # In a browser without scripts, whose page is as it was however long it is open.
    still = visit(stall.attendee, scripts=False)
    still.page.goto("/purchases")
    other = visitor.context.new_page()
    other.goto(f"/purchases/{purchase.pk}")
    other.get_by_role("button", name="Cancel this purchase").click()
    expect(other.get_by_text("Cancelled. Nothing was charged.")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=20_000)
    visitor.settle()
    visitor.look("tabs-cancelled")

    still.page.get_by_role("button", name="Cancel this purchase").click()
    expect(still.page.get_by_role("alert")).to_be_visible()
    still.shoot("tabs-cancelled-twice")
    assert Purchase.objects.get().release_reason == ReleaseReason.CANCELLED
    assert stall.reserved_and_sold(stall.mug) == (0, 0)


def test_what_one_tab_pays_the_success_page_in_another_shows_by_itself(
    visit: Callable[..., Visitor], stripe: Sandbox
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee)
    visitor.open(stall.page)
    purchase = buy(visitor.page, stall)
    payer = visitor.context.new_page()
    payer.goto(purchase.checkout_url)
    visitor.open(f"{stall.page}/success?session_id={purchase.checkout_session_id}")
    reads(visitor, "One moment…")
    pay_button(payer).click()
    reads(visitor, "Thank you, it's yours")
    expect(payer.get_by_role("heading", level=1)).to_have_text("Thank you, it's yours")


# -- Too late -------------------------------------------------------------------------------------


@at_both_sizes
def test_time_that_ran_out_on_stripes_page_is_said_and_mended_with_one_tap(
    visit: Callable[..., Visitor], stripe: Sandbox, size: tuple[int, int]
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=size)
    page = visitor.page
    visitor.open(stall.page)
    missed = buy(page, stall)
    run_out_of_time(missed)
    assert tasks.end_overdue_holds() == 1
    pay_button(page).click()
    expect(page.get_by_role("heading", name="This checkout has expired")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    reads(visitor, "Harbour Days")
    says(visitor, "Your time to pay for 1 × Enamel mug ran out. Nothing was charged.")
    visitor.look("late-back-in-the-shop")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_url(STRIPES_PAGE)
    pay_button(page).click()
    reads(visitor, "Thank you, it's yours")
    assert stall.reserved_and_sold(stall.mug) == (0, 1)
    visitor.open(stall.page)
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_purchase_that_ended_is_tried_again_on_its_own_page(
    visit: Callable[..., Visitor], stripe: Sandbox, settings: Any
) -> None:
    stall = Stall()
    visitor = visit(stall.attendee, size=PHONE)
    page = visitor.page
    visitor.open(stall.page)
    missed = buy(page, stall)
    # The page is open on the other phone while the time runs out.
    watcher = visit(stall.attendee, size=PHONE)
    watcher.open(f"{stall.page}/success?session_id={missed.checkout_session_id}")
    run_out_of_time(missed)
    tasks.end_overdue_holds()
    reads(watcher, "Your time to pay ran out")
    watcher.look("late-success-page")
    watcher.page.get_by_role("button", name="Try again").click()
    watcher.page.wait_for_url(STRIPES_PAGE)
    pay_button(watcher.page).click()
    reads(watcher, "Thank you, it's yours")
    assert stall.reserved_and_sold(stall.mug) == (0, 1)
