"""Every status with every transition: done as the table says, or refused with nothing moved."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from offers.models import Offer
from purchases import transitions
from purchases.errors import HoldAlreadyResolved
from purchases.models import Purchase, PurchaseTransition
from purchases.states import (
    OCCUPIES,
    OPEN_CHECKOUT,
    OPEN_HOLDS,
    OWE_REFUND,
    PAY,
    PAY_LATE,
    REFUND,
    REFUND_RETURNED,
    RELEASE,
    TRANSITIONS,
    ReleaseReason,
    Status,
    Stock,
    Transition,
    state_diagram,
)
from tests.conftest import counters
from tests.factories import PATHS, OfferFactory, PurchaseFactory

pytestmark = pytest.mark.django_db

QUANTITY = 3
COUNTERS = {Stock.RESERVED: (QUANTITY, 0), Stock.SOLD: (0, QUANTITY), Stock.NONE: (0, 0)}
ALLOWED = [(s, t) for s, t in product(Status, TRANSITIONS) if s in t.sources]
REFUSED = [(s, t) for s, t in product(Status, TRANSITIONS) if s not in t.sources]

# The contract's table, once more: a change of `states.py` alone must not go unnoticed.
CONTRACT = {
    "reserved": Stock.RESERVED,
    "awaiting_payment": Stock.RESERVED,
    "payment_processing": Stock.RESERVED,
    "paid": Stock.SOLD,
    "refund_due": Stock.NONE,
    "refunding": Stock.SOLD,
    "refunded": Stock.NONE,
    "released": Stock.NONE,
}
MOVES = {
    ("reserved", "awaiting_payment"),
    ("reserved", "payment_processing"),
    ("awaiting_payment", "payment_processing"),
    ("reserved", "paid"),
    ("awaiting_payment", "paid"),
    ("payment_processing", "paid"),
    ("reserved", "released"),
    ("awaiting_payment", "released"),
    ("payment_processing", "released"),
    ("released", "paid"),
    ("released", "refund_due"),
    ("paid", "refunding"),
    ("refunding", "paid"),
    ("paid", "refunded"),
    ("refunding", "refunded"),
    ("refund_due", "refunded"),
    ("refunded", "refund_due"),
}


def name(value: Any) -> str:
    return value.name if isinstance(value, Transition) else str(value)


def facts(purchase: Purchase, step: Transition) -> dict[str, Any]:
    """The other fields that the table's constraints want written with this transition."""
    if step is OPEN_CHECKOUT:
        return {"checkout_session_id": "cs_test_matrix"}
    if step in (PAY, PAY_LATE, OWE_REFUND):
        return {"paid_at": purchase.created_at, "payment_intent_id": "pi_matrix"}
    if step is RELEASE:
        return {"release_reason": ReleaseReason.CANCELLED}
    if step is REFUND:
        return {"refunded_at": timezone.now(), "refunded_amount": purchase.total_price}
    if step is REFUND_RETURNED:
        return {"refunded_at": None, "refunded_amount": 0}
    return {}


def do(purchase: Purchase, step: Transition) -> Purchase:
    with transaction.atomic():
        return transitions.apply(
            transitions.lock(purchase.pk),
            step,
            now=timezone.now(),
            source="tests",
            reason="because",
            **facts(purchase, step),
        )


@pytest.fixture
def offer() -> Offer:
    return OfferFactory(inventory_total=10)


@pytest.mark.parametrize(("status", "step"), ALLOWED, ids=name)
def test_allowed_transition_moves_the_stock_and_is_written_down(
    offer: Offer, status: Status, step: Transition
) -> None:
    purchase = PurchaseFactory(offer=offer, quantity=QUANTITY, status=status)
    assert counters(offer) == COUNTERS[OCCUPIES[status]]
    written = PurchaseTransition.objects.count()

    changed = do(purchase, step)

    purchase.refresh_from_db()
    assert changed.status == purchase.status == step.target
    assert counters(offer) == COUNTERS[OCCUPIES[step.target]]
    assert PurchaseTransition.objects.count() == written + 1
    last = purchase.transitions.last()
    assert (last.name, last.from_status, last.to_status) == (step.name, status, step.target)
    assert (last.source, last.reason) == ("tests", "because")


@pytest.mark.parametrize(("status", "step"), REFUSED, ids=name)
def test_any_other_transition_is_refused_and_nothing_moves(
    offer: Offer, status: Status, step: Transition
) -> None:
    purchase = PurchaseFactory(offer=offer, quantity=QUANTITY, status=status)
    before = Purchase.objects.values().get()
    written = PurchaseTransition.objects.count()

    with pytest.raises(HoldAlreadyResolved, match=f"A purchase that is {status} can't") as refusal:
        do(purchase, step)

    assert refusal.value.status == status
    assert Purchase.objects.values().get() == before
    assert counters(offer) == COUNTERS[OCCUPIES[status]]
    assert PurchaseTransition.objects.count() == written


@pytest.mark.parametrize("status", Status)
def test_checkout_is_opened_by_one_statement_as_the_table_says(status: Status) -> None:
    """The one transition that needs no lock before it does what ``apply`` does."""
    now = timezone.now()
    session = {"session_id": "cs_test_1", "url": "https://x.example", "expires_at": now}
    one, other = PurchaseFactory.create_batch(
        2, status=status, created_at=now, reserved_until=now, checkout_failed_at=now
    )
    before = everything_of(one)
    with CaptureQueriesContext(connection) as asked:
        is_open = transitions.open_checkout(one, **session, now=now, source="tests")
    assert is_open == (status in OPEN_CHECKOUT.sources)
    assert len(asked) == is_open
    if not is_open:
        assert everything_of(one) == before
        return
    with transaction.atomic():
        transitions.apply(
            transitions.lock(other.pk), OPEN_CHECKOUT, now=now, source="tests",
            checkout_session_id="cs_test_2", checkout_url="https://x.example",
            checkout_expires_at=now, checkout_request=None, checkout_failed_at=None,
        )  # fmt: skip
    assert everything_of(one) == {**everything_of(other), "checkout_session_id": "cs_test_1"}
    assert one.__dict__ == Purchase.objects.get(pk=one.pk).__dict__ | {"_state": one._state}


def test_checkout_is_not_opened_for_a_hold_that_somebody_is_ending() -> None:
    now = timezone.now()
    purchase = PurchaseFactory(status=Status.RESERVED, ending_until=now + timedelta(seconds=1))
    session = {"session_id": "cs_test_1", "url": "https://x.example", "expires_at": now}
    before = everything_of(purchase)
    assert not transitions.open_checkout(purchase, **session, now=now, source="tests")
    assert everything_of(purchase) == before
    later = purchase.ending_until
    assert transitions.open_checkout(purchase, **session, now=later, source="tests")


def everything_of(purchase: Purchase) -> dict[str, Any]:
    """What is stored of a purchase and its transitions, but for what each has of its own."""
    stored = Purchase.objects.values().get(pk=purchase.pk)
    for own in ("id", "user_id", "offer_id", "event_id", "offer_title", "idempotency_key"):
        del stored[own]
    fields = ("name", "from_status", "to_status", "actor", "source", "reason")
    return stored | {"transitions": list(purchase.transitions.order_by("pk").values_list(*fields))}


def test_table_is_the_contracts() -> None:
    assert {status.value: stock for status, stock in OCCUPIES.items()} == CONTRACT
    moves = {(source.value, t.target.value) for t in TRANSITIONS for source in t.sources}
    assert moves == MOVES
    assert {reason.value for reason in ReleaseReason} == {
        "expired", "cancelled", "payment_failed", "provider_error", "staff",
    }  # fmt: skip
    assert {status.value for status in OPEN_HOLDS} == {"reserved", "awaiting_payment"}


def test_no_two_transitions_share_a_name() -> None:
    assert len({t.name for t in TRANSITIONS}) == len(TRANSITIONS)


def test_factory_reaches_every_status() -> None:
    assert set(PATHS) == set(Status)


def test_purchase_is_released_once_however_often_it_is_asked_for(offer: Offer) -> None:
    purchase = PurchaseFactory(offer=offer, quantity=QUANTITY, status=Status.AWAITING_PAYMENT)
    PurchaseFactory(offer=offer, quantity=QUANTITY)  # somebody else's units stay where they are

    do(purchase, RELEASE)
    for _ in range(2):
        with pytest.raises(HoldAlreadyResolved):
            do(purchase, RELEASE)

    assert counters(offer) == (QUANTITY, 0)


def test_purchase_is_not_paid_from_stock_that_somebody_else_has(offer: Offer) -> None:
    """A late payment that finds too little left moves nothing, not even a part."""
    late = PurchaseFactory(offer=offer, quantity=QUANTITY, status=Status.RELEASED)
    PurchaseFactory(offer=offer, quantity=8)

    with pytest.raises(Exception, match="Only 2 left"):
        do(late, PAY_LATE)

    late.refresh_from_db()
    assert late.status == Status.RELEASED
    assert counters(offer) == (8, 0)


def test_diagram_names_every_status_and_every_transition() -> None:
    lines = state_diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> reserved: hold" in lines
    for step in TRANSITIONS:
        for source in step.sources:
            assert f"    {source.value} --> {step.target.value}: {step.label}" in lines
    for status in Status:
        assert any(f" {status.value}" in line for line in lines)
    # Nothing is drawn as an end: a released purchase can be paid late, a refund can come back.
    assert not any(line.endswith("--> [*]") for line in lines)
