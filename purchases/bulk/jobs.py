"""A job's life but for the work itself: chosen, started, watched, stopped."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, QuerySet
from django.utils import timezone

from offers.contention import retried
from offers.wake import wake
from purchases.bulk.errors import SeveralOrganizations, TooManyChosen
from purchases.bulk.kinds import Kind
from purchases.bulk.models import BulkItem, BulkJob

# Some minutes of work, and a list that can still be looked through.
LARGEST = 20_000
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


def start(job: BulkJob, *, parameters: dict[str, Any], now: datetime) -> None:
    """Let the worker begin; a second time, by a double click, changes nothing."""
    started = BulkJob.objects.filter(pk=job.pk, started_at=None).update(
        started_at=now, due_at=now, parameters=parameters
    )
    if started:
        transaction.on_commit(lambda: wake("purchases.run_bulk_jobs"))


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
    """How far it is at this moment."""
    counts = counted(job)
    return Progress(total=job.total, state=job.state, **counts)
