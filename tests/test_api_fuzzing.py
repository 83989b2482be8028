"""The API held against its own OpenAPI schema, with data that fits it and data that doesn't.

schemathesis makes the requests; each is sent as nobody, as an attendee and as an organizer. The
seed is fixed, so a failure comes back; more examples: `API_FUZZING_EXAMPLES=500 pytest …`.
"""

import os
import zlib
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
import time_machine
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.parameters import ParameterLocation
from waffle.testutils import override_switch

from offers_project.wsgi import application
from purchases import checkout
from purchases.states import Status
from tests.booked_services import Service
from tests.conftest import Sandbox, counters
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

pytestmark = pytest.mark.django_db(transaction=True)

schema = schemathesis.openapi.from_wsgi(
    "/api/v1/schema/?format=json",
    application,
    config=schemathesis.Config.from_dict(
        {
            "seed": 20260,
            "generation": {
                "max-examples": int(os.environ.get("API_FUZZING_EXAMPLES", "12")),
                "deterministic": True,
                "database": "none",
            },
        }
    ),
)

load_all_checks()
NEGATIVE = CHECKS.get_one("negative_data_rejection")
# Rules that no schema can say make 400 of a body that fits it: a session is one of the event, a
# sale ends after it starts, a webhook is signed.
POSITIVE = CHECKS.get_one("positive_data_acceptance")


class World:
    """Something to buy and bought, and the three who call: nobody, a buyer, an organizer."""

    def __init__(self) -> None:
        self.event = EventFactory(slug="conf")
        EventSessionFactory(event=self.event, slug="keynote")
        self.buyer = UserFactory(username="buyer")
        self.organizer = UserFactory(username="organizer")
        MembershipFactory(user=self.organizer, organization=self.event.organization)
        RegistrationFactory(
            user=self.buyer,
            event=self.event,
            ticket_tier=TicketTierFactory(event=self.event, slug="vip"),
        )
        offers = [OfferFactory(event=self.event, inventory_total=None) for _ in range(8)]
        self.offers = [str(offer.pk) for offer in offers]
        self.purchases = [
            # One with a session that Stripe knows, for the cancel; the rest need none.
            str(started(self.buyer, offer).pk)
            if status == Status.AWAITING_PAYMENT
            else str(PurchaseFactory(user=self.buyer, offer=offer, status=status).pk)
            for status, offer in zip(Status, offers, strict=True)
        ]
        service = Service(event=self.event, inventory_total=None)
        self.slot = str(service.slot(capacity=1000).pk)
        self.purchases += [str(service.sold(user=self.buyer).pk) for _ in range(4)]
        self.refresh = str(RefreshToken.for_user(self.buyer))

    def callers(self, case: schemathesis.Case, seed: int) -> list[dict[str, str]]:
        """Who gets furthest with this request, and now and then the others too."""
        manages = case.path.startswith("/api/v1/offers/") and case.operation.method != "get"
        everybody = [bearer(self.organizer), bearer(self.buyer), {}]
        first = everybody.pop(0 if manages else 1)
        return [first, *everybody] if seed % 3 == 0 else [first]

    def real(self, name: str, path: str, seed: int) -> Any:
        """A value that exists, or one that keeps a request from failing for a dull reason."""
        ids = self.purchases if path.startswith("/api/v1/purchases/{id}") else self.offers
        return {
            "id": ids[seed % len(ids)],
            "offer": self.offers[seed % len(self.offers)],
            "slot": self.slot,
            "slug": "conf",
            "event": "conf",
            "session": "keynote",
            "username": "buyer",
            "password": "secret",
            "refresh": self.refresh,
            "price": "12.50",
            "original_price": None,
            "currency": "USD",
            "starts_at": None,
            "expires_at": None,
            "target_sessions": ["keynote"],
            "target_ticket_tiers": ["vip"],
        }[name]

    def put_real_values_in(self, case: schemathesis.Case) -> None:
        """Half of the time: with random ids and slugs a request gets no further than 404."""
        for location, values in (
            (ParameterLocation.PATH, case.path_parameters),
            (ParameterLocation.QUERY, case.query),
            (ParameterLocation.BODY, case.body),
        ):
            if not isinstance(values, dict) or case.meta.is_negative_at(location):
                continue
            seed = seed_of(values)
            if seed % 2:
                for name in values.keys() & REAL_NAMES:
                    values[name] = self.real(name, case.path, seed // 2)


REAL_NAMES = set(
    "id offer slot slug event session username password refresh price original_price currency "
    "starts_at expires_at target_sessions target_ticket_tiers".split()
)


def seed_of(values: Any) -> int:
    """Chance that is the same in every run, as Python's own hashes are not."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def started(user: Any, offer: Any) -> Any:
    return checkout.start(
        user=user,
        offer_id=offer.pk,
        quantity=1,
        idempotency_key=None,
        site_url="http://testserver",
        now=timezone.now(),
    ).purchase


def bearer(user: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {AccessToken.for_user(user)}"}


@pytest.fixture
def limits_out_of_the_way(settings: Any) -> None:
    settings.MAX_OPEN_HOLDS_PER_USER = 1_000_000
    for name in ("PURCHASE_RATE_LIMIT", "PURCHASE_RATE_LIMIT_IP"):
        setattr(settings, name, "1000000/m")
    for name in ("LOGIN_RATE_LIMIT", "LOGIN_RATE_LIMIT_IP"):
        setattr(settings, name, "1000000/m")


@pytest.fixture
def world(sandbox: Sandbox, limits_out_of_the_way: None) -> World:
    return World()


def excluded(case: schemathesis.Case) -> list[Any]:
    """Checks that can't hold for this request; see where they are named for the reasons."""
    page_size = (case.query or {}).get("page_size")
    # DRF takes its default for a page size that is no number.
    lenient = page_size is not None and not str(page_size).isdecimal()
    return [POSITIVE, NEGATIVE] if lenient or is_read_all_the_same(case) else [POSITIVE]


def is_read_all_the_same(case: schemathesis.Case) -> bool:
    """Whether one field has another scalar than the schema says: DRF reads 5 as "5", and back."""
    said = getattr(case.meta.phase.data, "description", None) or ""
    name, _, what = said.partition(": ")
    return (
        what == "Incorrect type"
        and isinstance(case.body, dict)
        and isinstance(case.body.get(name), str | int | float)
    )


@schema.parametrize()
@hypothesis_settings(
    # The world is made once for all requests of an operation: they share it, as real callers do.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
def test_every_answer_is_one_that_the_schema_has(case: schemathesis.Case, world: World) -> None:
    seed = seed_of((case.path_parameters, case.query, case.body))
    world.put_real_values_in(case)
    for headers in world.callers(case, seed):
        answer = case.call(headers=headers)
        case.validate_response(answer, headers=headers, excluded_checks=excluded(case))


# -- The refusals of the contract, each as the schema has it ---------------------------------------

PURCHASE = ("/api/v1/purchases/", "POST")
OFFER = ("/api/v1/offers/{id}/", "PATCH")


def buying(offer: Any, key: str | None = None, quantity: int = 1) -> dict[str, Any]:
    body = {"offer": str(offer.pk), "quantity": quantity}
    return {"body": body, "headers": {"Idempotency-Key": key} if key else {}}


def ask(operation: tuple[str, str], user: Any, **request: Any) -> tuple[int, str | None]:
    """Send one request and hold its answer against the schema: (status, code of the error)."""
    path, method = operation
    case = schema[path][method].Case(media_type="application/json", **request)
    headers = bearer(user) if user else {}
    answer = case.call(headers=headers)
    # Whether a refusal is documented is the question; that it is a 503 is meant.
    unasked = [POSITIVE, NEGATIVE, CHECKS.get_one("not_a_server_error")]
    case.validate_response(answer, headers=headers, excluded_checks=unasked)
    errors = answer.json().get("errors") if answer.content else None
    return answer.status_code, errors[0]["code"] if errors else None


@pytest.fixture
def buyer() -> Any:
    return UserFactory()


SLOTS = ("/api/v1/purchases/{id}/slots/", "GET")
BOOK = ("/api/v1/purchases/{id}/booking/", "POST")
CANCEL_BOOKING = ("/api/v1/purchases/{id}/booking/", "DELETE")


def test_refusals_around_a_booking_are_documented(buyer: Any) -> None:
    service = Service()
    purchase, late = service.sold(user=buyer), service.slot(hours=2)
    full, past, free = (service.slot(hours=hours) for hours in (50, -1, 60))
    service.pick(service.sold(), full)
    own: dict[str, Any] = {"path_parameters": {"id": str(purchase.pk)}}

    def book(slot: Any) -> tuple[int, str | None]:
        return ask(BOOK, buyer, body={"slot": str(slot)}, **own)

    assert book(full.pk) == (409, "slot_full")
    assert book(past.pk) == (409, "slot_past")
    assert book(purchase.pk) == (404, "slot_not_found")
    assert book("x") == (400, "invalid")
    assert ask(SLOTS, buyer, **own) == (200, None)
    assert ask(CANCEL_BOOKING, buyer, **own) == (200, None)
    assert book(late.pk) == (200, None)
    assert book(free.pk) == (409, "too_late_to_change")
    assert ask(CANCEL_BOOKING, buyer, **own) == (409, "too_late_to_change")
    for status, code in ((Status.PAID, "no_booking"), (Status.REFUNDING, "not_paid_for")):
        other = PurchaseFactory(user=buyer, status=status)
        own["path_parameters"] = {"id": str(other.pk)}
        assert book(free.pk) == (409, code)
        assert ask(SLOTS, buyer, **own) == (409, code)
        assert ask(CANCEL_BOOKING, buyer, **own) == (409, code)
    assert ask(BOOK, None, body={"slot": str(free.pk)}, **own) == (401, "not_authenticated")


SALES: list[tuple[dict[str, Any], int, tuple[int, str]]] = [
    ({"inventory_total": 0}, 1, (409, "sold_out")),
    ({"inventory_total": 1}, 2, (409, "insufficient_inventory")),
    ({"is_active": False}, 1, (409, "offer_inactive")),
    ({"is_archived": True}, 1, (409, "offer_archived")),
    ({"starts_at": timezone.now() + timedelta(days=1)}, 1, (409, "offer_not_started")),
    ({"expires_at": timezone.now() - timedelta(days=1)}, 1, (409, "offer_expired")),
    ({"max_per_user": 1}, 2, (409, "purchase_limit_reached")),
    ({"price": 90_000, "inventory_total": None}, 20, (400, "max_value")),
    ({}, 21, (400, "max_value")),
]


@pytest.mark.parametrize(
    ("offer", "quantity", "refusal"), SALES, ids=lambda value: str(value)[-30:]
)
def test_refused_purchase_is_documented(
    buyer: Any, offer: dict[str, Any], quantity: int, refusal: tuple[int, str]
) -> None:
    assert ask(PURCHASE, buyer, **buying(OfferFactory(**offer), quantity=quantity)) == refusal


def test_refusals_around_a_purchase_are_documented(
    sandbox: Sandbox, buyer: Any, settings: Any
) -> None:
    offer = OfferFactory()
    assert ask(PURCHASE, None, **buying(offer)) == (401, "not_authenticated")
    assert ask(PURCHASE, buyer, **buying(offer, "once")) == (201, None)
    assert ask(PURCHASE, buyer, **buying(offer, "once")) == (200, None)
    assert ask(PURCHASE, buyer, **buying(offer, "once", 2)) == (422, "idempotency_key_reused")
    assert ask(PURCHASE, buyer, **buying(offer, "é")) == (400, "invalid")

    elsewhere = OfferFactory(event=offer.event)
    elsewhere.target_ticket_tiers.add(TicketTierFactory(event=offer.event))
    assert ask(PURCHASE, buyer, **buying(elsewhere)) == (403, "not_eligible")

    with override_switch("purchases", active=False):
        assert ask(PURCHASE, buyer, **buying(offer)) == (503, "purchases_disabled")
    sandbox.faults(error_rate=1, error_status=500)
    assert ask(PURCHASE, buyer, **buying(offer)) == (503, "payment_provider_unavailable")
    sandbox.faults()

    settings.MAX_OPEN_HOLDS_PER_USER = 1
    settings.PURCHASE_RATE_LIMIT = "1/m"
    with time_machine.travel(timezone.now(), tick=False):  # both in one window
        assert ask(PURCHASE, buyer, **buying(offer)) == (409, "too_many_open_holds")
        assert ask(PURCHASE, buyer, **buying(offer)) == (429, "throttled")


def test_refusals_around_an_offer_and_a_cancel_are_documented(buyer: Any) -> None:
    sold = PurchaseFactory(user=buyer, status=Status.PAID)
    organizer = MembershipFactory(organization=sold.event.organization).user
    cancel = ("/api/v1/purchases/{id}/cancel/", "POST")
    this, that = {"id": str(sold.offer_id)}, {"id": str(sold.pk)}
    assert ask(cancel, buyer, path_parameters=that) == (409, "not_cancellable")
    assert ask(cancel, buyer, path_parameters=this) == (404, "not_found")
    assert ask(OFFER, buyer, path_parameters=this, body={}) == (403, "permission_denied")
    refused = ask(OFFER, organizer, path_parameters=this, body={"inventory_total": 0})
    assert refused == (400, "total_below_committed")
    refused = ask(OFFER, organizer, path_parameters=this, body={"price": "1.00"})
    assert refused == (400, "price_locked")
    token = ("/api/v1/auth/token/", "POST")
    refused = ask(token, None, body={"username": "nobody", "password": "wrong"})
    assert refused == (401, "no_active_account")
    assert counters(sold.offer) == (0, 1)
