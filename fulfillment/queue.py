"""Which fulfilment is worked on next: in the order of payment, by one worker at a time.

A deliverer that fails ``BREAK_AFTER`` times in a row is broken, by a bug or an outage, and not by
what these buyers bought. Its rows then *stall*: each sweep tries the first of them, and the first
of those that wait behind, and nothing else of the type. Once the first succeeds all of them go on,
in the order of payment, with all their attempts. If only the other does, the trouble is with the
stalled ones after all: each is put off and given up by itself, and the type goes on without them.
"""

import math
import threading
import time
import uuid
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Case, F, QuerySet, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from fulfillment import delivery
from fulfillment.delivery import Outcome
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers import row_queue
from purchases.activity import alert

logger = structlog.get_logger(__name__)

# A delivery is a few statements; after that its worker is taken for dead.
LEASE = timedelta(seconds=60)
BREAK_AFTER = 5
# Beat starts a sweep every 30 s.
SWEEP_SECONDS = 20
# One thread of a process at a time; who is turned away has it look once more.
_sweeping = threading.Lock()
_asked = threading.Event()
SET_ASIDE = timedelta(minutes=1)


def due(*, now: datetime) -> QuerySet[Fulfillment]:
    """What a worker has to look at, in the order of payment."""
    # `isnull` once more, for the partial index.
    waiting = Fulfillment.objects.filter(due_at__isnull=False, due_at__lte=now, is_stalled=False)
    return waiting.order_by("paid_at", "pk")


def sweep(*, now: datetime) -> int:
    """Take in what no message reached, and deliver what is due; called by beat and by nudges.

    Returns how many were looked at: none where this process is at it already, or has been for long
    enough. Its other threads are for payments, refunds and holds.
    """
    _asked.set()
    looked_at, until = 0, time.monotonic() + SWEEP_SECONDS
    # Whoever asked while it was at work saw something that may lie behind what it had looked at.
    while _asked.is_set() and time.monotonic() < until and _sweeping.acquire(blocking=False):
        try:
            _asked.clear()
            delivery.take_in(now=now, until=until)
            looked_at += deliver_due(now=now, until=until)
        finally:
            _sweeping.release()
        now = max(now, timezone.now())
    return looked_at


def deliver_due(*, now: datetime, until: float = math.inf, limit: int = 1000) -> int:
    """Deliver what is due. Returns how many were looked at."""
    broken = {kind for kind in _stalled_types() if not _works_again(kind, now=now)}
    failed: defaultdict[str, list[uuid.UUID]] = defaultdict(list)
    for looked_at in range(limit):
        if time.monotonic() > until:
            return looked_at
        claimed = _claim(due(now=now).exclude(type__in=broken))
        if claimed is None:
            return looked_at
        outcome = delivery.attempt(claimed, now=now)
        if outcome is Outcome.WORKED:
            failed[claimed.type] = []
        if outcome is not Outcome.BROKE:
            continue
        failed[claimed.type].append(claimed.pk)
        if len(failed[claimed.type]) == BREAK_AFTER:
            _stall(failed[claimed.type])
            broken.add(claimed.type)
            alert("deliverer_broken", fulfillment_type=claimed.type)
    return limit


def deliver_one(purchase_id: uuid.UUID, *, now: datetime) -> None:
    """Hear of one purchase and deliver it at once; called by the message that follows a payment.

    While its type is broken it waits its turn with the others.
    """
    fulfillment = delivery.hear_of(purchase_id, now=now)
    if fulfillment is None or fulfillment.type in _stalled_types():
        return
    claimed = _claim(due(now=now).filter(pk=fulfillment.pk))
    if claimed is not None:
        delivery.attempt(claimed, now=now)


def _claim(rows: QuerySet[Fulfillment]) -> Fulfillment | None:
    # What has failed stays so for everybody to see until it is delivered.
    taken = Case(When(status=Status.PENDING, then=Value(Status.PROCESSING)), default=F("status"))
    claimed = row_queue.claim(rows, clock=timezone.now(), lease=LEASE, limit=1, status=taken)
    return claimed[0] if claimed else None


# -- A deliverer that is broken -------------------------------------------------------------------


def _stalled(kind: str) -> QuerySet[Fulfillment]:
    return Fulfillment.objects.filter(type=kind, is_stalled=True).order_by("paid_at", "pk")


def _stalled_types() -> set[str]:
    stalled = Fulfillment.objects.filter(is_stalled=True).order_by()
    return set(stalled.values_list("type", flat=True).distinct())


def _stall(failed: list[uuid.UUID]) -> None:
    Fulfillment.objects.filter(pk__in=failed, due_at__isnull=False).update(is_stalled=True)


def _works_again(kind: str, *, now: datetime) -> bool:
    """Try the first stalled row, and the first behind it; let the others go on if they may."""
    # Not one that another sweep is trying at this moment; a failure has put the row off, though.
    first = _claim(_stalled(kind).exclude(status=Status.PROCESSING, due_at__gt=now))
    if first is None:
        return not _stalled(kind).exists()
    outcome = delivery.attempt(first, now=now)
    if outcome is Outcome.WORKED:
        _let_go(kind, due_at=now, attempts=0)
        logger.info("deliverer works again", fulfillment_type=kind)
        return True
    if outcome is Outcome.NOTHING:
        return False  # it says nothing of the deliverer; the next sweep tries another one
    behind = _claim(due(now=now).filter(type=kind))
    if behind is None:
        return False
    outcome = delivery.attempt(behind, now=now)
    if outcome is Outcome.WORKED:
        # Not at once, or they would break this sweep too before it comes to those behind them.
        _let_go(kind, due_at=Greatest("due_at", timezone.now() + SET_ASIDE))
        return True
    if outcome is Outcome.BROKE:
        # Next time another one is tried: this may be a bad one too.
        _stall([behind.pk])
    return False


def _let_go(kind: str, **changes: Any) -> None:
    with transaction.atomic():
        # In one order, whoever else changes many of them at once.
        rows = _stalled(kind).order_by("pk").select_for_update(no_key=True)
        chosen = list(rows.values_list("pk", flat=True))
        Fulfillment.objects.filter(pk__in=chosen).update(is_stalled=False, **changes)
