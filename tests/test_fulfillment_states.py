"""Every status of a fulfilment with every transition: done as the table says, or refused."""

from itertools import product
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from fulfillment import transitions
from fulfillment.errors import FulfillmentAlreadyResolved, FulfillmentNotFound, NotPaidFor
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.states import FULFILL, TRANSITIONS, Status, Transition, state_diagram
from purchases.states import Status as PurchaseStatus
from tests.factories import PurchaseFactory, make_fulfillment

pytestmark = pytest.mark.django_db

ALLOWED = [(s, t) for s, t in product(Status, TRANSITIONS) if s in t.sources]
REFUSED = [(s, t) for s, t in product(Status, TRANSITIONS) if s not in t.sources]

# Once more, so that a change of the table alone doesn't go unnoticed.
MOVES = {
    ("PROCESSING", "PENDING"),
    ("FAILED", "PROCESSING"),
    ("PENDING", "FULFILLED"),
    ("PROCESSING", "FULFILLED"),
    ("FAILED", "FULFILLED"),
    ("PENDING", "FAILED"),
    ("PROCESSING", "FAILED"),
    ("FULFILLED", "PROCESSING"),
    ("PENDING", "PENDING"),
    ("FAILED", "PENDING"),
    ("PENDING", "REVOKED"),
    ("PROCESSING", "REVOKED"),
    ("FULFILLED", "REVOKED"),
    ("FAILED", "REVOKED"),
}


def name(value: Any) -> str:
    return value.name if isinstance(value, Transition) else str(value)


def do(fulfillment: Fulfillment, step: Transition) -> Fulfillment:
    with transaction.atomic():
        return transitions.apply(
            transitions.lock(fulfillment.pk),
            step,
            now=timezone.now(),
            source="tests",
            reason="because",
        )


@pytest.mark.parametrize(("status", "step"), ALLOWED, ids=name)
def test_allowed_transition_is_done_and_written_down(status: Status, step: Transition) -> None:
    fulfillment = make_fulfillment(status=status)
    written = FulfillmentTransition.objects.count()

    do(fulfillment, step)

    fulfillment.refresh_from_db()
    assert fulfillment.status == step.target
    assert (fulfillment.fulfilled_at is not None) == (
        step.target == Status.FULFILLED or (status == Status.FULFILLED and step.name == "revoke")
    )
    assert (fulfillment.revoked_at is not None) == (step.target == Status.REVOKED)
    assert FulfillmentTransition.objects.count() == written + 1
    line = fulfillment.transitions.last()
    assert (line.from_status, line.to_status, line.name) == (status, step.target, step.name)
    assert (line.source, line.reason) == ("tests", "because")


@pytest.mark.parametrize(("status", "step"), REFUSED, ids=name)
def test_other_transition_is_refused_and_changes_nothing(status: Status, step: Transition) -> None:
    fulfillment = make_fulfillment(status=status)
    before = Fulfillment.objects.values().get(pk=fulfillment.pk)
    written = FulfillmentTransition.objects.count()

    with pytest.raises(FulfillmentAlreadyResolved, match=status):
        do(fulfillment, step)

    assert Fulfillment.objects.values().get(pk=fulfillment.pk) == before
    assert FulfillmentTransition.objects.count() == written


def test_table_allows_these_moves_and_no_others() -> None:
    assert {(s, t.target) for t in TRANSITIONS for s in t.sources} == MOVES


def test_nothing_follows_revoked() -> None:
    assert not [t for t in TRANSITIONS if Status.REVOKED in t.sources]


def test_nothing_is_fulfilled_while_its_money_is_on_the_way_back() -> None:
    fulfillment = make_fulfillment(PurchaseFactory(status=PurchaseStatus.REFUNDING))
    with pytest.raises(NotPaidFor):
        do(fulfillment, FULFILL)


def test_lock_refuses_a_fulfillment_that_is_not_there() -> None:
    with pytest.raises(FulfillmentNotFound), transaction.atomic():
        transitions.lock(PurchaseFactory().pk)


def test_fulfillment_is_not_saved_behind_the_table() -> None:
    with pytest.raises(TypeError, match="transitions"):
        make_fulfillment().save()


def test_diagram_has_a_line_for_each_move(capsys: pytest.CaptureFixture[str]) -> None:
    lines = state_diagram().splitlines()
    assert lines[1:3] == [
        "    [*] --> PENDING: paid",
        "    PENDING --> PROCESSING: a worker takes it",
    ]
    drawn = {tuple(line.strip().split(":")[0].split(" --> ")) for line in lines[3:]}
    assert drawn == {move for move in MOVES if move[0] != move[1]}
    call_command("state_diagram")
    assert state_diagram() in capsys.readouterr().out
