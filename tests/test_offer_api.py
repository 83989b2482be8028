"""Events and offers over HTTP: who sees what, who changes what, and what can't be changed."""

import base64
import json
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from offers import inventory
from offers.models import Event, Membership, Offer
from purchases.states import Status
from tests.conftest import at_once, blocked_backends, code, counters
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    OrganizationFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

Clients = Callable[..., APIClient]
OFFERS, EVENTS = "/api/v1/offers/", "/api/v1/events/"
YESTERDAY, TOMORROW = timedelta(days=-1), timedelta(days=1)

# The contract's page, field by field.
OFFER_FIELDS = {
    "id", "event", "title", "description", "offer_type", "price", "original_price", "currency",
    "image_url", "inventory", "is_available", "placement", "target_sessions",
    "target_ticket_tiers", "starts_at", "expires_at", "max_per_user", "created_at", "updated_at",
}  # fmt: skip


def url(offer: Offer) -> str:
    return f"{OFFERS}{offer.pk}/"


def errors(answer: Any) -> dict[str | None, str]:
    return {error["attr"]: error["code"] for error in answer.json()["errors"]}


def titles(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.content
    return {offer["title"] for offer in answer.json()["results"]}


@pytest.fixture
def event() -> Event:
    return EventFactory()


@pytest.fixture
def anybody(client_of: Clients) -> APIClient:
    return client_of(None)


@pytest.fixture
def member(client_of: Clients, event: Event) -> APIClient:
    return client_of(MembershipFactory(organization=event.organization).user)


# -- The list -------------------------------------------------------------------------------------


def test_list_needs_an_event(anybody: APIClient) -> None:
    answer = anybody.get(OFFERS)
    assert (answer.status_code, errors(answer)) == (400, {"event": "required"})
    assert anybody.get(OFFERS, {"event": ""}).status_code == 400


def test_list_of_an_unknown_event_is_not_found(anybody: APIClient) -> None:
    answer = anybody.get(OFFERS, {"event": "nowhere"})
    assert (answer.status_code, code(answer)) == (404, "not_found")


def test_list_of_a_private_event_is_for_those_registered(client_of: Clients) -> None:
    private = EventFactory(is_public=False)
    offer = OfferFactory(event=private)
    attendee = RegistrationFactory(event=private).user
    member = MembershipFactory(organization=private.organization).user

    for stranger in (None, UserFactory(), MembershipFactory().user):
        answer = client_of(stranger).get(OFFERS, {"event": private.slug})
        assert (answer.status_code, code(answer)) == (404, "not_found")
        assert client_of(stranger).get(url(offer)).status_code == 404
        assert client_of(stranger).get(f"{url(offer)}availability/").status_code == 404
    for insider in (attendee, member):
        client = client_of(insider)
        assert titles(client.get(OFFERS, {"event": private.slug})) == {offer.title}
        assert client.get(url(offer)).status_code == 200


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param({"is_active": False}, id="inactive"),
        pytest.param({"is_archived": True}, id="archived"),
        pytest.param({"inventory_total": 0}, id="without stock"),
        pytest.param({"starts_at": TOMORROW}, id="not started"),
        pytest.param({"expires_at": YESTERDAY}, id="expired"),
        pytest.param({"expires_at": timedelta()}, id="expiring this moment"),
    ],
)
def test_offer_that_can_not_be_bought_is_not_listed_yet_can_be_looked_at(
    anybody: APIClient, event: Event, hidden: dict[str, Any]
) -> None:
    now = timezone.now()
    fields = {k: now + v if isinstance(v, timedelta) else v for k, v in hidden.items()}
    offer = OfferFactory(event=event, **fields)

    assert titles(anybody.get(OFFERS, {"event": event.slug})) == set()
    assert anybody.get(url(offer)).json()["is_available"] is False


def test_offer_within_its_window_is_listed(anybody: APIClient, event: Event) -> None:
    now = timezone.now()
    offer = OfferFactory(event=event, starts_at=now + YESTERDAY, expires_at=now + TOMORROW)
    unlimited = OfferFactory(event=event, inventory_total=None)
    OfferFactory()  # of another event
    listed = anybody.get(OFFERS, {"event": event.slug})
    assert titles(listed) == {offer.title, unlimited.title}
    assert all(offer["is_available"] for offer in listed.json()["results"])


def test_offer_whose_last_units_are_held_or_sold_is_not_listed(
    anybody: APIClient, event: Event
) -> None:
    offer = OfferFactory(event=event, inventory_total=3)
    PurchaseFactory(offer=offer, quantity=1, status=Status.PAID)
    assert titles(anybody.get(OFFERS, {"event": event.slug})) == {offer.title}
    PurchaseFactory(offer=offer, quantity=2, status=Status.AWAITING_PAYMENT)
    assert titles(anybody.get(OFFERS, {"event": event.slug})) == set()


def test_list_shows_each_caller_what_their_ticket_allows(client_of: Clients, event: Event) -> None:
    standard, vip = TicketTierFactory.create_batch(2, event=event)
    workshop, keynote = EventSessionFactory.create_batch(2, event=event)
    OfferFactory(event=event, title="all")
    for_vip, for_workshop, for_either = (
        OfferFactory(event=event, title=title) for title in ("vip", "workshop", "either")
    )
    for_vip.target_ticket_tiers.add(vip)
    for_workshop.target_sessions.add(workshop)
    for_either.target_ticket_tiers.add(standard, vip)
    at_keynote = RegistrationFactory(event=event, ticket_tier=standard)
    at_keynote.sessions.add(keynote)
    at_workshop = RegistrationFactory(event=event, ticket_tier=vip)
    at_workshop.sessions.add(workshop)
    everywhere = RegistrationFactory(event=event, ticket_tier=standard)

    def seen(user: Any) -> set[str]:
        return titles(client_of(user).get(OFFERS, {"event": event.slug}))

    assert seen(None) == {"all"}
    assert seen(UserFactory()) == {"all"}
    assert seen(at_keynote.user) == {"all", "either"}
    assert seen(at_workshop.user) == {"all", "vip", "workshop", "either"}
    assert seen(everywhere.user) == {"all", "workshop", "either"}


def test_placement_narrows_the_list(anybody: APIClient, event: Event) -> None:
    for placement in Offer.Placement.values:
        OfferFactory(event=event, title=placement, placement=placement)
    for placement in Offer.Placement.values:
        query = {"event": event.slug, "placement": placement}
        assert titles(anybody.get(OFFERS, query)) == {placement}
    assert len(titles(anybody.get(OFFERS, {"event": event.slug}))) == 4


@pytest.mark.parametrize("wrong", ["NOWHERE", "in_event", "a\x00"])
def test_placement_that_does_not_exist_is_a_field_error(
    anybody: APIClient, event: Event, wrong: str
) -> None:
    answer = anybody.get(OFFERS, {"event": event.slug, "placement": wrong})
    assert (answer.status_code, errors(answer)) == (400, {"placement": "invalid_choice"})


def test_session_narrows_the_list_to_its_page(client_of: Clients, event: Event) -> None:
    workshop, keynote = (EventSessionFactory(event=event, slug=s) for s in ("workshop", "keynote"))
    OfferFactory(event=event, title="everywhere")
    OfferFactory(event=event, title="workshop").target_sessions.add(workshop)
    OfferFactory(event=event, title="both").target_sessions.add(workshop, keynote)
    client = client_of(RegistrationFactory(event=event).user)

    def at(session: str) -> set[str]:
        return titles(client.get(OFFERS, {"event": event.slug, "session": session}))

    assert at("workshop") == {"everywhere", "workshop", "both"}
    assert at("keynote") == {"everywhere", "both"}


def test_session_of_another_event_is_a_field_error(anybody: APIClient, event: Event) -> None:
    elsewhere = EventSessionFactory()
    for wrong in (elsewhere.slug, "a b", "nowhere"):
        answer = anybody.get(OFFERS, {"event": event.slug, "session": wrong})
        assert (answer.status_code, errors(answer)) == (400, {"session": "invalid"})


# -- Pages ----------------------------------------------------------------------------------------


def test_pages_are_50_long_and_lead_forth_and_back(anybody: APIClient, event: Event) -> None:
    OfferFactory.create_batch(60, event=event)
    newest_first = [str(offer.pk) for offer in Offer.objects.order_by("-created_at")]

    first = anybody.get(OFFERS, {"event": event.slug}).json()
    second = anybody.get(first["next"]).json()

    assert set(first) == {"next", "previous", "results"}
    assert first["previous"] is None
    assert [offer["id"] for offer in first["results"]] == newest_first[:50]
    assert [offer["id"] for offer in second["results"]] == newest_first[50:]
    assert second["next"] is None
    back = anybody.get(second["previous"]).json()
    assert [offer["id"] for offer in back["results"]] == newest_first[:50]


@pytest.mark.parametrize(("asked", "given"), [("1", 1), ("7", 7), ("0", 50), ("x", 50), ("-3", 50)])
def test_page_size_is_the_callers_choice(
    anybody: APIClient, event: Event, asked: str, given: int
) -> None:
    Offer.objects.bulk_create(OfferFactory.build_batch(51, event=event))
    page = anybody.get(OFFERS, {"event": event.slug, "page_size": asked}).json()
    assert len(page["results"]) == given


def test_page_size_ends_at_200_and_offers_of_one_moment_are_all_shown(
    anybody: APIClient, event: Event
) -> None:
    Offer.objects.bulk_create(OfferFactory.build_batch(230, event=event))
    Offer.objects.update(created_at=timezone.now())

    page = anybody.get(OFFERS, {"event": event.slug, "page_size": 500}).json()
    rest = anybody.get(page["next"]).json()

    assert len(page["results"]) == 200
    seen = {offer["id"] for offer in page["results"]} | {offer["id"] for offer in rest["results"]}
    assert len(seen) == 230


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense", "p=yesterday", "p=a\x00", "p=2026-01-01", "p=99999-01-01T00:00+00:00", "o=x",
        "p=2026-01-01T00:00%2B23:00", "p=2026-01-01T00:00-16:00",
    ],
)  # fmt: skip
def test_forged_cursor_is_not_found(client_of: Clients, event: Event, cursor: str) -> None:
    OfferFactory(event=event)
    forged = base64.b64encode(cursor.encode()).decode() if "=" in cursor else cursor
    client = client_of(UserFactory())
    for path in (f"{OFFERS}?event={event.slug}", "/api/v1/purchases/?"):
        answer = client.get(f"{path}&cursor={forged}")
        assert (answer.status_code, code(answer)) == (404, "not_found")


@pytest.mark.parametrize("moment", ["2026-W01-1T00:00:00%2B00:00", "20260101T000000,5%2B15:59"])
def test_cursor_is_understood_as_python_writes_time(
    client_of: Clients, event: Event, moment: str
) -> None:
    """Of which PostgreSQL reads less."""
    OfferFactory(event=event)
    cursor = base64.b64encode(f"p={moment}".encode()).decode()
    client = client_of(UserFactory())
    for path in (f"{OFFERS}?event={event.slug}", "/api/v1/purchases/?"):
        answer = client.get(f"{path}&cursor={cursor}")
        assert (answer.status_code, answer.json()["results"]) == (200, [])


def test_forged_cursor_of_the_events_is_not_found(anybody: APIClient, event: Event) -> None:
    forged = base64.b64encode(b"p=a\x00").decode()
    assert anybody.get(f"{EVENTS}?cursor={forged}").status_code == 404


def queries_of(client: APIClient, query: dict[str, Any]) -> tuple[int, int]:
    """How many statements one page takes, and how many offers it shows."""
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(OFFERS, query)
    return len(queries), len(answer.json()["results"])


def many_offers(event: Event, number: int) -> None:
    """Every tenth for a tier, every seventh for a session: of 1,000 as of 10 there are some."""
    made = Offer.objects.bulk_create(OfferFactory.build_batch(number, event=event))
    tier, session = event.ticket_tiers.first(), event.sessions.first()
    Offer.target_ticket_tiers.through.objects.bulk_create(
        [Offer.target_ticket_tiers.through(offer=o, tickettier=tier) for o in made[::10]]
    )
    Offer.target_sessions.through.objects.bulk_create(
        [Offer.target_sessions.through(offer=o, eventsession=session) for o in made[::7]]
    )


def test_a_thousand_offers_take_as_many_queries_as_ten(client_of: Clients) -> None:
    few, many = EventFactory(), EventFactory()
    clients = []
    for event, number in ((few, 10), (many, 1_000)):
        EventSessionFactory(event=event)
        clients.append(client_of(RegistrationFactory(event=event).user))
        many_offers(event, number)

    queries, shown = queries_of(clients[0], {"event": few.slug, "page_size": 200})
    assert shown == 10
    assert queries <= 10
    assert queries_of(clients[1], {"event": many.slug, "page_size": 200}) == (queries, 200)


# -- One offer ------------------------------------------------------------------------------------


def test_one_offer_has_the_contracts_fields(anybody: APIClient, event: Event) -> None:
    tier, session = TicketTierFactory(event=event), EventSessionFactory(event=event)
    offer = OfferFactory(
        event=event,
        inventory_total=10,
        original_price=Decimal(60),
        image_url="https://example.org/shirt.png",
    )
    offer.target_ticket_tiers.add(tier)
    offer.target_sessions.add(session)
    PurchaseFactory(offer=offer, quantity=3)
    PurchaseFactory(offer=offer, quantity=2, status=Status.PAID)

    shown = anybody.get(url(offer)).json()

    assert set(shown) >= OFFER_FIELDS
    assert shown["id"] == str(offer.pk)
    assert shown["event"] == event.slug
    assert shown["inventory"] == {"total": 10, "available": 5, "reserved": 3, "sold": 2}
    assert shown["target_ticket_tiers"] == [tier.slug]
    assert shown["target_sessions"] == [session.slug]
    assert (shown["price"], shown["original_price"], shown["currency"]) == ("50.00", "60.00", "USD")
    assert shown["created_at"].endswith("Z")
    assert "inventory_total" not in shown
    assert not [field for field in shown if "stripe" in field]


def test_unlimited_offer_has_no_total_and_nothing_is_left_to_count(anybody: APIClient) -> None:
    offer = OfferFactory(inventory_total=None)
    PurchaseFactory(offer=offer, quantity=7)
    shown = anybody.get(url(offer)).json()
    assert shown["inventory"] == {"total": None, "available": None, "reserved": 7, "sold": 0}
    availability = anybody.get(f"{url(offer)}availability/", {"quantity": 20}).json()
    assert availability == {"available": True, "reason": None, "inventory_available": None}


@pytest.mark.parametrize("unknown", [uuid.uuid4(), "7", "x" * 300])
def test_unknown_offer_is_not_found(anybody: APIClient, unknown: Any) -> None:
    for path in ("", "availability/"):
        assert anybody.get(f"{OFFERS}{unknown}/{path}").status_code == 404


@pytest.mark.parametrize(
    ("price", "original", "currency", "shown"),
    [
        ("50", "75.5", "USD", ("50.00", "75.50")),
        ("500", "900", "JPY", ("500", "900")),
        ("1.25", None, "KWD", ("1.250", None)),
        ("2000", None, "ISK", ("2000", None)),
        ("0", None, "USD", ("0.00", None)),
        ("0", None, "JPY", ("0", None)),
    ],
)
def test_money_is_written_with_the_currencys_own_digits(
    anybody: APIClient, price: str, original: str | None, currency: str, shown: tuple[Any, Any]
) -> None:
    offer = OfferFactory(
        price=Decimal(price), original_price=original and Decimal(original), currency=currency
    )
    one = anybody.get(url(offer)).json()
    listed = anybody.get(OFFERS, {"event": offer.event.slug}).json()["results"][0]
    assert (one["price"], one["original_price"], one["currency"]) == (*shown, currency)
    assert listed == one


# -- Availability ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, (True, None)),
        ({"quantity": 2}, (True, None)),
        ({"quantity": 3}, (False, "insufficient_inventory")),
    ],
    ids=str,
)
def test_availability_depends_on_how_many_are_wanted(
    anybody: APIClient, query: dict[str, int], expected: tuple[bool, str | None]
) -> None:
    offer = OfferFactory(inventory_total=5)
    PurchaseFactory(offer=offer, quantity=3)
    answer = anybody.get(f"{url(offer)}availability/", query).json()
    assert answer == dict(
        zip(("available", "reason"), expected, strict=True), inventory_available=2
    )


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "1.5", "1_0", "1e0", "٢"])
def test_availability_of_a_quantity_that_makes_no_sense_is_a_field_error(
    anybody: APIClient, wrong: str
) -> None:
    answer = anybody.get(f"{url(OfferFactory())}availability/", {"quantity": wrong})
    assert answer.status_code == 400
    assert set(errors(answer)) == {"quantity"}


def test_availability_knows_who_asks(client_of: Clients, event: Event) -> None:
    tier = TicketTierFactory(event=event)
    offer = OfferFactory(event=event)
    offer.target_ticket_tiers.add(tier)

    def reason(user: Any) -> str | None:
        return client_of(user).get(f"{url(offer)}availability/").json()["reason"]

    assert reason(None) == "not_eligible"
    assert reason(UserFactory()) == "not_eligible"
    assert reason(RegistrationFactory(event=event).user) == "not_eligible"
    assert reason(RegistrationFactory(event=event, ticket_tier=tier).user) is None


def test_availability_at_a_private_event_asks_for_a_registration(client_of: Clients) -> None:
    private = EventFactory(is_public=False)
    member = MembershipFactory(organization=private.organization).user
    answer = client_of(member).get(f"{url(OfferFactory(event=private))}availability/").json()
    assert (answer["available"], answer["reason"]) == (False, "not_registered")


# -- Making one -----------------------------------------------------------------------------------


def new_offer(event: Event, **fields: Any) -> dict[str, Any]:
    return {
        "event": event.slug,
        "title": "A mug",
        "offer_type": "MERCHANDISE",
        "price": "12.50",
        "currency": "USD",
        "inventory_total": 100,
    } | fields


def test_member_makes_an_offer_and_it_is_on_sale_at_once(
    client_of: Clients, member: APIClient, event: Event
) -> None:
    tier, session = TicketTierFactory(event=event), EventSessionFactory(event=event)
    later = timezone.now() + TOMORROW
    wanted = new_offer(
        event,
        description="With a handle.",
        original_price="15.00",
        image_url="https://example.org/mug.png",
        placement="CHECKOUT",
        max_per_user=2,
        target_ticket_tiers=[tier.slug],
        target_sessions=[session.slug],
        expires_at=later.isoformat(),
    )

    answer = member.post(OFFERS, wanted)

    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert set(made) >= OFFER_FIELDS
    for field in set(wanted) - {"inventory_total", "expires_at"}:
        assert made[field] == wanted[field]
    assert made["inventory"] == {"total": 100, "available": 100, "reserved": 0, "sold": 0}
    assert made["is_available"] is True
    buyer = client_of(RegistrationFactory(event=event, ticket_tier=tier).user)
    assert titles(buyer.get(OFFERS, {"event": event.slug})) == {"A mug"}


def test_offer_without_a_total_is_unlimited(member: APIClient, event: Event) -> None:
    wanted = new_offer(event)
    del wanted["inventory_total"]
    assert member.post(OFFERS, wanted).json()["inventory"]["total"] is None
    made = member.post(OFFERS, new_offer(event, inventory_total=None)).json()
    assert made["inventory"]["total"] is None


def test_inactive_offer_is_kept_back(member: APIClient, anybody: APIClient, event: Event) -> None:
    assert member.post(OFFERS, new_offer(event, is_active=False)).status_code == 201
    assert titles(anybody.get(OFFERS, {"event": event.slug})) == set()


def test_counters_and_what_the_server_decides_can_not_be_sent(
    member: APIClient, event: Event
) -> None:
    sent = {
        "id": str(uuid.uuid4()), "inventory_reserved": 5, "inventory_sold": 5,
        "inventory": {"total": 1, "sold": 9}, "is_archived": True, "is_available": False,
        "stripe_price_id": "price_x", "created_at": "2000-01-01T00:00:00Z",
    }  # fmt: skip

    made = member.post(OFFERS, new_offer(event, **sent)).json()
    changed = member.patch(f"{OFFERS}{made['id']}/", sent).json()

    for shown in (made, changed):
        assert shown["id"] != sent["id"]
        assert shown["inventory"] == {"total": 100, "available": 100, "reserved": 0, "sold": 0}
        assert shown["is_archived"] is False
        assert not shown["created_at"].startswith("2000")
    assert Offer.objects.get().stripe_price_id is None


WRONG = [
    pytest.param({"title": ""}, {"title": "blank"}, id="no title"),
    pytest.param({"title": "x" * 201}, {"title": "max_length"}, id="a long title"),
    pytest.param({"offer_type": "SHIRT"}, {"offer_type": "invalid_choice"}, id="unknown type"),
    pytest.param({"placement": "ROOF"}, {"placement": "invalid_choice"}, id="unknown placement"),
    pytest.param({"price": "-1"}, {"price": "min_value"}, id="negative price"),
    pytest.param({"price": "1e2"}, {"price": "invalid"}, id="price with an exponent"),
    pytest.param({"price": "5_0"}, {"price": "invalid"}, id="price as Python writes it"),
    pytest.param({"price": "0.49"}, {"price": "invalid"}, id="less than Stripe charges"),
    pytest.param({"price": "49", "currency": "JPY"}, {"price": "invalid"}, id="49 yen"),
    pytest.param({"price": "12.505"}, {"price": "invalid"}, id="a fraction of a cent"),
    pytest.param({"price": "99.5", "currency": "JPY"}, {"price": "invalid"}, id="half a yen"),
    pytest.param({"price": "1.251", "currency": "KWD"}, {"price": "invalid"}, id="a single fils"),
    pytest.param({"price": "1000000.00"}, {"price": "invalid"}, id="nine digits of cents"),
    pytest.param({"price": None}, {"price": "null"}, id="no price"),
    pytest.param({"price": "NaN"}, {"price": "invalid"}, id="not a number"),
    pytest.param({"price": "much"}, {"price": "invalid"}, id="a word as price"),
    pytest.param({"currency": "XXX"}, {"currency": "invalid"}, id="unknown currency"),
    pytest.param({"currency": "usd"}, {"currency": "invalid"}, id="currency in small letters"),
    pytest.param({"currency": "EURO"}, {"currency": "max_length"}, id="a long currency"),
    pytest.param(
        {"original_price": "12.49"}, {"original_price": "invalid"}, id="reduced to a higher price"
    ),
    pytest.param(
        {"original_price": "15.001"}, {"original_price": "invalid"}, id="original with a fraction"
    ),
    pytest.param({"max_per_user": 0}, {"max_per_user": "min_value"}, id="nobody may buy"),
    pytest.param({"max_per_user": -1}, {"max_per_user": "min_value"}, id="negative limit"),
    pytest.param({"max_per_user": 2**31}, {"max_per_user": "max_value"}, id="limit too large"),
    pytest.param({"inventory_total": -1}, {"inventory_total": "min_value"}, id="negative total"),
    pytest.param({"inventory_total": "1_0"}, {"inventory_total": "invalid"}, id="odd total"),
    pytest.param({"inventory_total": 2**31}, {"inventory_total": "max_value"}, id="huge total"),
    pytest.param({"inventory_total": "x"}, {"inventory_total": "invalid"}, id="a word as total"),
    pytest.param(
        {"starts_at": "2030-01-02T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"},
        {"expires_at": "invalid"},
        id="ends before it starts",
    ),
    pytest.param(
        {"starts_at": "2030-01-01T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"},
        {"expires_at": "invalid"},
        id="ends as it starts",
    ),
    pytest.param({"starts_at": "soon"}, {"starts_at": "invalid"}, id="no time"),
    pytest.param({"image_url": "javascript:x"}, {"image_url": "invalid"}, id="no address"),
    pytest.param(
        {"target_sessions": ["elsewhere"]}, {"target_sessions": "invalid"}, id="another's session"
    ),
    pytest.param(
        {"target_ticket_tiers": ["elsewhere"]}, {"target_ticket_tiers": "invalid"},
        id="another's tier",
    ),
    pytest.param({"target_sessions": "x"}, {"target_sessions": "not_a_list"}, id="no list"),
]  # fmt: skip


@pytest.fixture
def elsewhere() -> None:
    """Another event, which has a session and a tier of the name."""
    EventSessionFactory(slug="elsewhere")
    TicketTierFactory(slug="elsewhere")


def send(method: Callable[..., Any], path: str, body: dict[str, Any]) -> Any:
    """As JSON in plain ASCII, so that half of a character gets through the client."""
    return method(path, json.dumps(body), content_type="application/json")


@pytest.mark.parametrize(("wrong", "expected"), WRONG)
def test_offer_that_makes_no_sense_is_not_made(
    member: APIClient, event: Event, elsewhere: None, wrong: dict[str, Any], expected: Any
) -> None:
    answer = send(member.post, OFFERS, new_offer(event, **wrong))
    assert (answer.status_code, errors(answer)) == (400, expected)
    assert not Offer.objects.exists()


@pytest.mark.parametrize(("wrong", "expected"), WRONG)
def test_offer_is_not_changed_into_one_that_makes_no_sense(
    member: APIClient, event: Event, elsewhere: None, wrong: dict[str, Any], expected: Any
) -> None:
    offer = OfferFactory(event=event, price=Decimal("12.50"))
    before = Offer.objects.values().get()
    answer = send(member.patch, url(offer), wrong)
    assert (answer.status_code, errors(answer)) == (400, expected)
    assert Offer.objects.values().get() == before


@pytest.mark.parametrize(
    ("stored", "sent", "field"),
    [
        ({"expires_at": "2030-01-01T00:00Z"}, {"starts_at": "2030-01-02T00:00Z"}, "expires_at"),
        ({"original_price": Decimal(60)}, {"price": "70"}, "original_price"),
        ({"price": Decimal("50.50")}, {"currency": "JPY"}, "price"),
        ({"price": Decimal(40)}, {"currency": "JPY"}, "price"),
    ],
    ids=["window", "original price", "digits", "minimum"],
)
def test_change_is_checked_together_with_what_stays(
    member: APIClient, event: Event, stored: dict[str, Any], sent: dict[str, Any], field: str
) -> None:
    offer = OfferFactory(event=event, **stored)
    answer = member.patch(url(offer), sent)
    assert (answer.status_code, errors(answer)) == (400, {field: "invalid"})


@pytest.mark.parametrize("field", ["event", "title", "offer_type", "price"])
def test_field_without_which_there_is_no_offer_is_required(
    member: APIClient, event: Event, field: str
) -> None:
    wanted = new_offer(event)
    del wanted[field]
    answer = member.post(OFFERS, wanted)
    assert (answer.status_code, errors(answer)) == (400, {field: "required"})


@pytest.mark.parametrize("wrong", ["nowhere", "a b", "a\x00", "", None, 7.5, [], {}])
def test_event_that_is_not_there_is_a_field_error(
    member: APIClient, event: Event, wrong: Any
) -> None:
    answer = send(member.post, OFFERS, new_offer(event) | {"event": wrong})
    assert answer.status_code == 400, answer.content
    assert set(errors(answer)) == {"event"}


# -- Who may --------------------------------------------------------------------------------------


def attempts(client: APIClient, offer: Offer) -> list[Any]:
    """The three ways to change something, each with a body that a member could send."""
    return [
        client.post(OFFERS, new_offer(offer.event)),
        client.patch(url(offer), {"title": "Mine"}),
        client.delete(url(offer)),
    ]


def assert_untouched(offer: Offer) -> None:
    title = offer.title
    offer.refresh_from_db()
    assert (offer.title, offer.is_archived) == (title, False)
    assert Offer.objects.count() == 1


def test_strangers_have_to_log_in_to_change_offers(anybody: APIClient, event: Event) -> None:
    offer = OfferFactory(event=event)
    for answer in attempts(anybody, offer):
        assert (answer.status_code, code(answer)) == (401, "not_authenticated")
    assert_untouched(offer)


def test_attendees_and_rivals_may_not_change_offers(client_of: Clients, event: Event) -> None:
    offer = OfferFactory(event=event)
    attendee = RegistrationFactory(event=event).user
    rival = MembershipFactory(role=Membership.Role.OWNER).user
    for user in (attendee, rival, UserFactory()):
        for answer in attempts(client_of(user), offer):
            assert (answer.status_code, code(answer)) == (403, "permission_denied")
    assert_untouched(offer)


def test_rivals_do_not_learn_of_a_private_event(client_of: Clients) -> None:
    offer = OfferFactory(event__is_public=False)
    made, changed, deleted = attempts(client_of(MembershipFactory().user), offer)
    unknown = client_of(MembershipFactory().user).post(
        OFFERS, new_offer(offer.event) | {"event": "nowhere"}
    )
    assert (made.status_code, errors(made)) == (400, {"event": "does_not_exist"})
    assert errors(unknown) == errors(made)
    assert (changed.status_code, deleted.status_code) == (404, 404)
    assert_untouched(offer)


def test_attendee_of_a_private_event_may_not_change_its_offers(client_of: Clients) -> None:
    offer = OfferFactory(event__is_public=False)
    attendee = RegistrationFactory(event=offer.event).user
    for answer in attempts(client_of(attendee), offer):
        assert (answer.status_code, code(answer)) == (403, "permission_denied")
    assert_untouched(offer)


@pytest.mark.parametrize("role", Membership.Role.values)
def test_every_member_manages_offers_of_all_events_of_the_organization(
    client_of: Clients, role: str
) -> None:
    organization = OrganizationFactory()
    client = client_of(MembershipFactory(organization=organization, role=role).user)
    for is_public in (True, False):
        offer = OfferFactory(event=EventFactory(organization=organization, is_public=is_public))
        statuses = [answer.status_code for answer in attempts(client, offer)]
        assert statuses == [201, 200, 204]


def test_superuser_manages_every_offer(client_of: Clients) -> None:
    client = client_of(UserFactory(is_superuser=True))
    offer = OfferFactory(event__is_public=False)
    assert [answer.status_code for answer in attempts(client, offer)] == [201, 200, 204]


# -- Changing one ---------------------------------------------------------------------------------


def test_change_leaves_the_rest_as_it_was(member: APIClient, event: Event) -> None:
    tier = TicketTierFactory(event=event)
    offer = OfferFactory(event=event, max_per_user=3)
    offer.target_ticket_tiers.add(tier)
    before = member.get(url(offer)).json()

    after = member.patch(url(offer), {"title": "A new title"}).json()

    changed = {field for field in after if after[field] != before[field]}
    assert changed == {"title", "updated_at"}


def test_targets_are_replaced_and_cleared(member: APIClient, event: Event) -> None:
    one, two = TicketTierFactory.create_batch(2, event=event)
    offer = OfferFactory(event=event)
    for wanted in ([one.slug], [two.slug], [two.slug, two.slug], []):
        shown = member.patch(url(offer), {"target_ticket_tiers": wanted}).json()
        assert shown["target_ticket_tiers"] == list(dict.fromkeys(wanted))


def test_offer_does_not_move_to_another_event(member: APIClient, event: Event) -> None:
    offer = OfferFactory(event=event)
    other = EventFactory(organization=event.organization)
    answer = member.patch(url(offer), {"event": other.slug})
    assert (answer.status_code, errors(answer)) == (400, {"event": "invalid"})
    assert member.patch(url(offer), {"event": event.slug}).status_code == 200


@pytest.mark.parametrize("sent", [{"price": "49.99"}, {"currency": "EUR"}, {"price": "0"}], ids=str)
def test_price_stands_once_something_is_sold(
    member: APIClient, event: Event, sent: dict[str, str]
) -> None:
    offer = OfferFactory(event=event)
    PurchaseFactory(offer=offer, status=Status.PAID)
    answer = member.patch(url(offer), sent)
    assert (answer.status_code, errors(answer)) == (400, {"price": "price_locked"})
    offer.refresh_from_db()
    assert (offer.price, offer.currency) == (Decimal(50), "USD")


def test_price_that_stays_the_same_may_be_sent(member: APIClient, event: Event) -> None:
    offer = OfferFactory(event=event)
    PurchaseFactory(offer=offer, status=Status.PAID)
    assert member.patch(url(offer), {"price": "50", "title": "New"}).status_code == 200


def test_price_may_change_while_units_are_only_held(member: APIClient, event: Event) -> None:
    offer = OfferFactory(event=event)
    hold = PurchaseFactory(offer=offer)
    assert member.patch(url(offer), {"price": "60"}).json()["price"] == "60.00"
    hold.refresh_from_db()
    assert hold.total_price == 50  # what the buyer was shown


@pytest.mark.parametrize(("total", "status"), [(4, 400), (0, 400), (5, 200), (6, 200), (None, 200)])
def test_total_does_not_go_below_what_is_held_and_sold(
    member: APIClient, event: Event, total: int | None, status: int
) -> None:
    offer = OfferFactory(event=event, inventory_total=10)
    PurchaseFactory(offer=offer, quantity=3)
    PurchaseFactory(offer=offer, quantity=2, status=Status.PAID)

    answer = member.patch(url(offer), {"inventory_total": total, "title": "New"})

    assert answer.status_code == status
    offer.refresh_from_db()
    if status == 400:
        assert errors(answer) == {"inventory_total": "total_below_committed"}
        assert "5 units" in answer.json()["errors"][0]["detail"]
        assert offer.inventory_total == 10
        assert offer.title != "New"  # all of the change, or none of it
    else:
        assert offer.inventory_total == total
    assert counters(offer) == (3, 2)


def test_deleted_offer_is_archived_and_keeps_its_sales(
    member: APIClient, anybody: APIClient, event: Event
) -> None:
    offer = OfferFactory(event=event)
    PurchaseFactory(offer=offer, status=Status.PAID)

    answer = member.delete(url(offer))

    assert (answer.status_code, answer.content) == (204, b"")
    offer.refresh_from_db()
    assert offer.is_archived
    assert counters(offer) == (0, 1)
    assert titles(anybody.get(OFFERS, {"event": event.slug})) == set()
    assert anybody.get(url(offer)).json()["is_available"] is False
    assert member.delete(url(offer)).status_code == 204


def test_archived_offer_is_not_brought_back(member: APIClient, event: Event) -> None:
    offer = OfferFactory(event=event, is_archived=True)
    PurchaseFactory(offer=offer, quantity=2)
    sent = {"is_archived": False, "inventory_reserved": 0, "inventory_sold": 0, "is_active": True}
    assert member.patch(url(offer), sent).status_code == 200
    assert counters(offer) == (2, 0)
    assert offer.is_archived
    assert member.get(url(offer)).json()["is_available"] is False


@pytest.mark.parametrize("method", ["put", "post"])
def test_offer_is_not_replaced(member: APIClient, event: Event, method: str) -> None:
    answer = getattr(member, method)(url(OfferFactory(event=event)), new_offer(event))
    assert (answer.status_code, code(answer)) == (405, "method_not_allowed")


def while_the_row_is_held(
    offer: Offer, change: Callable[[], Any], meanwhile: Callable[[], Any]
) -> Any:
    """Start ``change`` in another thread, let it run into the lock, do ``meanwhile``, commit."""
    answers: list[Any] = []
    with transaction.atomic():
        inventory.lock(offer.pk)
        waiting = threading.Thread(target=lambda: answers.extend(at_once([change])))
        waiting.start()
        while not blocked_backends():
            assert waiting.is_alive(), answers
        meanwhile()
    waiting.join()
    return answers[0]


def sell(offer: Offer, quantity: int) -> Callable[[], Any]:
    return lambda: PurchaseFactory(offer=offer, quantity=quantity, status=Status.PAID)


def test_offer_that_was_read_before_a_sale_saves_no_old_counters(event: Event) -> None:
    PurchaseFactory(offer=OfferFactory(event=event, inventory_total=10), quantity=2)
    stale = Offer.objects.get()
    Offer.objects.update(inventory_total=20, stripe_price_id="price_1")
    PurchaseFactory(offer=Offer.objects.get(), quantity=3, status=Status.PAID)

    stale.title = "New"
    stale.save()

    assert counters(stale) == (2, 3)
    assert (stale.title, stale.inventory_total, stale.stripe_price_id) == ("New", 20, "price_1")


@pytest.mark.django_db(transaction=True)
def test_change_that_waits_for_a_sale_writes_no_old_counters_back(client_of: Clients) -> None:
    offer = OfferFactory(inventory_total=10)
    member = client_of(MembershipFactory(organization=offer.event.organization).user)

    answer = while_the_row_is_held(
        offer, lambda: member.patch(url(offer), {"title": "New"}), sell(offer, 4)
    )

    assert answer.status_code == 200, answer.content
    assert answer.json()["inventory"] == {"total": 10, "available": 6, "reserved": 0, "sold": 4}
    assert counters(offer) == (0, 4)
    assert offer.title == "New"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        ({"price": "60"}, {"price": "price_locked"}),
        ({"inventory_total": 3}, {"inventory_total": "total_below_committed"}),
    ],
    ids=["price", "total"],
)
def test_change_is_judged_by_what_was_sold_while_it_waited(
    client_of: Clients, sent: dict[str, Any], refused: dict[str, str]
) -> None:
    offer = OfferFactory(inventory_total=10)
    member = client_of(MembershipFactory(organization=offer.event.organization).user)

    answer = while_the_row_is_held(offer, lambda: member.patch(url(offer), sent), sell(offer, 4))

    assert (answer.status_code, errors(answer)) == (400, refused)
    assert counters(offer) == (0, 4)
    assert (offer.price, offer.inventory_total) == (50, 10)


@pytest.mark.django_db(transaction=True)
def test_archiving_overwrites_no_change_that_came_first(client_of: Clients) -> None:
    offer = OfferFactory(title="Old")
    member = client_of(MembershipFactory(organization=offer.event.organization).user)

    def change() -> None:
        Offer.objects.filter(pk=offer.pk).update(title="New", price=60)

    answer = while_the_row_is_held(offer, lambda: member.delete(url(offer)), change)

    assert answer.status_code == 204
    offer.refresh_from_db()
    assert (offer.is_archived, offer.title, offer.price) == (True, "New", 60)


# -- Events ---------------------------------------------------------------------------------------


def test_event_shows_its_sessions_and_tiers(anybody: APIClient, event: Event) -> None:
    session, tier = EventSessionFactory(event=event), TicketTierFactory(event=event)
    shown = anybody.get(f"{EVENTS}{event.slug}/").json()
    assert (shown["id"], shown["slug"], shown["title"]) == (str(event.pk), event.slug, event.title)
    assert shown["organization"] == event.organization.slug
    assert [s["slug"] for s in shown["sessions"]] == [session.slug]
    assert [t["slug"] for t in shown["ticket_tiers"]] == [tier.slug]


def test_events_are_seen_by_those_who_may(client_of: Clients, event: Event) -> None:
    private = EventFactory(is_public=False)
    attendee = RegistrationFactory(event=private).user
    member = MembershipFactory(organization=private.organization).user
    registered_elsewhere = RegistrationFactory(event=event).user

    for user in (None, UserFactory(), MembershipFactory().user, registered_elsewhere):
        client = client_of(user)
        listed = client.get(EVENTS).json()
        assert set(listed) == {"next", "previous", "results"}
        assert [e["slug"] for e in listed["results"]] == [event.slug]
        answer = client.get(f"{EVENTS}{private.slug}/")
        assert (answer.status_code, code(answer)) == (404, "not_found")
    for user in (attendee, member, UserFactory(is_superuser=True)):
        client = client_of(user)
        slugs = {e["slug"] for e in client.get(EVENTS).json()["results"]}
        assert slugs == {event.slug, private.slug}
        assert client.get(f"{EVENTS}{private.slug}/").status_code == 200


@pytest.mark.parametrize("slug", ["nowhere", "a%00b", "%ED%A0%80", "a%20b"])
def test_unknown_event_is_not_found(anybody: APIClient, slug: str) -> None:
    assert anybody.get(f"{EVENTS}{slug}/").status_code == 404


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_events_are_read_only(client_of: Clients, event: Event, method: str) -> None:
    client = client_of(UserFactory(is_superuser=True))
    path = EVENTS if method == "post" else f"{EVENTS}{event.slug}/"
    assert getattr(client, method)(path, {}).status_code == 405


def test_many_events_take_as_many_queries_as_one(anybody: APIClient) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert anybody.get(EVENTS).status_code == 200
        return len(captured)

    EventSessionFactory()
    few = queries()
    for event in EventFactory.create_batch(20):
        EventSessionFactory(event=event)
        TicketTierFactory(event=event)
    assert queries() == few


def test_type_is_locked_once_anything_is_sold_or_on_hold(client_of: Any) -> None:
    offer = OfferFactory(offer_type=Offer.Type.MERCHANDISE)
    owner = MembershipFactory(organization=offer.event.organization).user
    PurchaseFactory(offer=offer)
    answer = client_of(owner).patch(f"/api/v1/offers/{offer.pk}/", {"offer_type": "SERVICE"})
    assert (answer.status_code, code(answer)) == (400, "type_locked")
    offer.refresh_from_db()
    assert offer.offer_type == Offer.Type.MERCHANDISE
