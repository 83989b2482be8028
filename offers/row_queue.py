"""Rows that are work to do: claimed by one process at a time, put off after a failure.

The row is the queue (events, refunds, e-mails): a message to the worker only makes things sooner.
A queue's model has ``due_at`` and ``attempts``. A claim moves ``due_at`` on by a lease, so a
process that dies in the middle loses the row to the next one when the lease is over.
"""

import random
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import models, transaction
from django.db.models import F, QuerySet

Row = TypeVar("Row", bound=models.Model)
T = TypeVar("T")

FIRST_DELAY = timedelta(seconds=15)
LONGEST_DELAY = timedelta(hours=1)
# A sweep begins no row after so long: the worker's thread is for others, too.
SWEEP_SECONDS = 60


def claim(
    due: QuerySet[Row], *, clock: datetime, lease: timedelta, limit: int, **changes: Any
) -> list[Row]:
    """Take up to ``limit`` of the ``due`` rows, in their order, for as long as ``lease``.

    Called outside any transaction by sweeps and tasks. Rows that another process is claiming at
    this moment are skipped, not waited for. ``clock`` is the real time: a lease is about processes.
    ``changes`` are other fields to write with the claim.
    """
    with transaction.atomic():
        rows = list(due.select_for_update(skip_locked=True, of=("self",), no_key=True)[:limit])
        due.model._default_manager.filter(pk__in=[row.pk for row in rows]).update(
            due_at=clock + lease, attempts=F("attempts") + 1, **changes
        )
    for row in rows:
        row.due_at = clock + lease  # type: ignore[attr-defined]  # a queue has both
        row.attempts += 1  # type: ignore[attr-defined]  # as above
    return rows


def delay(attempts: int, *, longest: timedelta = LONGEST_DELAY) -> timedelta:
    """How long to wait after that many failures: 15 s, 30 s, 60 s … an hour, give or take 20%.

    The spread keeps rows that failed together from coming back together.
    """
    pause = min(FIRST_DELAY * 2 ** min(max(attempts - 1, 0), 12), longest)
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    return timedelta(seconds=pause.total_seconds() * spread)


def end_of_sweep(*, seconds: float = SWEEP_SECONDS) -> float:
    """When a sweep that begins now begins no more rows, by ``time.monotonic``; asked by tasks."""
    return time.monotonic() + seconds


def in_time(rows: Iterable[T], until: float) -> Iterator[T]:
    """Yield ``rows`` until then; what is left stays in its queue, for the next sweep.

    A pool of threads enforces no time limits, so the loops of sweeps have this one. The first row
    is always yielded: however late it is, a sweep gets something done.
    """
    for number, row in enumerate(rows):
        if number and time.monotonic() >= until:
            return
        yield row
