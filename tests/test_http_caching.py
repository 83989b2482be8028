"""Who may keep what is answered, and for how long; 304 for whoever has it already."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Any

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from hishel import CacheOptions, SqliteStorage
from hishel.httpx import CacheTransport

from offers import http_caching, impressions
from offers.models import Offer
from offers_project.wsgi import application
from purchases.models import Purchase
from tests.conftest import Sandbox, buy
from tests.factories import (
    OfferFactory,
    RegistrationFactory,
    UserFactory,
)
from tests.service_processes import bearer
from tests.test_permissions import TABLE, address
from tests.two_organizations import World

pytestmark = pytest.mark.django_db
# Where purchases are made, or the service is called as a server calls it.
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def offer() -> Offer:
    made: Offer = OfferFactory(event__slug="conf", title="Hoodie", inventory_total=10)
    return made


READS = {
    "events": lambda offer: "/api/v1/events/",
    "event": lambda offer: f"/api/v1/events/{offer.event.slug}/",
    "offers": lambda offer: f"/api/v1/offers/?event={offer.event.slug}",
    "offer": lambda offer: f"/api/v1/offers/{offer.pk}/",
    "availability": lambda offer: f"/api/v1/offers/{offer.pk}/availability/",
    "live": lambda offer: f"/events/{offer.event.slug}/offers/live",
}
every_read = pytest.mark.parametrize("read", READS)
CONDITIONAL = {
    "/api/v1/events/",
    "/api/v1/events/<slug:slug>/",
    "/api/v1/offers/",
    "/api/v1/offers/<uuid:pk>/",
    "/api/v1/offers/<uuid:pk>/availability/",
    "/events/<slug:slug>/offers/live",
}
# What tells of stock, and so has to change with it.
STOCK = ("offers", "offer", "availability", "live")
# What a proxy may keep for a moment.
SHARED = [name for name in READS if name != "availability"]


def asked_again(client: Any, url: str, known: str, method: str = "get") -> Any:
    return getattr(client, method)(url, headers={"If-None-Match": known})


# -- Conditional requests -------------------------------------------------------------------------


@every_read
@pytest.mark.parametrize("method", ["get", "head"])
def test_who_has_the_answer_is_told_that_it_is_still_right(
    client_of: Any, offer: Offer, read: str, method: str
) -> None:
    url = READS[read](offer)
    client = client_of()
    first = getattr(client, method)(url)
    assert first.status_code == 200
    etag = first.headers["ETag"]
    assert etag.startswith('"')
    assert client.get(url).headers["ETag"] == etag  # HEAD has the one of GET
    for known in (etag, f"W/{etag}", f'"other", {etag}', f'W/"x",W/{etag}', "*"):
        again = asked_again(client, url, known, method)
        assert (again.status_code, again.content) == (304, b""), known
        for name in ("ETag", "Cache-Control", "Vary"):
            assert again.headers[name] == first.headers[name]
        assert "Content-Type" not in again.headers
        assert "Set-Cookie" not in again.headers
    for other in ('"other"', 'W/"other"', "unquoted", ""):
        assert asked_again(client, url, other, method).status_code == 200


@every_read
def test_preconditions_of_changes_do_not_stop_a_read(
    client_of: Any, offer: Offer, read: str
) -> None:
    client, url = client_of(), READS[read](offer)
    for name, value in (
        ("If-Match", '"other"'),
        ("If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"),
    ):
        assert client.get(url, headers={name: value}).status_code == 200


@committed
@pytest.mark.parametrize("read", STOCK)
def test_purchase_changes_the_validator_at_once(
    sandbox: Sandbox, client_of: Any, offer: Offer, read: str
) -> None:
    client, url, buyer = client_of(), READS[read](offer), client_of(UserFactory())
    etags = [client.get(url).headers["ETag"]]

    def changed() -> None:
        answer = asked_again(client, url, etags[-1])
        assert answer.status_code == 200
        etags.append(answer.headers["ETag"])

    purchase = buy(buyer, offer).json()
    changed()  # held
    session = purchase["checkout_session_id"]
    sandbox.act(session, "pay")
    sandbox.deliver()
    if read in ("offers", "offer"):
        changed()  # sold: these have both figures
    assert asked_again(client, url, etags[-1]).status_code == 304
    second = buy(buyer, offer, 9).json()
    changed()
    assert buyer.post(f"/api/v1/purchases/{second['id']}/cancel/").status_code == 200
    before = etags[-1]
    changed()
    assert etags[-1] == etags[-3]  # the same is left as before the second
    assert asked_again(client, url, before).status_code == 200


def test_passing_of_time_changes_the_validator(client_of: Any, offer: Offer) -> None:
    client = client_of()
    with time_machine.travel("2030-06-01T12:00:00Z", tick=False) as clock:
        Offer.objects.update(expires_at="2030-06-01T12:00:01Z")
        answers = {name: client.get(READS[name](offer)) for name in STOCK}
        clock.shift(1)
        for name, before in answers.items():
            after = asked_again(client, READS[name](offer), before.headers["ETag"])
            assert after.status_code == 200, name
            assert after.content != before.content


def test_refusals_have_no_validator_and_are_kept_by_nobody(client_of: Any, offer: Offer) -> None:
    client = client_of()
    for url, status in (
        ("/api/v1/events/unknown/", 404),
        ("/api/v1/offers/", 400),
        (f"/api/v1/offers/{offer.event_id}/", 404),
        (f"/api/v1/offers/{offer.pk}/availability/?quantity=0", 400),
        ("/api/v1/nothing/", 404),
        ("/events/unknown/offers/live", 404),
        ("/api/v1/purchases/", 401),
    ):
        answer = asked_again(client, url, "*")
        assert answer.status_code == status, url
        assert "ETag" not in answer.headers
        assert "no-store" in answer.headers["Cache-Control"]


def test_changes_are_no_reads(client_of: Any, offer: Offer) -> None:
    """The same viewset also creates and changes; what it answers then is nobody's to keep."""
    user = UserFactory(is_superuser=True)
    answer = client_of(user).patch(
        f"/api/v1/offers/{offer.pk}/", {"title": "New"}, headers={"If-None-Match": "*"}
    )
    assert answer.status_code == 200
    assert "ETag" not in answer.headers
    assert "no-store" in answer.headers["Cache-Control"]


def test_looking_again_is_no_showing(client_of: Any, offer: Offer) -> None:
    client, url = client_of(), READS["offers"](offer)
    etag = client.get(url).headers["ETag"]
    assert impressions.flush() == 1
    for known in (etag, '"of a moment ago"'):
        asked_again(client, url, known)
    for _ in range(3):
        client.get(READS["live"](offer))
    assert impressions.flush() == 0


# -- Who may keep it ------------------------------------------------------------------------------


@every_read
def test_anonymous_answers_are_shared_and_set_no_cookie(
    client_of: Any, offer: Offer, read: str
) -> None:
    answer = client_of().get(READS[read](offer))
    expected = http_caching.SHARED if read in SHARED else http_caching.OWN
    assert answer.headers["Cache-Control"] == expected
    assert not answer.cookies
    varies = {name.strip() for name in answer.headers["Vary"].split(",")}
    # The API is English for everybody; pages' texts are not.
    assert varies == {"Authorization", "Cookie"} | (
        {"Accept-Language"} if read == "live" else set()
    )


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="offers_project.login.ByMembership")
    return client


def with_header(name: str, value: str) -> Client:
    return Client(headers={name: value})


CREDENTIALS: dict[str, Callable[[Any, User], Any]] = {
    "token": lambda client_of, user: client_of(user),
    "session": lambda client_of, user: logged_in(user),
    "session that is no good": lambda client_of, user: with_header("Cookie", "sessionid=gone"),
    "a member's": lambda client_of, user: client_of(UserFactory(is_superuser=True)),
}


@every_read
@pytest.mark.parametrize("who", CREDENTIALS)
def test_whoever_sends_credentials_is_never_answered_publicly(
    client_of: Any, offer: Offer, read: str, who: str
) -> None:
    client = CREDENTIALS[who](client_of, UserFactory())
    answer = client.get(READS[read](offer))
    assert answer.headers["Cache-Control"] == http_caching.OWN
    again = asked_again(client, READS[read](offer), answer.headers["ETag"])
    assert (again.status_code, again.headers["Cache-Control"]) == (304, http_caching.OWN)


@every_read
@pytest.mark.parametrize("sent", ["Bearer nonsense", "Basic bm9ib2R5Om5vdGhpbmc="])
def test_credentials_that_are_no_good_get_nothing_public(
    offer: Offer, read: str, sent: str
) -> None:
    answer = with_header("Authorization", sent).get(READS[read](offer))
    assert "public" not in answer.headers["Cache-Control"]


def test_private_events_are_never_kept_for_others(client_of: Any) -> None:
    registration = RegistrationFactory(event__is_public=False)
    offer = OfferFactory(event=registration.event)
    for read in READS:
        answer = client_of(registration.user).get(READS[read](offer))
        if read != "live":  # a page's address: no token
            assert answer.headers["Cache-Control"] == http_caching.OWN
    own = logged_in(registration.user).get(READS["live"](offer))
    assert own.headers["Cache-Control"] == http_caching.OWN


@pytest.mark.parametrize("how", ["session", "token"])
def test_nothing_that_is_answered_to_a_person_is_public(client_of: Any, how: str) -> None:
    world = World()
    client = logged_in(world["buyer"]) if how == "session" else client_of(world["buyer"])
    reads = [entry for entry in TABLE if entry.startswith("GET ")]
    wrong = {}
    for entry in reads:
        answer = client.get(address(entry, world), TABLE[entry][1](world))
        kept_by = set(re.split(r",\s*", answer.headers["Cache-Control"]))
        varies = set(re.split(r",\s*", answer.headers.get("Vary", "")))
        is_own = kept_by == {"private", "no-cache"} and varies >= {"Authorization", "Cookie"}
        if not ((is_own and entry.split()[1] in CONDITIONAL) or kept_by >= {"private", "no-store"}):
            wrong[entry] = answer.headers["Cache-Control"]
    assert wrong == {}
    assert len(reads) > 20


@committed
def test_tokens_and_purchases_are_stored_nowhere(
    sandbox: Sandbox, client_of: Any, offer: Offer
) -> None:
    user = UserFactory()
    login = {"username": user.username, "password": "secret"}
    for answer in (
        client_of().post("/api/v1/auth/token/", login),
        buy(client_of(user), offer),
        client_of(user).get("/api/v1/purchases/"),
        client_of(user).get(f"/api/v1/purchases/{Purchase.objects.get().pk}/"),
    ):
        assert answer.status_code in (200, 201)
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert "ETag" not in answer.headers


# -- Through caches that follow the RFC -----------------------------------------------------------


def dated(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The service with a Date, as every web server adds it."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        asked.append(environ["PATH_INFO"])
        now = formatdate(time.time(), usegmt=True)
        return start_response(status, [*headers, ("Date", now)], *rest)

    return application(environ, start)


asked: list[str] = []  # what reached the service


class Ageless(httpx.BaseTransport):
    """A proxy's way out that doesn't say how old an answer is, as nginx doesn't."""

    def __init__(self, proxy: httpx.BaseTransport) -> None:
        self.proxy = proxy

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.proxy.handle_request(request)
        response.headers.pop("Age", None)
        response.headers["Date"] = formatdate(time.time(), usegmt=True)
        return response


class Venue:
    """A proxy that keeps answers for everybody, and the browsers behind it, each with a cache."""

    def __init__(self, *, says_age: bool = True) -> None:
        asked.clear()
        self.open: list[sqlite3.Connection] = []
        proxy = self.cache(httpx.WSGITransport(app=dated), shared=True)
        self.proxy = proxy if says_age else Ageless(proxy)

    def cache(self, behind: httpx.BaseTransport, *, shared: bool) -> CacheTransport:
        database = sqlite3.connect(":memory:", check_same_thread=False)
        self.open.append(database)
        storage = SqliteStorage(connection=database)
        return CacheTransport(behind, storage, CacheOptions(shared=shared))

    def browser(self, **headers: str) -> httpx.Client:
        kept = self.cache(self.proxy, shared=False)
        return httpx.Client(
            transport=kept, base_url="http://testserver", headers=headers, trust_env=False
        )


@pytest.fixture
def venue(request: pytest.FixtureRequest) -> Iterator[Venue]:
    made = Venue(says_age=getattr(request, "param", True))
    yield made
    for database in made.open:
        database.close()


@committed
@pytest.mark.parametrize("read", SHARED)
def test_proxy_answers_a_crowd_with_what_one_was_told(
    venue: Venue, offer: Offer, read: str
) -> None:
    url = READS[read](offer)
    with time_machine.travel("2030-06-01T12:00:00Z", tick=False):
        bodies = {venue.browser().get(url).content for _ in range(20)}
    assert len(bodies) == 1
    assert len(asked) == 1


@committed
@pytest.mark.parametrize("read", STOCK)
@pytest.mark.parametrize("begun", [0.0, 0.999])
@pytest.mark.parametrize("venue", [True, False], indirect=True, ids=["with Age", "without"])
def test_no_cache_has_stock_that_is_older_than_two_seconds(
    venue: Venue, offer: Offer, read: str, begun: float
) -> None:
    """Ever more browsers behind a proxy, after a change that none of them was told of."""
    url = READS[read](offer)
    with time_machine.travel(1_900_000_000 + begun, tick=False) as clock:
        old = venue.browser().get(url).json()
        Offer.objects.update(inventory_total=1)
        browsers = []
        for quarter in range(1, 15):
            clock.shift(0.25)
            if quarter < 10:
                browsers.append(venue.browser())  # whose first answer may be the proxy's
            is_new = [browser.get(url).json() != old for browser in browsers]
            assert all(is_new) or quarter < 8


@committed
def test_nobody_gets_what_a_cache_kept_for_somebody_else(venue: Venue, offer: Offer) -> None:
    registration = RegistrationFactory(event=offer.event)
    own = OfferFactory(event=offer.event, title="For one tier")
    own.target_ticket_tiers.add(registration.ticket_tier)
    url = READS["offers"](offer)

    def titles(browser: httpx.Client) -> set[str]:
        return {found["title"] for found in browser.get(url).json()["results"]}

    with time_machine.travel("2030-06-01T12:00:00Z", tick=False):
        session = logged_in(registration.user).cookies["sessionid"].value
        by_session = venue.browser(Cookie=f"sessionid={session}")
        by_token = venue.browser(Authorization=bearer(registration.user)["Authorization"])
        for _ in range(2):
            assert titles(venue.browser()) == {"Hoodie"}
            assert titles(by_session) == titles(by_token) == {"Hoodie", "For one tier"}
        assert len(asked) == 5
