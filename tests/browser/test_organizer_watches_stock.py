"""What sells out, and what is held for nobody: seen in the list of offers, and released there."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from offers.models import Membership, Offer
from purchases.bulk import running
from purchases.models import Purchase
from purchases.states import Status
from tests.browser import labels
from tests.browser.visitor import Visitor
from tests.conftest import Sandbox, buy, code, counters
from tests.factories import MembershipFactory, OfferFactory, UserFactory
from tests.sandbox_process import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:offers_offer_changelist")


def manager_of(offer: Offer) -> User:
    organization = offer.event.organization
    user: User = MembershipFactory(organization=organization, role=Membership.Role.MANAGER).user
    return user


def status_of(purchase_id: str) -> str:
    return Purchase.objects.get(pk=purchase_id).status


def test_offer_that_was_sold_out_through_the_api_shows_it_in_the_list(
    visit: Callable[..., Visitor], stripe: Sandbox, client_of: Any
) -> None:
    offer = OfferFactory(title="Boat trip", inventory_total=3)
    visitor = visit(manager_of(offer))
    row = visitor.page.locator("#result_list tr", has_text="Boat trip")
    visitor.open(LIST)
    expect(row).to_contain_text("0 sold, 0 on hold, 3 of 3 left")
    expect(row).to_contain_text(labels.ON_SALE)
    for quantity in (2, 1):
        bought = buy(client_of(UserFactory()), offer, quantity).json()
        stripe.act(bought["checkout_session_id"], "pay")
        wait_for(lambda: status_of(bought["id"]) == Status.PAID)  # noqa: B023 - before the next
    assert counters(offer) == (0, 3)
    assert code(buy(client_of(UserFactory()), offer)) == "sold_out"

    visitor.open(LIST)
    expect(row).to_contain_text("3 sold, 0 on hold, 0 of 3 left")
    expect(row).to_contain_text(labels.SOLD_OUT)
    bar = row.locator(".stock-bar").bounding_box()
    sold = row.locator(".stock-sold").bounding_box()
    assert bar is not None
    assert sold is not None
    assert sold["width"] == pytest.approx(bar["width"], abs=1)  # all of it
    visitor.look("offers_sold_out")


def test_stuck_hold_is_released_from_the_list_on_sight_of_what_stripe_says(
    visit: Callable[..., Visitor], stripe: Sandbox, client_of: Any
) -> None:
    offer = OfferFactory(title="Boat trip", inventory_total=3)
    visitor = visit(manager_of(offer))
    page = visitor.page
    held = buy(client_of(UserFactory(username="dreamer")), offer, 2).json()
    fresh = buy(client_of(UserFactory(username="decided")), offer).json()
    Purchase.objects.filter(pk=held["id"]).update(
        created_at=timezone.now() - timedelta(hours=2),
        reserved_until=timezone.now() - timedelta(hours=1, minutes=45),
    )
    assert counters(offer) == (3, 0)

    visitor.open(LIST)
    page.locator("#result_list tr", has_text="Boat trip").locator("input.action-select").check()
    page.locator("select[name=action]").select_option(label=labels.RELEASE_STUCK)
    visitor.press(labels.RUN)
    row = page.locator(".bulk-table tbody tr", has_text="dreamer")
    expect(row).to_contain_text("2 hours")
    expect(row).to_contain_text("overdue")
    expect(row.get_by_role("cell").last).to_contain_text(re.compile("open", re.IGNORECASE))
    expect(row.get_by_role("checkbox")).to_be_checked()
    other = page.locator(".bulk-table tbody tr", has_text="decided")
    expect(other.get_by_role("checkbox")).not_to_be_checked()
    visitor.look("stuck_holds_asked")
    assert counters(offer) == (3, 0)  # nothing happens before somebody says yes

    visitor.press(labels.RELEASE_TICKED)
    page.wait_for_url(re.compile("/bulkjob/"))
    progress = page.get_by_role("progressbar")
    expect(progress).to_have_js_property("value", 0)
    visitor.look("stuck_holds_running")
    assert running.sweep(now=timezone.now()) == 1  # the worker's part
    # The page hears of it by itself.
    expect(page.get_by_text(labels.FINISHED, exact=True).first).to_be_visible()
    expect(progress).to_have_js_property("value", 1)
    visitor.settle()
    visitor.look("stuck_holds_released")

    assert status_of(held["id"]) == Status.RELEASED
    assert status_of(fresh["id"]) == Status.AWAITING_PAYMENT
    assert counters(offer) == (1, 0)
    states = {session["id"]: session["status"] for session in stripe.sessions()}
    assert states[held["checkout_session_id"]] == "expired"
    assert states[fresh["checkout_session_id"]] == "open"
