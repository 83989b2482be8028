"""Every page of the back-office, found by walking the registry and the addresses of admin.

The tests are in two modules, so that two processes share them.
"""

from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import NoReverseMatch, URLResolver, reverse

from tests.browser.visitor import DESKTOP, PHONE, Visitor
from tests.test_admin_pages import MODELS

# How many objects to try a page on that isn't there for each, like a refund.
TRIED = 5


def every_model_of(*apps: str) -> pytest.MarkDecorator:
    models = [model for model in MODELS if model._meta.app_label in apps]
    return pytest.mark.parametrize("model", models, ids=lambda model: model._meta.label)


def names(patterns: Any) -> list[str]:
    found = []
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            found += names(pattern.url_patterns)
        elif pattern.name:
            found.append(pattern.name)
    return found


ALL_NAMES = sorted(set(names(admin.site.urls[0])))


def is_page(client: Client, address: str) -> bool:
    """Whether a GET answers with a page, and not a file, a part of a page, or a refusal."""
    answer = client.get(address)
    # What a script puts into a page has no head.
    return answer.status_code == 200 and not answer.streaming and b"<html" in answer.content


def address_of(client: Client, name: str, objects: list[models.Model]) -> str | None:
    """Where the page ``name`` opens, without an argument or with the key of one of ``objects``."""
    for arguments in ((), *((thing.pk,) for thing in objects)):
        try:
            address = reverse(f"admin:{name}", args=arguments)
        except NoReverseMatch:
            continue
        if is_page(client, address):
            return address
    return None


def pages_of(model: type[models.Model], client: Client) -> dict[str, str]:
    """Every page about ``model``: those each model has, and its admin class's own."""
    stem = stem_of(model)
    objects = list(model._default_manager.all()[:TRIED])
    found = {}
    for name in ALL_NAMES:
        if name.startswith(stem):
            address = address_of(client, name, objects)
            if address:
                found[name] = address
    return found


def pages_of_the_site(client: Client) -> dict[str, str]:
    stems = tuple(map(stem_of, MODELS))
    others = [name for name in ALL_NAMES if not name.startswith(stems)]
    found = {name: address_of(client, name, []) for name in others}
    return {name: address for name, address in found.items() if address}


def look_at(visitor: Visitor, pages: dict[str, str], *, dark: bool = False) -> None:
    """Open each, and look at it in a wide and in a narrow window."""
    for name, address in pages.items():
        visitor.open(address)
        visitor.look(f"dark_{name}" if dark else name)
        visitor.resize(PHONE)
        visitor.look(f"dark_{name}" if dark else name)
        visitor.resize(DESKTOP)


def stem_of(model: type[models.Model]) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}_"


def look_at_model(visitor: Visitor, client: Client, model: type[models.Model]) -> None:
    pages = pages_of(model, client)
    # Those that each model has; what else there is depends on its admin class.
    assert {stem_of(model) + kind for kind in ("changelist", "change", "history")} <= set(pages)
    look_at(visitor, pages)
