"""Without a mouse: to the list's search, rows and actions, and through a form, by Tab and Enter."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from offers.models import Offer
from tests.browser import labels
from tests.browser.visitor import PHONE, Visitor
from tests.factories import OfferFactory

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:offers_offer_changelist")


def test_skip_link_leads_past_the_navigation(
    visit: Callable[..., Visitor], superuser: User
) -> None:
    visitor = visit(superuser)
    visitor.open(LIST)
    skip = visitor.page.get_by_role("link", name=labels.SKIP)

    assert visitor.tab_to(skip) == 1
    expect(skip).to_be_in_viewport()
    visitor.page.keyboard.press("Enter")
    visitor.page.keyboard.press("Tab")

    assert visitor.focused().evaluate("e => !!e.closest('#content')")


def test_list_is_searched_and_a_row_opened_and_saved(
    visit: Callable[..., Visitor], superuser: User
) -> None:
    offer = OfferFactory(title="Blue mug")
    OfferFactory(title="Red mug")
    visitor = visit(superuser)
    page = visitor.page
    visitor.open(LIST)

    visitor.tab_to(page.locator("#searchbar"))
    page.keyboard.type("blue")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=blue"))
    visitor.settle()
    expect(page.get_by_text("Red mug")).to_have_count(0)
    row = page.locator("#result_list").get_by_role("link", name="Blue mug")
    visitor.tab_to(row)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/change/"))
    visitor.settle()
    visitor.tab_to(visitor.field(labels.TITLE))
    page.keyboard.press("End")
    page.keyboard.type(", large")
    visitor.tab_to(page.get_by_role("button", name=labels.SAVE, exact=True))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/offers/offer/(\?.*)?$"))

    offer.refresh_from_db()
    assert offer.title == "Blue mug, large"


def test_filters_open_and_close_by_keys(visit: Callable[..., Visitor], superuser: User) -> None:
    OfferFactory()
    visitor = visit(superuser)
    page = visitor.page
    visitor.open(LIST)
    panel = page.locator("#changelist-filter")
    expect(panel).to_be_hidden()

    visitor.tab_to(page.locator("#content").get_by_role("button", name="Filters"))
    page.keyboard.press("Enter")
    expect(panel).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_first_action_is_reached_by_keys(visit: Callable[..., Visitor], superuser: User) -> None:
    visitor = visit(superuser)
    page = visitor.page
    visitor.open(reverse("admin:auth_user_changelist"))

    visitor.tab_to(page.locator("input.action-select").first)
    page.keyboard.press("Space")
    action = page.locator("select[name=action]")
    expect(action).to_be_visible()
    visitor.tab_to(action)
    page.keyboard.press("ArrowDown")
    visitor.tab_to(page.get_by_role("button", name=labels.RUN, exact=True))


def test_menu_of_a_phone_opens_by_keys(visit: Callable[..., Visitor], superuser: User) -> None:
    visitor = visit(superuser, size=PHONE)
    page = visitor.page
    visitor.open(LIST)
    menu = page.locator("#nav-sidebar")
    expect(menu).to_be_hidden()

    visitor.tab_to(page.get_by_role("button", name="menu").first)
    page.keyboard.press("Enter")

    expect(menu).to_be_visible()
    visitor.shoot("menu")


def test_form_of_a_new_offer_is_filled_in_by_keys(
    visit: Callable[..., Visitor], superuser: User
) -> None:
    event = OfferFactory(event__title="Harbour Days").event
    visitor = visit(superuser)
    page = visitor.page
    visitor.open(reverse("admin:offers_offer_add"))

    visitor.tab_to(visitor.box(labels.EVENT))
    page.keyboard.press("Enter")
    page.keyboard.type("Harbour")
    expect(page.get_by_role("option", name="Harbour Days")).to_be_visible()
    page.keyboard.press("Enter")
    visitor.tab_to(visitor.field(labels.TITLE))
    page.keyboard.type("Lantern")
    visitor.tab_to(visitor.field(labels.OFFER_TYPE))
    page.keyboard.type("Mer")
    visitor.tab_to(visitor.field(labels.PRICE))
    page.keyboard.type("7")
    visitor.tab_to(page.get_by_role("button", name=labels.SAVE, exact=True))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/offers/offer/(\?.*)?$"))

    made = Offer.objects.get(title="Lantern")
    assert (made.event, made.offer_type, made.price) == (event, Offer.Type.MERCHANDISE, 7)
