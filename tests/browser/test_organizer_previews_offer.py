"""The card beside an offer's form changes while somebody types, and nothing is saved by that."""

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser import labels
from tests.browser.shop import Shop
from tests.browser.visitor import PHONE, Visitor

pytestmark = pytest.mark.django_db(transaction=True)


def test_card_follows_what_is_typed_without_saving_it(visit: Callable[..., Visitor]) -> None:
    shop = Shop()
    offer = shop.offers[1]
    visitor = visit(shop.manager)
    page = visitor.page
    visitor.open(reverse("admin:offers_offer_change", args=[offer.pk]))
    card = page.frame_locator(".offer-preview iframe").locator("body")
    expect(card).to_contain_text("Festival hoodie")
    expect(card).to_contain_text("39.00")

    visitor.field(labels.TITLE).fill("Festival hoodie <b>2027</b>")
    expect(card).to_contain_text("Festival hoodie <b>2027</b>")  # as text
    visitor.field(labels.PRICE).fill("44")
    expect(card).to_contain_text("44.00")
    visitor.look("offer_form_preview")
    visitor.resize(PHONE)
    visitor.look("offer_form_preview")

    offer.refresh_from_db()
    assert (offer.title, offer.price) == ("Festival hoodie", 39)
