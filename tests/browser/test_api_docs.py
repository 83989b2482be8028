"""The page about the API, as a front-end developer meets it: to read, and to try with a token."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.visitor import DESKTOP, PATIENCE_MS, PHONE, Visitor
from tests.factories import OfferFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

# The operations of the API, and the webhooks.
BLOCKS = 19 + 8


def opened(visit: Callable[..., Visitor], **options: Any) -> Visitor:
    visitor = visit(None, **options)
    visitor.open("/api/v1/docs/")
    # Swagger UI reads the document after the page is there.
    expect(visitor.page.locator(".opblock")).to_have_count(BLOCKS, timeout=PATIENCE_MS)
    return visitor


def unfold(visitor: Visitor, operation: str) -> Locator:
    block = visitor.page.locator(f"#operations-{operation}")
    block.locator(".opblock-summary-control").click()
    expect(block.locator(".opblock-body")).to_be_visible(timeout=PATIENCE_MS)
    return block


def fits(visitor: Visitor) -> None:
    assert visitor.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_page_shows_every_operation_with_its_examples(
    visit: Callable[..., Visitor], size: tuple[int, int]
) -> None:
    visitor = opened(visit, size=size)
    page = visitor.page
    expect(page.locator(".info")).to_contain_text("OAS 3.1")
    expect(page.locator(".info")).to_contain_text("Idempotency-Key")
    fits(visitor)
    visitor.shoot("api-docs")
    block = unfold(visitor, "purchases-purchases_create")
    expect(block).to_contain_text("1 to 255 printable ASCII characters")
    expect(block).to_contain_text("Idempotent-Replayed")
    expect(
        block.get_by_role("option", name="Only 3 left: choose a smaller quantity.")
    ).to_be_attached()
    fits(visitor)
    visitor.shoot("api-docs-buy")


def test_try_it_out_sends_the_token(visit: Callable[..., Visitor]) -> None:
    user = UserFactory(username="attendee1", password="attendee1")
    PurchaseFactory(offer=OfferFactory(title="Conference hoodie"), user=user)
    visitor = opened(visit)
    page = visitor.page

    def tried(operation: str) -> Locator:
        block = unfold(visitor, operation)
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        return block.locator(".live-responses-table")

    answer = tried("auth-auth_token_create")
    expect(answer).to_contain_text('"access"')
    token = re.search(r'"access":\s*"([^"]+)"', answer.inner_text())
    assert token
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    dialog.locator("#auth-bearer-value").fill(token[1])
    visitor.shoot("api-docs-authorize")
    token_form = dialog.locator("form").filter(has_text="jwtAuth")
    token_form.get_by_role("button", name="Apply credentials").click()
    dialog.locator(".close-modal").click()
    expect(tried("purchases-purchases_list")).to_contain_text("Conference hoodie")
    visitor.shoot("api-docs-tried")
