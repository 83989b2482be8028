"""Addresses and forms that no page of ours makes: who sends them gets an answer, never a 500."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import models, transaction
from django.test import Client, RequestFactory
from django.urls import reverse

from tests.test_admin_permissions import MODELS, SCOPED, every_model, page, subject
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

# What is no number, no date and no id, or too large for all of them.
ODD = ("x", "9" * 30)
ODD_KEYS = ("x", "not-a-uuid", "9" * 30, "-1", "_ff", "é")
# Of a list's address: Django's own parameters, and unfold's.
OWN = ("p", "o", "all", "e", "q", "_facets", "_popup", "_to_field", "_changelist_filters", "bogus")
# What filters and date hierarchies ask of a column.
OF_DATES = ("year", "month", "day", "gte", "isnull", "range", "from", "to", "from_0", "to_1")


@pytest.fixture
def world() -> World:
    return World()


def browser(user: User) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


@pytest.fixture
def client(world: World) -> Client:
    """Of a superuser, whom no page is closed to."""
    return browser(world["superuser"])


def answers(client: Client, method: str, url: str, sent: dict[str, Any]) -> None:
    """No failure: in a transaction of its own, since one would spoil the test's."""
    with transaction.atomic():
        answer = getattr(client, method)(url, sent)
        said = getattr(answer, "exc_info", None)
        transaction.set_rollback(True)
    assert answer.status_code < 500, (method, url, sent, said and repr(said[1])[:300])


def parameters(model: type[models.Model]) -> Iterator[str]:
    """Everything that a list's address may filter by, and what it can't."""
    pages: Any = admin.site._registry[model]
    yield from OWN
    for spec in pages.list_filter:
        path = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(path, str):
            yield path.parameter_name
            continue
        yield path
        yield from (f"{path}__{lookup}" for lookup in ("exact", "id__exact", "isempty", "isnull"))
    for field in model._meta.fields:
        yield field.name
        if isinstance(field, models.DateTimeField):
            yield from (f"{field.name}__{lookup}" for lookup in OF_DATES)


@every_model
def test_odd_addresses_of_a_list_are_answered(client: Client, model: type[models.Model]) -> None:
    url = page(model, "changelist")
    for name in dict.fromkeys(parameters(model)):
        for value in ODD:
            answers(client, "get", url, {name: value})
    hierarchy = admin.site._registry[model].date_hierarchy or "created_at"
    for year, month, day in ((99999, 1, 1), (2026, 13, 1), (2026, 2, 30), (9999, 12, 31)):
        sent = {f"{hierarchy}__year": year}
        answers(client, "get", url, sent)
        sent |= {f"{hierarchy}__month": month, f"{hierarchy}__day": day}
        answers(client, "get", url, sent)


@every_model
def test_odd_keys_are_not_found(client: Client, model: type[models.Model]) -> None:
    for key in ODD_KEYS:
        for name in ("change", "history", "delete"):
            answers(client, "get", page(model, name, key), {})
            answers(client, "post", page(model, name, key), {"post": "yes"})


@every_model
def test_odd_choices_in_an_action_are_answered(
    client: Client, world: World, model: type[models.Model], rf: RequestFactory
) -> None:
    request = rf.get("/")
    request.user = world["superuser"]
    for name in (*admin.site._registry[model].get_actions(request), "bogus"):
        for key in (*ODD_KEYS, "", "\x00"):
            sent = {"action": name, "_selected_action": key}
            answers(client, "post", page(model, "changelist"), sent)
        sent = {"action": name, "_selected_action": "x", "select_across": "x", "index": "x"}
        answers(client, "post", page(model, "changelist"), sent)


@every_model
def test_odd_values_in_a_form_are_answered(
    client: Client, world: World, model: type[models.Model]
) -> None:
    thing = subject(world, model)
    names = [field.name for field in (*model._meta.fields, *model._meta.many_to_many)]
    for value in (*ODD, "\x00"):
        sent = dict.fromkeys(names, value)
        answers(client, "get", page(model, "add"), sent)
        answers(client, "post", page(model, "add"), sent)
        answers(client, "post", page(model, "change", thing.pk), sent)
    answers(client, "get", page(model, "add"), {"_popup": "1", "_to_field": "bogus"})


def test_members_get_an_answer_too(world: World) -> None:
    """Their lists have other filters, which offer only what is theirs."""
    client = browser(world["owner"])
    for model in SCOPED:
        for name in admin.site._registry[model].list_filter:
            if isinstance(name, str):
                for value in ODD:
                    sent = {f"{name}__id__exact": value, f"{name}__exact": value}
                    answers(client, "get", page(model, "changelist"), sent)


def test_odd_addresses_of_the_site_are_answered(client: Client) -> None:
    for query in ({"page": "x"}, {"s": "a", "page": "x"}, {"s": "a", "page": "9" * 30}, {"s": "é"}):
        answers(client, "get", reverse("admin:search"), query)
    whole = {"app_label": "offers", "model_name": "eventsession", "field_name": "event"}
    for changes in ({}, {"page": "x"}, {"term": "\x00"}, {"page": "-1"}, {"field_name": "bogus"}):
        answers(client, "get", reverse("admin:autocomplete"), whole | changes)
    answers(client, "get", reverse("admin:autocomplete"), {"app_label": "x"})
    for name in ("packing_list", "packing_csv"):
        url = reverse(f"admin:fulfillment_shippingorder_{name}")
        answers(client, "get", url, {"created_at__year": "99999"})
    for path in ("r/1/x/", f"r/{'9' * 30}/x/", "bogus/", "offers/bogus/", "jsi18n/"):
        answers(client, "get", f"/admin/{path}", {})


def test_every_model_is_walked() -> None:
    assert len(MODELS) > 20
