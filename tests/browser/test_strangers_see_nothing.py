"""The manager of another organization looks around, and finds nothing that isn't theirs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib import admin
from django.urls import reverse
from playwright.sync_api import expect

from offers.models import Offer
from offers.scoped_admin import ScopedAdmin
from tests.browser import labels
from tests.browser.every_page import ALL_NAMES
from tests.browser.visitor import Visitor
from tests.test_admin_pages import MODELS
from tests.two_organizations import World

pytestmark = pytest.mark.django_db(transaction=True)

SCOPED = [model for model in MODELS if isinstance(admin.site._registry[model], ScopedAdmin)]


def test_manager_of_another_organization_sees_none_of_it(visit: Callable[..., Visitor]) -> None:
    world = World()
    visitor = visit(world["rival_manager"])
    page = visitor.page

    for model in SCOPED:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        visitor.open(reverse(f"{name}_changelist"))
        shown = page.locator("#content").inner_text()
        assert "Home" not in shown, model
        if model is Offer:
            assert "Rival" in shown  # so it isn't a page for nobody
        for kind in ("change", "history", "delete"):
            address = reverse(f"{name}_{kind}", args=[world.home.objects[model].pk])
            answer = page.request.get(address, max_redirects=0)
            assert answer.status in (302, 403, 404), (address, answer.status)

    # Typed into the address bar, it leads to the start with a word about it.
    visitor.open(reverse("admin:offers_offer_change", args=[world.home.offer.pk]))
    assert page.url.endswith(reverse("admin:index"))
    expect(page.get_by_text("doesn’t exist")).to_be_visible()

    visitor.open(reverse("admin:offers_offer_add"))
    assert visitor.choices(labels.EVENT, "o") == []  # "Home …" has one, "Rival …" hasn't
    assert visitor.choices(labels.EVENT, "p") == ["Rival private", "Rival public"]


def test_exports_of_a_stranger_hold_nothing_of_ours(visit: Callable[..., Visitor]) -> None:
    world = World()
    visitor = visit(world["rival_manager"])
    page = visitor.page
    exports = [name for name in ALL_NAMES if name.endswith("_export")]
    assert {"offers_offer_export", "purchases_purchase_export"} <= set(exports)
    for name in exports:
        visitor.open(reverse(f"admin:{name}"))
        if page.get_by_label("Format").count():
            page.get_by_label("Format").select_option(label="csv")
        with page.expect_download() as started:
            page.locator("#content form button[type=submit]").click()
        content = Path(started.value.path()).read_text(encoding="utf-8-sig")
        assert "Home" not in content, name
        assert "Rival" in content, name  # so it isn't a file of nobody's


def test_attendee_does_not_get_in(visit: Callable[..., Visitor]) -> None:
    world = World()
    visitor = visit(world["attendee"])
    visitor.open(reverse("admin:offers_offer_changelist"))
    assert "/admin/login/" in visitor.page.url
    expect(visitor.page.get_by_text("this account works for no organization")).to_be_visible()
    visitor.look("login_refused")
