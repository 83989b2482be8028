"""A paid purchase goes back: asked for in the back-office, confirmed by Stripe's webhook."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from offers.models import Membership
from purchases import refunds
from purchases.models import Purchase
from purchases.states import Status
from tests.browser import labels
from tests.browser.visitor import Visitor
from tests.conftest import Sandbox, buy, counters
from tests.factories import MembershipFactory, OfferFactory, UserFactory
from tests.sandbox_process import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def status_of(purchase_id: str) -> str:
    return Purchase.objects.get(pk=purchase_id).status


def test_purchase_is_refunded_on_its_page_and_by_stripes_webhook(
    visit: Callable[..., Visitor], stripe: Sandbox, client_of: Any
) -> None:
    offer = OfferFactory(inventory_total=3, price=20)
    manager = MembershipFactory(
        organization=offer.event.organization, role=Membership.Role.MANAGER
    ).user
    bought = buy(client_of(UserFactory(username="buyer")), offer, 2).json()
    stripe.act(bought["checkout_session_id"], "pay")
    wait_for(lambda: status_of(bought["id"]) == Status.PAID)
    assert counters(offer) == (0, 2)

    visitor = visit(manager)
    page = visitor.page
    address = reverse("admin:purchases_purchase_change", args=[bought["id"]])
    visitor.open(address)
    page.get_by_role("link", name=labels.REFUND, exact=True).click()
    page.wait_for_url(re.compile("/refund/"))
    visitor.settle()
    expect(page.get_by_text("40.00").first).to_be_visible()
    visitor.look("purchase_refund_asked")
    visitor.press(labels.SEND_MONEY_BACK)
    page.wait_for_url(re.compile(f"{address}$"))
    assert status_of(bought["id"]) == Status.REFUNDING

    assert refunds.send_due(now=timezone.now()) == 1  # the worker's part
    wait_for(lambda: status_of(bought["id"]) == Status.REFUNDED)

    visitor.open(address)
    visitor.see(re.compile("^Refunded$", re.IGNORECASE))
    visitor.look("purchase_refunded")
    assert counters(offer) == (0, 0)
    expect(page.get_by_role("link", name=labels.REFUND, exact=True)).to_have_count(0)
