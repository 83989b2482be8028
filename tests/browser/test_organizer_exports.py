"""What organizers take home as a file: the offers and the purchases of their list, and no more."""

import csv
import io
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page

from offers.models import Membership, Offer
from purchases.models import Purchase
from purchases.states import Status
from tests.browser import labels
from tests.browser.visitor import Visitor
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory

pytestmark = pytest.mark.django_db(transaction=True)

OFFERS = reverse("admin:offers_offer_changelist")
PURCHASES = reverse("admin:purchases_purchase_changelist")
every_kind = pytest.mark.parametrize("kind", ["csv", "xlsx"])


@pytest.fixture
def offer() -> Offer:
    """One of ours, with a title that a spreadsheet would reckon; a stranger's beside it."""
    mine: Offer = OfferFactory(title='=1+1, "Boat trip"', price=Decimal("12.50"), currency="EUR")
    PurchaseFactory(offer=mine, quantity=2, status=Status.PAID)
    PurchaseFactory(offer__title="Somebody else's", status=Status.PAID)
    return mine


@pytest.fixture
def manager(offer: Offer) -> User:
    organization = offer.event.organization
    user: User = MembershipFactory(organization=organization, role=Membership.Role.MANAGER).user
    return user


def downloaded(page: Page, button: str) -> Path:
    with page.expect_download() as started:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(started.value.path())


def rows_of(file: Path, kind: str) -> list[dict[str, Any]]:
    """The file's rows, by their headings; read as what it says it is."""
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")))
    sheet = openpyxl.load_workbook(io.BytesIO(file.read_bytes())).active
    head, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


@every_kind
def test_list_of_offers_is_exported_from_its_own_page(
    visit: Callable[..., Visitor], offer: Offer, manager: User, kind: str
) -> None:
    visitor = visit(manager)
    page = visitor.page
    visitor.open(OFFERS)
    page.locator("#header-inner").get_by_role("link", name=labels.EXPORT).click()
    page.wait_for_url(re.compile("/export/"))
    visitor.settle()
    visitor.look("offers_export")
    page.get_by_label("Format").select_option(label=kind)

    (row,) = rows_of(downloaded(page, labels.SUBMIT), kind)
    assert row["id"] == str(offer.pk)
    assert row["title"] == '\'=1+1, "Boat trip"'
    assert str(row["price"]) == "12.50"


@every_kind
def test_chosen_offers_are_exported_at_once(
    visit: Callable[..., Visitor], offer: Offer, manager: User, kind: str
) -> None:
    OfferFactory(event=offer.event, title="Not chosen")
    visitor = visit(manager)
    page = visitor.page
    visitor.open(OFFERS)
    page.locator("#result_list tr", has_text="Boat trip").locator("input.action-select").check()
    page.locator("select[name=action]").select_option(label=f"Export as {kind.upper()}")

    (row,) = rows_of(downloaded(page, labels.RUN), kind)
    assert row["id"] == str(offer.pk)


@every_kind
def test_purchases_are_exported_as_the_list_is_filtered(
    visit: Callable[..., Visitor], offer: Offer, manager: User, kind: str
) -> None:
    held = PurchaseFactory(offer=offer)
    visitor = visit(manager)
    page = visitor.page
    visitor.open(f"{PURCHASES}?status__exact=paid")
    page.locator("#header-inner").get_by_role("link", name=labels.EXPORT).click()
    page.wait_for_url(re.compile("/export/"))
    visitor.settle()
    visitor.look("purchases_export")
    page.get_by_role("radio", name=kind.upper()).check()

    rows = rows_of(downloaded(page, labels.EXPORT), kind)
    sold = Purchase.objects.get(offer=offer, status=Status.PAID)
    assert [str(sold.pk)] == [row["id"] for row in rows]
    assert str(held.pk) not in str(rows)
