"""Doing what jobs ask for: item by item, by any number of workers, each item once.

A worker claims a few items of a job for a while (``offers.row_queue``), and does each in its own
transaction, in which the item is marked as done too: killed anywhere, it has done both or neither.
Only what speaks to Stripe can't be one transaction: that may be run twice, and copes with it.

Rights are looked at again at each item. A refusal of the domain's is final. While Stripe or the
database is away the whole job rests, longer each time, and gives up in the end.
"""

import math
import threading
import time
import uuid
from datetime import datetime, timedelta

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from offers import row_queue
from offers.contention import drop_broken_connection, retried
from offers.errors import Busy, DomainError, database_is_busy
from offers.models import Membership
from offers.wake import wake
from purchases.bulk import jobs, kinds
from purchases.bulk.kinds import Kind, Task
from purchases.bulk.models import BulkItem, BulkJob
from purchases.errors import (
    HoldIsEnding,
    PaymentProviderUnavailable,
    ProviderRefused,
    is_stripe_away,
)

logger = structlog.get_logger("purchases")
State = BulkItem.State

BATCH = 20
LEASE = timedelta(minutes=3)
# No item is begun with less of its lease left: longer than the longest conversation with Stripe.
LONGEST_ITEM = timedelta(seconds=60)
# Claims of one item, by workers that were killed or found no way: then a person has to look.
MOST_ATTEMPTS = 6
# An hour and a quarter, with pauses of ten minutes in the end.
MOST_SETBACKS = 12
LONGEST_REST = timedelta(minutes=10)
# After so long a sweep ends, and asks to be called again: the thread is for others, too.
SWEEP_SECONDS = 10
# One thread of a process at a time: payments must go on meanwhile.
_sweeping = threading.Lock()

STRIPE_AWAY = "Stripe could not be reached."
STRIPE_REFUSED = "Stripe refused this: look at the payment in Stripe's dashboard."
DATABASE_BUSY = "The database could not answer."
UNFORESEEN = "Something unforeseen went wrong: ask whoever runs the service to look at its log."


def sweep(*, now: datetime) -> int:
    """Work at what was asked for; called by beat and by nudges. Returns how many items it tried.

    None where this process is at it already.
    """
    if not _sweeping.acquire(blocking=False):
        return 0
    try:
        jobs.forget_drafts(now=now)
        jobs.forget_items(now=now)
        until = time.monotonic() + SWEEP_SECONDS
        tried = run_due(now=now, until=until)
    finally:
        _sweeping.release()
    if time.monotonic() >= until:
        wake("purchases.run_bulk_jobs")
    return tried


def run_due(*, now: datetime, until: float = math.inf) -> int:
    """Do what is due, a few items of each job in turn, so that a small job isn't kept waiting."""
    tried = 0
    while time.monotonic() < until:
        in_this_round = sum(_take_turn(job, now=now, until=until) for job in _due_jobs())
        tried += in_this_round
        if not in_this_round:
            break
    return tried


def _due_jobs() -> list[BulkJob]:
    due = BulkJob.objects.filter(
        started_at__isnull=False, finished_at=None, due_at__lte=timezone.now()
    )
    return list(due.order_by("due_at")[:100])


def _due(job: BulkJob) -> QuerySet[BulkItem]:
    return BulkItem.objects.filter(
        job=job, state=State.WAITING, due_at__lte=timezone.now()
    ).order_by("due_at", "pk")


def _take_turn(job: BulkJob, *, now: datetime, until: float) -> int:
    """Do a few items of the job, and count; returns how many were tried."""
    tried = 0
    clock = timezone.now()
    claimed = row_queue.claim(_due(job), clock=clock, lease=LEASE, limit=BATCH)
    for number, item in enumerate(claimed):
        if time.monotonic() >= until or timezone.now() > clock + LEASE - LONGEST_ITEM:
            _give_back(claimed[number:])
            break
        tried += 1
        error = _attempt(item, now=now)
        if error is not None and (is_stripe_away(error) or database_is_busy(error)):
            # What is wrong isn't this item's fault: no attempt of any is used up.
            _give_back(claimed[number:])
            _rest(job, error)
            break
    jobs.count(job.pk)
    return tried


# -- One item -------------------------------------------------------------------------------------


def _attempt(item: BulkItem, *, now: datetime) -> Exception | None:
    """Try an item that was claimed. Returns what was in the way, if it is to be tried again."""
    # Read again: it may have been stopped, and the actor's rights may have changed.
    mine = _mine(item).select_related("job__asked_by").first()
    if mine is None:
        return None
    if item.attempts > MOST_ATTEMPTS:
        # Its worker never came back to say why.
        _settle(item, State.FAILED, f"Given up after {MOST_ATTEMPTS} tries. {UNFORESEEN}")
        return None
    try:
        kind = kinds.of(mine.job.kind)
        if kind.is_one_transaction:
            _do_at_once(kind, mine, now=now)
        else:
            # Before it may be done: an answer that is lost afterwards tells nothing.
            _mine(item).update(is_begun=True)
            why_not = _do(kind, mine, now=now)
            _settle(item, State.REFUSED if why_not else State.DONE, why_not)
    except Exception as error:  # noqa: BLE001 - sorted out below; the other items get their turn
        drop_broken_connection()
        return _note(item, error)
    if mine.job.setbacks:
        BulkJob.objects.filter(pk=mine.job_id).update(setbacks=0)
    return None


def _mine(item: BulkItem) -> QuerySet[BulkItem]:
    """The item, unless its lease ran out and another worker has it, or it was settled or left."""
    return BulkItem.objects.filter(pk=item.pk, attempts=item.attempts, state=State.WAITING)


@retried
def _do_at_once(kind: Kind, item: BulkItem, *, now: datetime) -> None:
    """Do it and mark it in one transaction, under the item's lock, which is taken first."""
    with transaction.atomic():
        if not _mine(item).select_for_update(no_key=True).values_list("pk"):
            return
        why_not = _do(kind, item, now=now)
        _settle(item, State.REFUSED if why_not else State.DONE, why_not)


def _do(kind: Kind, item: BulkItem, *, now: datetime) -> str:
    """Have it done; returns why it wasn't, or ""."""
    job, actor = item.job, item.job.asked_by
    refusal = _refusal(kind, job, item.object_id, actor)
    if refusal or actor is None:
        return refusal
    return kind.do(
        Task(
            job_id=job.pk,
            object_id=item.object_id,
            actor=actor,
            parameters=job.parameters,
            now=now,
            is_again=item.is_begun or item.attempts > 1,
        )
    )


def _refusal(kind: Kind, job: BulkJob, object_id: uuid.UUID, actor: User | None) -> str:
    """Why the actor may not have this done now, or ""; asked when the item's turn has come."""
    if actor is None or not actor.is_active:
        return "The account that asked for this is closed."
    found = kind.objects().filter(pk=object_id).values_list(kind.organization, flat=True).first()
    if found is None:
        return "It is no more."
    if actor.is_superuser:
        return ""
    held = Membership.objects.filter(user=actor, organization=found, role__in=kind.roles)
    if found != job.organization_id or not held.exists():
        return f"{actor} may not do this (any more)."
    return ""


def _settle(item: BulkItem, state: State, reason: str = "") -> None:
    """Write down what became of an item, unless it is another worker's by now.

    One that was left meanwhile, because somebody pressed Stop while it was being done, too.
    """
    BulkItem.objects.filter(
        pk=item.pk, attempts=item.attempts, state__in=[State.WAITING, State.LEFT]
    ).update(state=state, reason=reason[:500], settled_at=timezone.now())


# -- What can be in the way -----------------------------------------------------------------------


def _note(item: BulkItem, error: Exception) -> Exception | None:
    """Settle the item, or put it off; returns the error in that case."""
    if _is_passing(error):
        said = _said(error)
        logger.warning("bulk item put off", item_id=item.pk, job_id=str(item.job_id), error=said)
        if item.attempts < MOST_ATTEMPTS:
            _mine(item).update(
                due_at=timezone.now() + row_queue.delay(item.attempts), reason=said[:500]
            )
            return error
        _settle(item, State.FAILED, f"Given up after {item.attempts} tries. {said}")
        return error
    if isinstance(error, ProviderRefused):
        _settle(item, State.REFUSED, STRIPE_REFUSED)
    elif isinstance(error, DomainError):
        _settle(item, State.REFUSED, str(error))
    else:
        logger.error(
            "bulk item failed",
            item_id=item.pk,
            job_id=str(item.job_id),
            object_id=str(item.object_id),
            exc_info=error,
        )
        _settle(item, State.FAILED, UNFORESEEN)
    return None


def _is_passing(error: Exception) -> bool:
    """Whether the same may go through later.

    By class: of other errors ``retry_after`` is a guard against repetitions, which is not to be
    waited out.
    """
    if isinstance(error, ProviderRefused):
        return False
    passing = (HoldIsEnding, PaymentProviderUnavailable, Busy)
    return isinstance(error, passing) or database_is_busy(error)


def _said(error: Exception) -> str:
    if isinstance(error, PaymentProviderUnavailable):
        return STRIPE_AWAY
    return DATABASE_BUSY if database_is_busy(error) else str(error)


def _give_back(claimed: list[BulkItem]) -> None:
    """Let others have what wasn't begun, or wasn't to blame; behind those that wait already."""
    for item in claimed:
        _mine(item).update(due_at=timezone.now(), attempts=F("attempts") - 1)


def _rest(job: BulkJob, error: Exception) -> None:
    """Leave the job alone for a while; after many times in a row, give up what waits."""
    BulkJob.objects.filter(pk=job.pk).update(setbacks=F("setbacks") + 1)
    job.refresh_from_db(fields=["setbacks"])
    pause = row_queue.delay(job.setbacks, longest=LONGEST_REST)
    BulkJob.objects.filter(pk=job.pk).update(due_at=timezone.now() + pause)
    if job.setbacks > MOST_SETBACKS:
        reason = f"{_said(error)} Given up after trying for an hour: start it again later."
        job.items.filter(state=State.WAITING).update(
            state=State.FAILED, reason=reason, settled_at=timezone.now()
        )
