"""A job's life but for the work itself: chosen, started, watched, stopped."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from offers.contention import retried
from offers.wake import wake
from purchases.bulk import kinds
from purchases.bulk.errors import AskedForAlready, SeveralOrganizations, TooManyChosen
from purchases.bulk.kinds import Kind
from purchases.bulk.models import BulkItem, BulkJob

# A list that can still be looked through. What is one transaction an item takes minutes; releases
# ask Stripe about each, one after the other, so that so many of them take hours.
LARGEST = 20_000
# What became of each row is kept so long after the end of a job; the job and its figures for ever.
ITEMS_KEPT_FOR = timedelta(days=90)
# Jobs whose items one sweep forgets.
FORGOTTEN_AT_ONCE = 5
FORGOTTEN_AFTER = timedelta(days=1)
State = BulkItem.State


def draft(kind: Kind, chosen: QuerySet, *, actor: User, now: datetime) -> BulkJob:
    """Note what was chosen, so that it stays the same while the question is being answered.

    Called by admin, which has limited ``chosen`` to what the actor may have this done to. Nothing
    happens before ``start``. Raises ``TooManyChosen`` and ``SeveralOrganizations``.
    """
    found = dict(chosen.values_list("pk", kind.organization)[: LARGEST + 1])
    if len(found) > LARGEST:
        raise TooManyChosen(limit=LARGEST)
    organizations = set(found.values())
    if len(organizations) > 1 and not actor.is_superuser:
        raise SeveralOrganizations
    job = BulkJob(
        kind=kind.name,
        organization_id=organizations.pop() if len(organizations) == 1 else None,
        asked_by=actor,
        asked_at=now,
        due_at=now,
        total=len(found),
    )
    with transaction.atomic():
        job.save(force_insert=True)
        BulkItem.objects.bulk_create(
            (BulkItem(job=job, object_id=key, due_at=now) for key in found), batch_size=1000
        )
    return job


@retried
def start(job: BulkJob, *, parameters: dict[str, Any], now: datetime) -> None:
    """Let the worker begin; a second time, by a double click, changes nothing.

    Raises ``AskedForAlready`` while another job, whoever asked for it, does the same to some of
    the rows, or did a few minutes ago: the question had been answered twice, as after the
    browser's Back. Starts of one kind wait for each other, or neither would see the other one.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtext(%s))", [f"purchases.bulk {job.kind}"]
            )
        draft = BulkJob.objects.filter(pk=job.pk, started_at=None)
        if not draft.exists():
            return
        _refuse_if_asked_for_already(job, parameters, now=now)
        draft.update(started_at=now, due_at=now, parameters=parameters)
        transaction.on_commit(lambda: wake("purchases.run_bulk_jobs"))


def _refuse_if_asked_for_already(
    job: BulkJob, parameters: dict[str, Any], *, now: datetime
) -> None:
    kind = kinds.of(job.kind)
    since = now - kind.not_again_within
    lately = Q(finished_at=None) | Q(finished_at__gt=since)
    others = BulkJob.objects.filter(lately, kind=job.kind, started_at__isnull=False)
    for other in others.exclude(pk=job.pk).order_by("-started_at"):
        if any(other.parameters.get(name) != parameters.get(name) for name in kind.another_if):
            continue
        taken = other.items.filter(
            Q(state=State.WAITING) | Q(state=State.DONE, settled_at__gt=since),
            object_id__in=job.items.values("object_id"),
        )
        if number := taken.count():
            raise AskedForAlready(job_id=other.pk, number=number)


@retried
def stop(job_id: uuid.UUID, *, actor: User, now: datetime) -> bool:
    """Leave what isn't begun as it is; returns whether there was anything left to stop.

    Whatever a worker is at just now is finished, and counted.
    """
    with transaction.atomic():
        job = _lock(job_id)
        if job.started_at is None or job.finished_at is not None:
            return False
        job.items.filter(state=State.WAITING).update(state=State.LEFT, settled_at=now)
        job.stopped_at, job.stopped_by = now, actor
        job.save(update_fields=["stopped_at", "stopped_by"])
        _count(job)
    return True


@retried
def count(job_id: uuid.UUID) -> None:
    """Bring the job's figures up to date, and end it when nothing waits; called by workers.

    Under the job's lock, so that the figures never go back to those of a slower worker.
    """
    with transaction.atomic():
        _count(_lock(job_id))


def _lock(job_id: uuid.UUID) -> BulkJob:
    return BulkJob.objects.select_for_update(no_key=True).get(pk=job_id)


def _count(job: BulkJob) -> None:
    counts = counted(job)
    job.done, job.refused, job.failed = (
        counts[state] for state in (State.DONE, State.REFUSED, State.FAILED)
    )
    if job.finished_at is None and not counts[State.WAITING]:
        job.finished_at = timezone.now()
    job.save(update_fields=["done", "refused", "failed", "finished_at"])


def counted(job: BulkJob) -> dict[str, int]:
    """How many items are in each state, now."""
    found = job.items.order_by().values_list("state").annotate(items=Count("pk"))
    return dict.fromkeys(State.values, 0) | dict(found)


def forget_drafts(*, now: datetime) -> None:
    """Drop what was chosen a day ago and not started since; called by the sweep."""
    BulkJob.objects.filter(started_at=None, asked_at__lt=now - FORGOTTEN_AFTER).delete()


def forget_items(*, now: datetime) -> None:
    """Drop what became of each row of old jobs, a few jobs at a time; called by the sweep.

    Their figures stay.
    """
    old = BulkJob.objects.filter(
        Exists(BulkItem.objects.filter(job=OuterRef("pk"))), finished_at__lt=now - ITEMS_KEPT_FOR
    )
    keys = list(old.values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE])
    BulkItem.objects.filter(job__in=keys).delete()


@dataclass(frozen=True)
class Progress:
    """How far a job is, as people read it."""

    total: int
    done: int
    refused: int
    failed: int
    left: int
    waiting: int
    state: str

    @property
    def settled(self) -> int:
        return self.total - self.waiting - self.left

    @property
    def is_over(self) -> bool:
        return self.state in ("finished", "stopped")

    @property
    def text(self) -> str:
        parts = [f"{self.settled:,} of {self.total:,}"]
        parts += [
            f"{number:,} {what}"
            for number, what in (
                (self.refused, "refused"),
                (self.failed, "failed"),
                (self.left, "not begun"),
            )
            if number
        ]
        return ", ".join(parts)


def progress(job: BulkJob) -> Progress:
    """How far it is at this moment; of one whose items are forgotten, how far it had come."""
    counts = counted(job)
    if job.finished_at is not None and not any(counts.values()):
        settled = {"done": job.done, "refused": job.refused, "failed": job.failed}
        counts |= settled | {"left": job.total - sum(settled.values())}
    return Progress(total=job.total, state=job.state, **counts)
