"""Who may and who may not: every endpoint of the API, every page, every command.

The table below has a row for each method of each address, and a new address fails the tests until
it has one. The admin's pages have a table of their own, in test_admin_permissions.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import get_commands
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import buy
from tests.factories import OfferFactory
from tests.test_architecture import APPS, IMPORTS, within
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent

WHO = ("anonymous", "buyer", "attendee", "stranger", "support", "manager", "owner", "rival",
       "superuser")  # fmt: skip

Body = Callable[[World], dict[str, Any]]


def everybody(status: int) -> dict[str, int]:
    return dict.fromkeys(WHO, status)


def each(*statuses: int) -> dict[str, int]:
    """A status for each of WHO, in its order."""
    return dict(zip(WHO, statuses, strict=True))


def nothing(world: World) -> dict[str, Any]:
    return {}


def new_offer(world: World) -> dict[str, Any]:
    return {
        "event": world.home.event.slug, "title": "New", "offer_type": "SERVICE", "price": "5.00",
        "currency": "USD", "inventory_total": 3,
    }  # fmt: skip


def one_unit(world: World) -> dict[str, Any]:
    return {"offer": str(world.home.offer.pk), "quantity": 1}


def a_mailbox() -> str:
    """Another one each time: letters to one are limited."""
    return f"{uuid.uuid4().hex}@example.org"


# What concerns one event, offer or purchase is asked about the first organization's private event,
# where only `buyer` is registered and has bought. A member of an organization, support included,
# manages its offers through the API (that is the API's contract); in admin support only looks.
SEEN = each(404, 200, 404, 404, 200, 200, 200, 404, 200)
MINE = each(401, 200, 404, 404, 404, 404, 404, 404, 404)
LOGGED_IN = each(401, *[200] * 8)
MANAGED = {
    "create": each(401, 403, 400, 400, 201, 201, 201, 400, 201),
    "change": each(401, 403, 404, 404, 200, 200, 200, 404, 200),
    "archive": each(401, 403, 404, 404, 204, 204, 204, 404, 204),
}
PAGE_OF_ONES_OWN = each(302, *[200] * 8)
# Codes are for the organization's own people; the others' hear that there is none.
CHECKED = each(302, 403, 403, 403, 200, 200, 200, 404, 200)
NOT_FOR_LOGGED_IN = each(200, *[302] * 8)
LOGIN_FIRST = everybody(302)  # to the login page, or back to the page with a message

API: dict[str, tuple[dict[str, int], Body]] = {
    "POST /api/v1/auth/token/": (
        everybody(200),
        lambda world: {"username": "buyer", "password": "secret"},
    ),
    "POST /api/v1/auth/token/refresh/": (
        everybody(200),
        lambda world: {"refresh": str(RefreshToken.for_user(world["buyer"]))},
    ),
    # Only Stripe's signature counts, and here is none.
    "POST /api/v1/webhooks/stripe/": (everybody(400), nothing),
    "GET /api/v1/schema/": (everybody(200), nothing),
    "GET /api/v1/docs/": (everybody(200), nothing),
    "GET /api/v1/events/": (everybody(200), nothing),
    "GET /api/v1/events/<slug:slug>/": (SEEN, nothing),
    "GET /api/v1/offers/": (SEEN, lambda world: {"event": world.home.event.slug}),
    "POST /api/v1/offers/": (MANAGED["create"], new_offer),
    "GET /api/v1/offers/<uuid:pk>/": (SEEN, nothing),
    "PATCH /api/v1/offers/<uuid:pk>/": (MANAGED["change"], lambda world: {"title": "Changed"}),
    "DELETE /api/v1/offers/<uuid:pk>/": (MANAGED["archive"], nothing),
    "GET /api/v1/offers/<uuid:pk>/availability/": (SEEN, nothing),
    # Who isn't registered and may know of the event is told so; nobody else hears that it exists.
    "POST /api/v1/purchases/": (each(401, 201, 404, 404, 403, 403, 403, 404, 403), one_unit),
    "GET /api/v1/purchases/": (LOGGED_IN, nothing),
    "GET /api/v1/purchases/<uuid:pk>/": (MINE, nothing),
    # The buyer's own is paid and so can't be cancelled (409); a hold is cancelled further below.
    "POST /api/v1/purchases/<uuid:pk>/refund/": (
        each(401, 403, 404, 404, 403, 202, 202, 404, 202),
        nothing,
    ),
    "POST /api/v1/purchases/<uuid:pk>/cancel/": (MINE | {"buyer": 409}, nothing),
    # The buyer's own is no service; what buyers do with theirs is in test_bookings.
    "GET /api/v1/purchases/<uuid:pk>/slots/": (MINE | {"buyer": 409}, nothing),
    "POST /api/v1/purchases/<uuid:pk>/booking/": (
        MINE | {"buyer": 409},
        lambda world: {"slot": str(world.home.slot.pk)},
    ),
    "DELETE /api/v1/purchases/<uuid:pk>/booking/": (MINE | {"buyer": 409}, nothing),
}
PAGES: dict[str, tuple[dict[str, int], Body]] = {
    "GET /": (everybody(200), nothing),
    # Who isn't logged in is asked to, whether there is such an event or not.
    "GET /events/<slug:slug>/offers": (SEEN | {"anonymous": 302}, nothing),
    "POST /events/<slug:slug>/offers": (LOGIN_FIRST, one_unit),
    "GET /events/<slug:slug>/offers/<uuid:offer_id>": (SEEN | {"anonymous": 302}, nothing),
    "POST /events/<slug:slug>/offers/<uuid:offer_id>": (LOGIN_FIRST, one_unit),
    "GET /events/<slug:slug>/offers/live": (SEEN, nothing),
    "GET /events/<slug:slug>/offers/success": (
        each(302, 200, 404, 404, 404, 404, 404, 404, 404),
        lambda world: {"session_id": world.home.purchase.checkout_session_id},
    ),
    "GET /purchases": (PAGE_OF_ONES_OWN, nothing),
    "GET /purchases/<uuid:purchase_id>": (MINE | {"anonymous": 302}, nothing),
    "POST /purchases/<uuid:purchase_id>/cancel": (LOGIN_FIRST, nothing),
    "POST /purchases/<uuid:purchase_id>/again": (LOGIN_FIRST, nothing),
    # The page's own token counts, whoever brings it: test_mirror.
    "GET /purchases/<uuid:purchase_id>/status": (everybody(404), nothing),
    # Whoever has a link has the right, and this is none; what links do: test_content_link.
    "GET /content/<str:token>": (everybody(404), nothing),
    "GET /purchases/<uuid:purchase_id>/code.svg": (MINE, nothing),
    "GET /purchases/<uuid:purchase_id>/code.png": (MINE, nothing),
    "GET /check-in": (each(302, 403, 403, 403, *[200] * 5), nothing),
    "GET /check-in/<str:code>": (CHECKED, nothing),
    # Only what can be picked up has a button.
    "POST /check-in/<str:code>": (
        CHECKED | dict.fromkeys(("support", "manager", "owner", "superuser"), 405),
        nothing,
    ),
    "POST /purchases/<uuid:purchase_id>/booking": (LOGIN_FIRST, nothing),
    "POST /purchases/<uuid:purchase_id>/booking/cancel": (LOGIN_FIRST, nothing),
    "GET /purchases/<uuid:purchase_id>/booking.ics": (each(302, *[404] * 8), nothing),
    # Who is logged in needs no form there, and none to register.
    "GET /login": (NOT_FOR_LOGGED_IN, nothing),
    "POST /login": (everybody(302), lambda world: {"username": "buyer", "password": "secret"}),
    "POST /logout": (everybody(302), nothing),
    "POST /language": (everybody(302), lambda world: {"language": "de"}),
    # The answers are the same whoever has the address; what comes of them: test_registration.
    "GET /register": (NOT_FOR_LOGGED_IN, nothing),
    "POST /register": (everybody(302), lambda world: {"email": a_mailbox(), "name": "New"}),
    "GET /register/sent": (everybody(302), nothing),
    "GET /register/link/<str:token>": (everybody(404), nothing),
    "GET /register/password": (everybody(404), nothing),
    "GET /password/reset": (everybody(200), nothing),
    "POST /password/reset": (everybody(302), lambda world: {"email": a_mailbox()}),
    "GET /password/reset/sent": (everybody(302), nothing),
    "GET /password/reset/<str:uidb64>/<str:token>": (everybody(404), nothing),
    "GET /password/change": (PAGE_OF_ONES_OWN, nothing),
    # Of a local run, as the tests are one.
    "GET /mail/": (everybody(200), nothing),
    "GET /mail/<slug:name>": (everybody(404), nothing),
    "GET /mail/<slug:name>/html": (everybody(404), nothing),
    "GET /mail/<slug:name>/<int:number>": (everybody(404), nothing),
    "GET /livez": (everybody(200), nothing),
    "GET /readyz": (everybody(200), nothing),
    "GET /metrics": (everybody(200), nothing),
}
# These lead strangers somewhere else than to the login page.
OPEN = (
    "POST /login", "POST /logout", "POST /language", "POST /register", "GET /register/sent",
    "POST /password/reset", "GET /password/reset/sent",
)  # fmt: skip
TABLE = API | PAGES


def addresses(patterns: Any, before: str = "/") -> Iterator[tuple[str, Any]]:
    """Every address of the service with its view, without the admin's."""
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            if pattern.app_name != admin.site.name:
                yield from addresses(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern) and not route.startswith("/admin/"):
            yield route, pattern.callback


def methods(view: Any) -> set[str]:
    """The methods that a view of the API answers."""
    allowed = view.initkwargs.get("http_method_names", view.cls.http_method_names)
    answered = getattr(view, "actions", None) or [
        name for name in allowed if hasattr(view.cls, name)
    ]
    return {name.upper() for name in set(allowed) & set(answered)} - {"HEAD", "OPTIONS"}


def test_every_address_is_in_the_table() -> None:
    found = dict(addresses(get_resolver().url_patterns))
    assert len(found) > 20
    listed = {entry.split(" ", 1)[1] for entry in TABLE}
    assert listed == set(found)
    of_the_api = {
        f"{method} {route}"
        for route, view in found.items()
        if route.startswith("/api/")
        for method in methods(view)
    }
    assert of_the_api == set(API)


def address(entry: str, world: World) -> str:
    """The entry's address, about what belongs to the first organization."""
    route = entry.split(" ", 1)[1]
    thing = world.home.purchase if "/purchases/" in route else world.home.offer
    if "/code." in route:
        thing = world.home.upgrade.fulfillment.purchase
    filled = route.replace("<slug:slug>", world.home.event.slug)
    filled = filled.replace("<str:code>", world.home.upgrade.code)
    return re.sub(r"<uuid:\w+>", str(thing.pk), filled)


def ask(client: Any, entry: str, world: World, body: Body) -> Any:
    return getattr(client, entry.split()[0].lower())(address(entry, world), body(world))


@contextmanager
def undone() -> Iterator[None]:
    """The next in the row finds everything as it was."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def browser_of(user: User | None) -> Client:
    client = Client()
    if user:
        client.force_login(user)
    return client


@pytest.mark.parametrize("entry", API)
def test_endpoint_answers_whom_it_should(client_of: Any, entry: str) -> None:
    world = World()
    expected, body = API[entry]
    answers = {}
    for who in WHO:
        client = client_of(world.people[who])
        with undone():
            answer = ask(client, entry, world, body)
        answers[who] = answer.status_code
        if answer.status_code >= 400:
            assert "Home" not in answer.content.decode()
    assert answers == expected


@pytest.mark.parametrize("entry", PAGES)
def test_page_answers_whom_it_should(entry: str) -> None:
    world = World()
    before = Purchase.objects.count()
    expected, body = PAGES[entry]
    answers = {}
    for who in WHO:
        client = browser_of(world.people[who])
        with undone():
            answer = ask(client, entry, world, body)
            bought = entry.startswith("POST /events/") and who == "buyer"
            assert Purchase.objects.count() - before == bought
            world.home.purchase.refresh_from_db()
            assert world.home.purchase.status == Status.PAID
        answers[who] = answer.status_code
        is_sent_to_log_in = answer.status_code == 302 and entry not in OPEN
        if who == "anonymous" and is_sent_to_log_in:
            assert answer.url.startswith("/login?next=")
    assert answers == expected


# -- Whose objects are in a list ------------------------------------------------------------------

EVENTS = {
    "anonymous": set(), "attendee": set(), "stranger": set(),
    "buyer": {"home-private"}, "support": {"home-private"}, "manager": {"home-private"},
    "owner": {"home-private"}, "rival": {"rival-private"},
    "superuser": {"home-private", "rival-private"},
}  # fmt: skip


def test_event_lists_have_public_events_and_ones_own(client_of: Any) -> None:
    world = World()
    for who in WHO:
        listed = client_of(world.people[who]).get("/api/v1/events/").json()["results"]
        expected = EVENTS[who] | {"home-public", "rival-public"}
        assert {event["slug"] for event in listed} == expected
        page = browser_of(world.people[who]).get("/").content.decode()
        assert set(re.findall(r"/events/([\w-]+)/offers", page)) == expected


def test_purchase_lists_have_ones_own_purchases_only(client_of: Any) -> None:
    world = World()
    queries: tuple[dict[str, str], ...] = ({}, {"event": "home-private"}, {"status": "paid"})
    for who in WHO[1:]:
        mine = Purchase.objects.filter(user=world[who])
        own = {str(pk) for pk in mine.values_list("pk", flat=True)}
        assert bool(own) == (who in ("buyer", "attendee"))
        client = client_of(world[who])
        lists = [
            {
                purchase["id"]
                for purchase in client.get("/api/v1/purchases/", query).json()["results"]
            }
            for query in queries
        ]
        assert lists[0] == own
        assert all(listed <= own for listed in lists)
        page = browser_of(world[who]).get("/purchases").content.decode()
        assert page.count("<article>") == len(own)


@pytest.mark.django_db(transaction=True)
def test_hold_is_cancelled_by_its_buyer_only(sandbox: Any, client_of: Any) -> None:
    world = World()
    offer = OfferFactory(event=world.home.public_event)
    purchase = buy(client_of(world["attendee"]), offer).json()
    url = f"/api/v1/purchases/{purchase['id']}/cancel/"
    for who in WHO:
        if who != "attendee":
            expected = 401 if who == "anonymous" else 404
            assert client_of(world.people[who]).post(url).status_code == expected
    assert Purchase.objects.get(pk=purchase["id"]).status == Status.AWAITING_PAYMENT
    assert client_of(world["attendee"]).post(url).status_code == 200


@pytest.mark.parametrize("entry", ["POST /api/v1/offers/", "PATCH /api/v1/offers/<uuid:pk>/"])
def test_member_of_one_organization_changes_nothing_of_another(client_of: Any, entry: str) -> None:
    world = World()
    client = client_of(world["owner"])
    foreign = {"event": world.away.public_event.slug}
    if entry.startswith("POST"):
        answer = client.post("/api/v1/offers/", new_offer(world) | foreign)
        assert answer.status_code == 403
    else:
        theirs = f"/api/v1/offers/{world.away.public_offer.pk}/"
        assert client.patch(theirs, {"title": "Mine"}).status_code == 403
        assert client.delete(theirs).status_code == 403
        ours = f"/api/v1/offers/{world.home.offer.pk}/"
        assert client.patch(ours, foreign).status_code in (400, 403)
        world.home.offer.refresh_from_db()
        assert world.home.offer.event == world.home.event
    world.away.public_offer.refresh_from_db()
    assert world.away.public_offer.title == "Rival public offer"
    assert not world.away.public_offer.is_archived


def test_membership_that_ended_gives_no_rights_any_more(client_of: Any) -> None:
    world = World()
    client = client_of(world["manager"])
    url = f"/api/v1/offers/{world.home.public_offer.pk}/"
    assert client.patch(url, {"title": "One"}).status_code == 200
    world.home.memberships[1].delete()
    assert client.patch(url, {"title": "Two"}).status_code == 403


def test_token_of_one_kind_does_not_pass_for_the_other(client_of: Any) -> None:
    user = World()["buyer"]
    client = client_of()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {RefreshToken.for_user(user)}")
    assert client.get("/api/v1/purchases/").status_code == 401
    access = {"refresh": str(AccessToken.for_user(user))}
    assert client_of().post("/api/v1/auth/token/refresh/", access).status_code == 401


# -- Commands -------------------------------------------------------------------------------------

OWN_COMMANDS = {
    name for name, app in get_commands().items() if within(str(app), *APPS, "offers_project")
}


def test_commands_of_the_code_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Management commands")[1].split("\n## ")[0]
    listed = {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)[^`]*`", row)
    }
    elsewhere = {name for name in OWN_COMMANDS if f"manage.py {name}`" in readme}
    assert sorted(OWN_COMMANDS - listed - elsewhere) == []
    known = set(get_commands()) | {"stripe_sandbox"}  # which manage.py starts without Django
    assert sorted(listed - known) == []


def test_nothing_that_answers_http_runs_a_command() -> None:
    """Commands ask nobody who they are: whoever has a shell may run them, and nobody else."""
    assert OWN_COMMANDS
    runners = {
        module
        for module, found in IMPORTS.items()
        for imported in found
        if ".management" in imported or "django.core.management" in imported
        if ".management.commands" not in module
    }
    assert sorted(runners) == ["manage"]


def test_webhook_with_a_foreign_signature_stores_nothing(client_of: Any) -> None:
    world = World()
    before = list(Purchase.objects.values())
    answer = client_of(world["superuser"]).post(
        "/api/v1/webhooks/stripe/",
        json.dumps({"id": "evt_2", "type": "checkout.session.completed"}),
        content_type="application/json",
        headers={"Stripe-Signature": "t=1,v1=00"},
    )
    assert answer.status_code == 400
    assert list(Purchase.objects.values()) == before
