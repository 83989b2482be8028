"""Pages about purchases, the installation and the site: they open, fit, and have no barrier."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.test import Client
from django.urls import reverse

from offers.models import Membership
from tests.browser.every_page import (
    every_model_of,
    look_at,
    look_at_model,
    pages_of_the_site,
)
from tests.browser.visitor import DESKTOP, PHONE, Visitor
from tests.test_admin_pages import one_of_each  # noqa: F401 - a fixture

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("one_of_each")]

MAIN = {
    "index": reverse("admin:index"),
    "offers": reverse("admin:offers_offer_changelist"),
    "offer_add": reverse("admin:offers_offer_add"),
    "purchases": reverse("admin:purchases_purchase_changelist"),
}


@every_model_of("purchases", "auth", "waffle")
def test_pages_about_a_model_open_fit_and_have_no_barrier(
    visit: Callable[..., Visitor], superuser: User, client: Client, model: type[models.Model]
) -> None:
    client.force_login(superuser)
    look_at_model(visit(superuser), client, model)


def test_pages_of_the_site_open_fit_and_have_no_barrier(
    visit: Callable[..., Visitor], superuser: User, client: Client
) -> None:
    client.force_login(superuser)
    pages = pages_of_the_site(client)
    assert {"index", "password_change"} <= set(pages)
    look_at(visit(superuser), pages)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_login_opens_fits_and_has_no_barrier(
    visit: Callable[..., Visitor], size: tuple[int, int]
) -> None:
    visitor = visit(size=size)
    visitor.open(reverse("admin:index"))
    visitor.look("login")


def test_main_pages_can_be_read_in_the_dark(visit: Callable[..., Visitor], superuser: User) -> None:
    visitor = visit(superuser, dark=True)
    look_at(visitor, MAIN, dark=True)
    assert "dark" in (visitor.page.locator("html").get_attribute("class") or "")


def test_main_pages_open_on_an_organizers_phone(visit: Callable[..., Visitor]) -> None:
    owner = Membership.objects.filter(role=Membership.Role.OWNER)[0].user
    visitor = visit(owner, size=PHONE)
    for name, address in MAIN.items():
        visitor.open(address)
        visitor.look(f"organizers_{name}")
