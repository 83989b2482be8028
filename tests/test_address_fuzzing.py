"""Odd addresses of the pages and of the admin, and odd cookies: refused or ignored, never a 500."""

from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import EventFactory, PurchaseFactory

pytestmark = pytest.mark.django_db(transaction=True)

ODD = [
    "%00",
    "a%00b",
    "%ED%A0%80",
    "%FF",
    "%F0%9F%98%80",
    "",
    "%25",
    "%0D%0A",
    "'",
    "{}",
    "null",
    "-1",
    "1e400",
    "9" * 40,
    "x" * 3000,
]
PAGES = [
    "/?x=",
    "/events/",
    "/events/conf/offers?x=",
    "/events/conf/offers/success?session_id=",
    "/purchases?x=",
    "/purchases/",
    "/content/",
    "/check-in?code=",
    "/check-in/",
    "/login?next=",
    "/register?next=",
    "/register/link/",
    "/password/reset?next=",
    "/password/reset/",
    "/password/reset/MQ/",
    "/admin/?x=",
    "/admin/login/?next=",
    "/admin/autocomplete/?app_label=offers&model_name=membership&field_name=user&term=",
    "/admin/autocomplete/?app_label=",
    "/api/v1/docs/?x=",
    "/api/v1/schema/?format=",
    "/api/v1/events/?cursor=",
    "/api/v1/",
    "/livez?x=",
    "/metrics?name[]=",
    "/static/",
    "/mail/",
    "/mail/x/",
]


@pytest.fixture
def staff() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root"))
    return client


def broken(client: Client, addresses: list[str]) -> dict[str, int]:
    answers = ((address[:100], client.get(address).status_code) for address in addresses)
    return {address: status for address, status in answers if status >= 500}


def test_pages_take_any_address(staff: Client) -> None:
    EventFactory(slug="conf")
    addresses = [page + value for page in PAGES for value in ODD]
    assert broken(staff, addresses) == {}
    anonymous = [page + value for page in PAGES for value in ODD[:4]]
    assert broken(Client(raise_request_exception=False), anonymous) == {}


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.label)
def test_lists_of_the_admin_take_any_address(staff: Client, model: Any) -> None:
    PurchaseFactory()
    model_admin = admin.site._registry[model]
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    filters = [
        f"{item}__exact" if isinstance(item, str) else f"{item[0]}__isempty"
        for item in model_admin.list_filter
        if not isinstance(item, type)
    ]
    texts = [field.name for field in model._meta.concrete_fields if field.max_length]
    names = ["q", "o", "p", "e", "all", "_to_field", "_facets", "unknown", "pk__in", *filters]
    odd = ("a%00b", "%FF", "9" * 40)
    addresses = [f"{address}?{name}={value}" for name in (*names, *texts) for value in odd]
    addresses += [f"{address}{value}/change/" for value in ODD]
    assert broken(staff, addresses) == {}


@pytest.mark.parametrize("address", ["/purchases", "/admin/", "/api/v1/purchases/", "/login"])
@pytest.mark.parametrize("cookie", ["sessionid", "csrftoken", "messages"])
def test_cookie_with_a_nul_is_no_cookie(address: str, cookie: str) -> None:
    client = Client(raise_request_exception=False)
    plain = client.get(address).status_code
    assert plain in (200, 302, 401)
    damaged = client.get(address, headers={"Cookie": f'{cookie}="{"a" * 32}\\000"'})
    assert damaged.status_code == plain


@pytest.mark.parametrize(
    "address", ["/admin/purchases/stripeevent/?type=%00", "/purchases?x=a%00", "/\0"], ids=quote
)
def test_nul_in_an_address_is_refused(staff: Client, address: str) -> None:
    assert staff.get(address).status_code == 400


def test_escaped_percent_sign_before_two_zeros_is_no_nul(staff: Client) -> None:
    assert staff.get("/purchases?x=%2500").status_code == 200
