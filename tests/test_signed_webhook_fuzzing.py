"""Webhooks that Stripe signed and that make no sense: refused, or kept without moving anything.

What can't be an event is a 400 and leaves nothing. What could be one is stored, and moves neither
money nor stock.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from django.db import transaction

from purchases.models import Purchase, StripeEvent
from purchases.states import Status
from tests.conftest import buy, counters
from tests.factories import OfferFactory, PurchaseFactory, UserFactory
from tests.test_webhook_fuzzing import COMPLETED, everything, post, refused, signed

pytestmark = pytest.mark.django_db(transaction=True)

State = StripeEvent.State


@pytest.fixture
def paid(sandbox: Any, client_of: Any) -> dict[str, Any]:
    """The event of a payment that we haven't heard of yet."""
    purchase = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    return sandbox.events(COMPLETED)[0]


class Raw:
    """JSON that Python would not write."""

    def __init__(self, text: str) -> None:
        self.text = text


def written(event: Any) -> bytes:
    """``event`` as JSON, with each ``Raw`` as it is."""
    raw: list[str] = []

    def mark(value: Any) -> str:
        raw.append(value.text)
        return f"@raw{len(raw) - 1}@"

    text = json.dumps(event, default=mark)
    for n, value in enumerate(raw):
        text = text.replace(f'"@raw{n}@"', value)
    return text.encode()


DEEP = Raw("[" * 5000 + "]" * 5000)
NEVER_STORED = [
    "\0",
    "a\0b",
    "\ud800",
    Raw("1e400"),
    Raw("-1e400"),
    Raw("NaN"),
    Raw("9" * 5000),
    DEEP,
]
NO_TEXT = [None, True, False, 0, -1, 1.5, [], ["evt_1"], {}, {"id": "evt_1"}]
NO_NUMBER = [None, True, False, "", "1", "0x10", [], [1], {}, 1.5]
TOO_FAR = [-1, -(10**12), 10**11, 10**18, 10**30, 10**400]

# Of the event itself: none of these can be one.
NO_EVENT: dict[str, list[Any]] = {
    "id": [*NO_TEXT, *NEVER_STORED, "", "x" * 256, "x" * 1000],
    "type": [*NO_TEXT, *NEVER_STORED, "", "x" * 101, "x" * 500],
    "created": [*NO_NUMBER, *NEVER_STORED, *TOO_FAR],
    "data": [None, True, 0, "", "text", [], [{}], {}, {"object": None}, {"object": []}],
    "api_version": NEVER_STORED,
    "unknown": NEVER_STORED,
}
# Of the session in it: signed by Stripe, so it is kept, but it must not be taken for a payment.
NO_PAYMENT: dict[str, list[Any]] = {
    "id": [*NO_TEXT, "", "x" * 256],
    "status": [*NO_TEXT, "", "x", "COMPLETE", "complete "],
    "payment_status": [*NO_TEXT, "", "x", "PAID", "paid ", "refunded"],
    "amount_total": [*NO_NUMBER, *TOO_FAR, "5000", [5000], {"value": 5000}, 4999, 5001],
    "currency": [*NO_TEXT, "", "x", "eur", "usdx", "\u0130"],
    "livemode": [None, True, 0, 1, "", "false", [], {}],
    "payment_intent": [True, 1, 1.5, ["pi_1"], {"object": 1}, {"id": None}, {"id": 5}, "x" * 256],
    "expires_at": [None, "", "1", [], {}, 10**18, 10**400],
    "client_reference_id": [True, 0, 1.5, [], ["x"], {}],
}
# What every handler gets to see at some time, in the place of what it expects.
NO_OBJECT: list[dict[str, Any]] = [
    {},
    {"id": None},
    {"id": 5, "object": 5, "payment_intent": 5, "amount": "5", "currency": 5, "status": 5},
    {"id": "x", "payment_intent": ["x"], "charge": {}, "metadata": [], "reason": {}, "status": []},
    {"id": "x", "payment_intent": "pi_of_nobody", "amount": -1, "currency": "usd", "created": 1},
    {"id": "x" * 1000, "payment_intent": "x" * 1000, "amount": 10**30, "currency": "x" * 99},
    {"id": "x", "metadata": {"purchase": {"a": [1]}, "refund": [], "offer": 5}, "livemode": "no"},
]
TYPES = [
    COMPLETED,
    "checkout.session.expired",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
]


def with_(event: dict[str, Any], name: str, **fields: Any) -> dict[str, Any]:
    """A copy of ``event`` with an id of its own and these fields."""
    return deepcopy(event) | {"id": name} | fields


def test_signed_json_that_can_be_no_event_is_refused_and_leaves_nothing(
    paid: dict[str, Any],
) -> None:
    before = everything()

    def answers() -> Iterator[tuple[str, Any]]:
        for field, values in NO_EVENT.items():
            for number, value in enumerate(values):
                body = written(with_(paid, f"evt_{field}_{number}", **{field: value}))
                yield f"{field}: {short(value)}", post(body, signed(body))
        for field in ("id", "type", "created", "data"):
            event = deepcopy(paid)
            del event[field]
            body = written(event)
            yield f"no {field}", post(body, signed(body))

    assert refused(answers()) == {}
    assert not StripeEvent.objects.exists()
    assert everything() == before


def short(value: Any) -> str:
    text = value.text if isinstance(value, Raw) else ascii(value)
    return text if len(text) < 40 else f"{text[:20]}… ({len(text)})"


def test_signed_event_with_an_odd_session_moves_nothing(paid: dict[str, Any]) -> None:
    before = everything()
    wrong = {}
    for field, values in NO_PAYMENT.items():
        for value in values:
            event = deepcopy(paid)
            event["data"]["object"][field] = value
            body = written(event)
            with transaction.atomic():
                answer = post(body, signed(body))
                if answer.status_code not in (200, 400):
                    wrong[f"{field}: {short(value)}"] = answer.status_code
                elif everything() != before:
                    wrong[f"{field}: {short(value)}"] = Purchase.objects.get().status
                transaction.set_rollback(True)
    assert wrong == {}


@pytest.mark.parametrize("type_", TYPES)
def test_signed_event_with_an_odd_object_moves_nothing(
    sandbox: Any, paid: dict[str, Any], type_: str
) -> None:
    before = everything()
    for number, odd in enumerate(NO_OBJECT):
        body = written(with_(paid, f"evt_{number}", type=type_, data={"object": odd}))
        assert post(body, signed(body)).status_code in (200, 400)
    assert everything() == before
    assert State.PROCESSED not in StripeEvent.objects.values_list("state", flat=True)


def test_signed_event_that_names_somebody_elses_purchase_moves_nothing_of_theirs(
    paid: dict[str, Any],
) -> None:
    """The session decides; the reference counts only while no purchase is known by the session."""
    other = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    paid["data"]["object"]["client_reference_id"] = str(other.pk)
    body = written(paid)
    assert post(body, signed(body)).status_code == 200
    other.refresh_from_db()
    assert other.status == Status.AWAITING_PAYMENT
    assert counters(other.offer) == (1, 0)
    assert Purchase.objects.exclude(pk=other.pk).get().status == Status.PAID


@pytest.mark.parametrize("reference", ["order-7", "0" * 36, "", None, "x" * 200])
def test_signed_payment_of_an_unknown_purchase_is_kept_and_moves_nothing(
    paid: dict[str, Any], reference: str | None
) -> None:
    before = everything()
    paid["data"]["object"] |= {"id": "cs_test_other", "client_reference_id": reference}
    body = written(paid)
    assert post(body, signed(body)).status_code == 200
    assert StripeEvent.objects.get().state == State.IGNORED
    assert everything() == before


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "open"},
        {"status": "expired", "payment_status": "paid"},
        {"status": "open", "payment_status": "unpaid"},
    ],
    ids=str,
)
def test_signed_event_whose_session_contradicts_itself_takes_no_payment(
    paid: dict[str, Any], odd: dict[str, Any]
) -> None:
    paid["data"]["object"] |= odd
    body = written(paid)
    assert post(body, signed(body)).status_code == 200
    assert Purchase.objects.get().status in (Status.AWAITING_PAYMENT, Status.RELEASED)
    assert counters(Purchase.objects.get().offer) in ((1, 0), (0, 0))


def test_repeated_key_counts_as_its_last_value(paid: dict[str, Any]) -> None:
    """As Python and PostgreSQL both read it, so what was checked is what is stored."""
    body = written(paid).replace(b'"id": "evt_', b'"id": "evt_first", "id": "evt_', 1)
    assert post(body, signed(body)).status_code == 200
    event = StripeEvent.objects.get()
    assert event.pk == event.payload["id"] == paid["id"]
