"""What can't be bought, and why: each refusal says so in its own code and holds nothing."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient
from waffle.models import Switch

from offers.models import Event, Membership, Offer
from purchases.models import Purchase, PurchaseTransition
from purchases.states import OCCUPIES, Status, Stock
from tests.conftest import at_once, buy, code, counters
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
reaches_stripe = pytest.mark.django_db(transaction=True)

PURCHASES = "/api/v1/purchases/"


def detail(answer: Any) -> str:
    return str(answer.json()["errors"][0]["detail"])


def assert_refused(answer: Any, status: int, expected: str, attr: str | None = None) -> None:
    """The status, and exactly one error of the contract's shape."""
    assert answer.status_code == status, answer.content
    body = answer.json()
    assert set(body) == {"type", "errors"}
    assert body["type"] == {400: "validation_error", 503: "server_error"}.get(
        status, "client_error"
    )
    (error,) = body["errors"]
    assert set(error) == {"code", "detail", "attr"}
    assert (error["code"], error["attr"]) == (expected, attr)
    assert error["detail"]


def assert_nothing_is_held(offer: Offer) -> None:
    assert counters(offer) == (0, 0)
    assert not Purchase.objects.exists()
    assert not PurchaseTransition.objects.exists()


@pytest.fixture
def offer() -> Offer:
    return OfferFactory(inventory_total=10)


@pytest.fixture
def attendee(client_of: Callable[..., APIClient]) -> APIClient:
    return client_of(UserFactory())


# -- The request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        pytest.param(0, "min_value", id="zero"),
        pytest.param(-1, "min_value", id="negative"),
        pytest.param(21, "max_value", id="above the maximum"),
        pytest.param(10**30, "max_value", id="astronomical"),
        pytest.param("abc", "invalid", id="a word"),
        pytest.param("", "invalid", id="empty"),
        pytest.param(1.5, "invalid", id="a fraction"),
        pytest.param("1_0", "invalid", id="Python's way to write ten"),
        pytest.param("1e1", "invalid", id="an exponent"),
        pytest.param("٥", "invalid", id="an Arabic digit"),
        pytest.param(None, "null", id="null"),
        pytest.param(True, "invalid", id="a boolean"),
        pytest.param([1], "invalid", id="a list"),
        pytest.param({"units": 1}, "invalid", id="an object"),
        pytest.param("1" * 2_000, "max_string_length", id="2,000 digits"),
    ],
)
def test_quantity_that_makes_no_sense_is_a_field_error(
    attendee: APIClient, offer: Offer, quantity: Any, expected: str
) -> None:
    assert_refused(buy(attendee, offer, quantity), 400, expected, "quantity")
    assert_nothing_is_held(offer)


@pytest.mark.parametrize("wrong", ["7", "", "not-a-uuid", None, [], {}, -1, "a\x00b"])
def test_offer_id_of_an_unknown_format_is_a_field_error(attendee: APIClient, wrong: Any) -> None:
    answer = attendee.post(PURCHASES, {"offer": wrong, "quantity": 1})
    assert_refused(answer, 400, "null" if wrong is None else "invalid", "offer")


def test_offer_is_required(attendee: APIClient) -> None:
    assert_refused(attendee.post(PURCHASES, {"quantity": 1}), 400, "required", "offer")


def test_every_wrong_field_is_named(attendee: APIClient) -> None:
    answer = attendee.post(PURCHASES, {"offer": "x", "quantity": "y"})
    assert {error["attr"] for error in answer.json()["errors"]} == {"offer", "quantity"}


def test_offer_that_is_not_there_is_not_found(attendee: APIClient) -> None:
    answer = attendee.post(PURCHASES, {"offer": str(uuid.uuid4()), "quantity": 1})
    assert_refused(answer, 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("{", id="half an object"),
        pytest.param("", id="nothing"),
        pytest.param("offer=1", id="a form"),
        pytest.param('{"quantity": NaN}', id="not a number"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param("[" * 100_000, id="very deep"),
        pytest.param('{"offer": "\\ud800", "quantity": 1}', id="half a surrogate pair"),
    ],
)
def test_body_that_is_not_json_is_a_bad_request(attendee: APIClient, body: Any) -> None:
    answer = attendee.post(PURCHASES, body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert answer.json()["errors"][0]["code"] in ("parse_error", "required")


@pytest.mark.parametrize(
    "body", ["[]", "[1, 2]", "1", '"buy"', "null", "true"], ids=lambda body: f"JSON {body}"
)
def test_json_that_is_no_object_is_a_bad_request(attendee: APIClient, body: str) -> None:
    answer = attendee.post(PURCHASES, body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert set(answer.json()) == {"type", "errors"}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_other_content_types_are_refused(
    attendee: APIClient, offer: Offer, content_type: str
) -> None:
    answer = attendee.post(PURCHASES, f"offer={offer.pk}&quantity=1", content_type=content_type)
    assert_refused(answer, 415, "unsupported_media_type")
    assert_nothing_is_held(offer)


@pytest.mark.parametrize("key", ["k" * 256, "k" * 5_000, "", "a\tb"], ids=len)
def test_key_that_can_not_be_kept_is_a_bad_request(
    attendee: APIClient, offer: Offer, key: str
) -> None:
    answer = attendee.post(PURCHASES, {"offer": offer.pk}, headers={"Idempotency-Key": key})
    assert_refused(answer, 400, "invalid", "Idempotency-Key")
    assert_nothing_is_held(offer)


@pytest.mark.parametrize("token", [None, "Basic dTpw", "Token abc"])
def test_nobody_buys_without_saying_who_they_are(
    client_of: Callable[..., APIClient], offer: Offer, token: str | None
) -> None:
    client = client_of(None)
    if token:
        client.credentials(HTTP_AUTHORIZATION=token)
    answer = buy(client, offer)
    assert_refused(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert_nothing_is_held(offer)


def test_token_that_is_not_valid_is_refused(
    client_of: Callable[..., APIClient], offer: Offer
) -> None:
    client = client_of(None)
    client.credentials(HTTP_AUTHORIZATION="Bearer not-a-token")
    answer = buy(client, offer)
    assert (answer.status_code, code(answer)) == (401, "not_authenticated")
    assert len(answer.json()["errors"]) == 1
    assert answer.headers["WWW-Authenticate"]
    assert_nothing_is_held(offer)


def test_the_purchase_list_is_for_those_who_log_in(client_of: Callable[..., APIClient]) -> None:
    assert_refused(client_of(None).get(PURCHASES), 401, "not_authenticated")


# -- The offer ------------------------------------------------------------------------------------

YESTERDAY, TOMORROW = timedelta(days=-1), timedelta(days=1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"is_archived": True}, "offer_archived", id="archived"),
        pytest.param({"is_active": False}, "offer_inactive", id="inactive"),
        pytest.param({"starts_at": TOMORROW}, "offer_not_started", id="not yet started"),
        pytest.param({"expires_at": YESTERDAY}, "offer_expired", id="expired"),
        pytest.param({"expires_at": timedelta()}, "offer_expired", id="expired just now"),
        pytest.param({"inventory_total": 0}, "sold_out", id="nothing in stock"),
        pytest.param(
            {"expires_at": YESTERDAY, "is_active": False},
            "offer_expired",
            id="expired and since deactivated by the sweep",
        ),
        pytest.param(
            {"is_archived": True, "expires_at": YESTERDAY, "inventory_total": 0},
            "offer_archived",
            id="archived before anything else",
        ),
    ],
)
def test_offer_that_is_not_on_sale_says_why(
    attendee: APIClient, fields: dict[str, Any], expected: str
) -> None:
    now = timezone.now()
    moments = {k: now + v if isinstance(v, timedelta) else v for k, v in fields.items()}
    offer = OfferFactory(**moments)

    assert_refused(buy(attendee, offer), 409, expected)

    assert_nothing_is_held(offer)
    availability = attendee.get(f"/api/v1/offers/{offer.pk}/availability/").json()
    assert (availability["available"], availability["reason"]) == (False, expected)


@pytest.mark.parametrize(("asked", "left"), [(4, 3), (20, 1)])
def test_more_than_is_left_is_refused_with_what_is_left(
    attendee: APIClient, asked: int, left: int
) -> None:
    offer = OfferFactory(inventory_total=left)
    answer = buy(attendee, offer, asked)
    assert_refused(answer, 409, "insufficient_inventory")
    assert f"Only {left} left" in detail(answer)
    assert_nothing_is_held(offer)


def test_units_on_hold_and_units_sold_are_not_left(attendee: APIClient, offer: Offer) -> None:
    PurchaseFactory(offer=offer, quantity=3, status=Status.AWAITING_PAYMENT)
    PurchaseFactory(offer=offer, quantity=4, status=Status.PAID)
    PurchaseFactory(offer=offer, quantity=2, status=Status.RELEASED)

    answer = buy(attendee, offer, 4)

    assert_refused(answer, 409, "insufficient_inventory")
    assert "Only 3 left" in detail(answer)
    assert counters(offer) == (3, 4)


def test_last_unit_on_hold_makes_the_offer_sold_out(attendee: APIClient) -> None:
    offer = OfferFactory(inventory_total=1)
    PurchaseFactory(offer=offer)
    assert_refused(buy(attendee, offer), 409, "sold_out")
    assert counters(offer) == (1, 0)


# -- The caller -----------------------------------------------------------------------------------


def test_offer_for_one_tier_is_for_that_tier(client_of: Callable[..., APIClient]) -> None:
    event = EventFactory()
    standard, vip = TicketTierFactory.create_batch(2, event=event)
    offer = OfferFactory(event=event, price=0)
    offer.target_ticket_tiers.add(vip)
    users = UserFactory.create_batch(3)
    RegistrationFactory(user=users[0], event=event, ticket_tier=standard)
    RegistrationFactory(user=users[1], event=event, ticket_tier=vip)

    standard_attendee, vip_attendee, unregistered = map(client_of, users)

    assert_refused(buy(standard_attendee, offer), 403, "not_eligible")
    assert_refused(buy(unregistered, offer), 403, "not_eligible")
    assert_nothing_is_held(offer)
    assert buy(vip_attendee, offer).status_code == 201


def test_offer_for_one_session_is_for_those_who_attend_it(
    client_of: Callable[..., APIClient],
) -> None:
    event = EventFactory()
    workshop, keynote = EventSessionFactory.create_batch(2, event=event)
    offer = OfferFactory(event=event, price=0)
    offer.target_sessions.add(workshop)
    elsewhere, there, everywhere = RegistrationFactory.create_batch(3, event=event)
    elsewhere.sessions.add(keynote)
    there.sessions.add(workshop, keynote)

    assert_refused(buy(client_of(elsewhere.user), offer), 403, "not_eligible")
    assert_refused(buy(client_of(UserFactory()), offer), 403, "not_eligible")
    assert_nothing_is_held(offer)
    assert buy(client_of(there.user), offer).status_code == 201
    assert buy(client_of(everywhere.user), offer).status_code == 201  # no list: every session


def test_both_targets_have_to_match(client_of: Callable[..., APIClient]) -> None:
    event = EventFactory()
    vip, workshop = TicketTierFactory(event=event), EventSessionFactory(event=event)
    offer = OfferFactory(event=event, price=0)
    offer.target_ticket_tiers.add(vip)
    offer.target_sessions.add(workshop)
    wrong_tier = RegistrationFactory(event=event)
    wrong_session = RegistrationFactory(event=event, ticket_tier=vip)
    wrong_session.sessions.add(EventSessionFactory(event=event))
    right = RegistrationFactory(event=event, ticket_tier=vip)

    for registration in (wrong_tier, wrong_session):
        assert_refused(buy(client_of(registration.user), offer), 403, "not_eligible")
    assert buy(client_of(right.user), offer).status_code == 201


def test_registration_for_another_event_does_not_count(client_of: Callable[..., APIClient]) -> None:
    offer = OfferFactory()
    offer.target_ticket_tiers.add(TicketTierFactory(event=offer.event))
    elsewhere = RegistrationFactory()
    assert_refused(buy(client_of(elsewhere.user), offer), 403, "not_eligible")


@pytest.fixture
def private_event() -> Event:
    return EventFactory(is_public=False)


def test_stranger_does_not_learn_of_a_private_event(
    client_of: Callable[..., APIClient], private_event: Event
) -> None:
    offer = OfferFactory(event=private_event)
    stranger = client_of(UserFactory())

    refused = buy(stranger, offer)

    assert_refused(refused, 404, "not_found")
    unknown = stranger.post(PURCHASES, {"offer": str(uuid.uuid4())})
    assert refused.json() == unknown.json()
    assert_nothing_is_held(offer)


@pytest.mark.parametrize("role", Membership.Role.values)
def test_member_who_is_not_registered_is_told_to_register(
    client_of: Callable[..., APIClient], private_event: Event, role: str
) -> None:
    offer = OfferFactory(event=private_event)
    member = MembershipFactory(organization=private_event.organization, role=role).user

    assert_refused(buy(client_of(member), offer), 403, "not_registered")

    assert_nothing_is_held(offer)


def test_member_of_another_organization_is_a_stranger(
    client_of: Callable[..., APIClient], private_event: Event
) -> None:
    offer = OfferFactory(event=private_event)
    assert_refused(buy(client_of(MembershipFactory().user), offer), 404, "not_found")


@reaches_stripe
def test_registered_attendee_buys_at_a_private_event(
    sandbox: Any, client_of: Callable[..., APIClient], private_event: Event
) -> None:
    offer = OfferFactory(event=private_event)
    attendee = RegistrationFactory(event=private_event).user
    assert buy(client_of(attendee), offer).status_code == 201
    assert counters(offer) == (1, 0)


@pytest.mark.parametrize("status", [Status.AWAITING_PAYMENT, Status.PAID, Status.RELEASED])
def test_purchase_of_somebody_else_is_not_there(
    client_of: Callable[..., APIClient], status: Status
) -> None:
    purchase = PurchaseFactory(status=status)
    stranger = client_of(UserFactory())
    owner = client_of(MembershipFactory(organization=purchase.event.organization).user)

    for client in (stranger, owner):
        assert_refused(client.get(f"{PURCHASES}{purchase.pk}/"), 404, "not_found")
        assert_refused(client.post(f"{PURCHASES}{purchase.pk}/cancel/"), 404, "not_found")
        assert client.get(PURCHASES).json()["results"] == []

    purchase.refresh_from_db()
    assert purchase.status == status


@pytest.mark.parametrize("method", ["get", "post"])
def test_purchase_id_that_is_none_is_not_found(attendee: APIClient, method: str) -> None:
    path = "" if method == "get" else "cancel/"
    for wrong in (uuid.uuid4(), "7", "x" * 300):
        assert getattr(attendee, method)(f"{PURCHASES}{wrong}/{path}").status_code == 404


# -- Limits ---------------------------------------------------------------------------------------


@reaches_stripe
def test_limit_per_attendee_counts_all_that_they_hold_and_own(
    sandbox: Any, client_of: Callable[..., APIClient]
) -> None:
    offer, user = OfferFactory(inventory_total=100, max_per_user=5), UserFactory()
    client = client_of(user)
    PurchaseFactory(offer=offer, user=user, quantity=2, status=Status.PAID)
    PurchaseFactory(offer=offer, user=user, quantity=2, status=Status.AWAITING_PAYMENT)
    PurchaseFactory(offer=offer, quantity=20, status=Status.PAID)  # somebody else's
    PurchaseFactory(user=user, quantity=5, status=Status.PAID)  # of another offer

    answer = buy(client, offer, 2)

    assert_refused(answer, 409, "purchase_limit_reached")
    assert "may buy 5" in detail(answer)
    assert "have 4" in detail(answer)
    assert counters(offer) == (2, 22)
    assert buy(client, offer, 1).status_code == 201
    assert_refused(buy(client, offer, 1), 409, "purchase_limit_reached")
    assert counters(offer) == (3, 22)


@pytest.mark.parametrize("status", list(Status), ids=str)
def test_what_was_given_back_does_not_count_against_the_limit(
    client_of: Callable[..., APIClient], status: Status
) -> None:
    offer, user = OfferFactory(max_per_user=2, price=0), UserFactory()
    PurchaseFactory(offer=offer, user=user, quantity=2, status=status)

    answer = buy(client_of(user), offer, 1)

    if OCCUPIES[status] is Stock.NONE:
        assert answer.status_code == 201
    else:
        assert_refused(answer, 409, "purchase_limit_reached")


def test_more_than_the_limit_at_once_is_refused(attendee: APIClient) -> None:
    offer = OfferFactory(max_per_user=2)
    assert_refused(buy(attendee, offer, 3), 409, "purchase_limit_reached")
    assert_nothing_is_held(offer)


def reason(client: APIClient, offer: Offer, quantity: int = 1) -> str | None:
    """What the question says a purchase would be refused with."""
    answer = client.get(f"/api/v1/offers/{offer.pk}/availability/", {"quantity": quantity}).json()
    assert answer["available"] is (answer["reason"] is None)
    return answer["reason"]


def test_availability_knows_what_the_caller_has_already(
    client_of: Callable[..., APIClient], settings: Any
) -> None:
    settings.MAX_OPEN_HOLDS_PER_USER = 2
    offer, user = OfferFactory(max_per_user=5), UserFactory()
    PurchaseFactory(offer=offer, user=user, quantity=2, status=Status.PAID)
    PurchaseFactory(offer=offer, user=user, quantity=2, status=Status.RESERVED)
    assert reason(client_of(user), offer) is None
    assert reason(client_of(user), offer, 2) == "purchase_limit_reached"
    for nobody_known in (client_of(UserFactory()), client_of(None)):
        assert reason(nobody_known, offer, 5) is None
        assert reason(nobody_known, offer, 6) == "purchase_limit_reached"
    PurchaseFactory(user=user, status=Status.RESERVED)
    assert reason(client_of(user), offer) == "too_many_open_holds"


@reaches_stripe
def test_open_holds_are_capped_per_attendee(
    sandbox: Any, client_of: Callable[..., APIClient]
) -> None:
    user, offer = UserFactory(), OfferFactory()
    client = client_of(user)
    holds = [buy(client, OfferFactory()).json()["id"] for _ in range(3)]

    answer = buy(client, offer)

    assert_refused(answer, 409, "too_many_open_holds")
    assert "3 unpaid" in detail(answer)
    assert counters(offer) == (0, 0)
    assert buy(client_of(UserFactory()), offer).status_code == 201
    assert client.post(f"{PURCHASES}{holds[0]}/cancel/").status_code == 200
    assert buy(client, offer).status_code == 201


@pytest.mark.parametrize("status", list(Status), ids=str)
def test_only_unpaid_holds_count_against_the_cap(
    client_of: Callable[..., APIClient], settings: Any, status: Status
) -> None:
    settings.MAX_OPEN_HOLDS_PER_USER = 1
    user, offer = UserFactory(), OfferFactory(price=0)
    PurchaseFactory(user=user, status=status)

    answer = buy(client_of(user), offer)

    if status in (Status.RESERVED, Status.AWAITING_PAYMENT):
        assert_refused(answer, 409, "too_many_open_holds")
        assert counters(offer) == (0, 0)
    else:
        assert answer.status_code == 201


def test_requests_beyond_the_rate_limit_are_told_when_to_come_back(
    attendee: APIClient, settings: Any
) -> None:
    settings.PURCHASE_RATE_LIMIT = "2/m"
    offer = OfferFactory(inventory_total=0)
    with time_machine.travel(timezone.now(), tick=False):  # all of it in one window
        for _ in range(2):
            assert_refused(buy(attendee, offer), 409, "sold_out")
        answer = buy(attendee, offer)
    assert_refused(answer, 429, "throttled")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


# -- The kill switch ------------------------------------------------------------------------------


def turn(state: str) -> None:
    """What an operator types; the cached answer of at most 2 s is dropped instead of waited for."""
    call_command("waffle_switch", "purchases", state)
    caches["switches"].clear()


@pytest.fixture
def switch() -> None:
    # The migration makes it; tests that truncate every table take it away.
    Switch.objects.get_or_create(name="purchases", defaults={"active": True})


@reaches_stripe
def test_switched_off_sales_refuse_new_purchases_and_finish_the_old(
    sandbox: Any, switch: None, client_of: Callable[..., APIClient]
) -> None:
    offer = OfferFactory(inventory_total=10)
    client = client_of(UserFactory())
    paid, cancelled = (buy(client, offer, key=key).json() for key in ("one", "two"))

    turn("off")

    answer = buy(client, offer, key="three")
    assert_refused(answer, 503, "purchases_disabled")
    assert int(answer.headers["Retry-After"]) > 0
    assert counters(offer) == (2, 0)
    assert buy(client, offer, key="one").json()["id"] == paid["id"]
    assert client.post(f"{PURCHASES}{cancelled['id']}/cancel/").status_code == 200
    sandbox.act(paid["checkout_session_id"], "pay")
    sandbox.deliver()
    assert counters(offer) == (0, 1)

    turn("on")
    assert buy(client, offer, key="three").status_code == 201  # 503 created nothing
    assert counters(offer) == (1, 1)


def test_switch_reaches_a_process_that_has_it_cached(
    switch: None, attendee: APIClient, offer: Offer
) -> None:
    """The cache lives in each process and for seconds, so that no message has to arrive."""
    backend = caches["switches"]
    assert backend.default_timeout <= 5
    assert "locmem" in type(backend).__module__
    turn("off")
    assert_refused(buy(attendee, offer), 503, "purchases_disabled")
    assert_nothing_is_held(offer)


def test_availability_says_that_nothing_is_sold_just_now(
    switch: None, attendee: APIClient, offer: Offer
) -> None:
    assert reason(attendee, offer) is None
    turn("off")
    assert reason(attendee, offer) == "purchases_disabled"


# -- Without the lock -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"inventory_total": 0}, "sold_out", id="sold out"),
        pytest.param({"inventory_total": 1}, "insufficient_inventory", id="too few left"),
        pytest.param({"is_archived": True}, "offer_archived", id="archived"),
        pytest.param({"is_active": False}, "offer_inactive", id="inactive"),
    ],
)
def test_refusal_that_needs_no_lock_takes_none(
    attendee: APIClient, fields: dict[str, Any], expected: str
) -> None:
    offer = OfferFactory(**fields)
    with CaptureQueriesContext(connection) as queries:
        assert_refused(buy(attendee, offer, 2), 409, expected)
    assert [q["sql"] for q in queries if " FOR " in q["sql"]] == []


def test_capturing_locks_would_show_one(attendee: APIClient) -> None:
    """The statement that the test above looks for is there when a purchase goes through."""
    offer = OfferFactory(price=0)
    with CaptureQueriesContext(connection) as queries:
        assert buy(attendee, offer).status_code == 201
    locking = [q["sql"] for q in queries if " FOR NO KEY UPDATE" in q["sql"]]
    assert [sql for sql in locking if '"offers_offer"' in sql]


@reaches_stripe
def test_sold_out_is_said_while_somebody_holds_the_row(client_of: Callable[..., APIClient]) -> None:
    """The row is really locked, in another connection, until after the answers are in."""
    sold_out, in_stock = OfferFactory(inventory_total=0), OfferFactory(inventory_total=1, price=0)
    users: list[User] = UserFactory.create_batch(4)

    def impatiently(client: APIClient, offer: Offer) -> Any:
        # Far below the time for which a waiting request would have to wait.
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        try:
            return buy(client, offer)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")

    with transaction.atomic():
        list(Offer.objects.select_for_update().order_by("pk"))
        answers = at_once(
            [lambda user=user: impatiently(client_of(user), sold_out) for user in users[:3]]
            + [lambda: impatiently(client_of(users[3]), in_stock)]
        )

    for answer in answers[:3]:
        assert_refused(answer, 409, "sold_out")
    # The same request for an offer with stock does need the row, and says that it was not had.
    assert_refused(answers[3], 503, "busy")
    assert int(answers[3].headers["Retry-After"]) > 0
    for offer in (sold_out, in_stock):
        assert_nothing_is_held(offer)
