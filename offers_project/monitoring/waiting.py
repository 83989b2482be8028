"""How much work waits in the database, and for how long: read at a scrape, for all processes.

Each figure is one query that an index answers, however large the table: the oldest row is the first
of an index, and no more rows are counted than ``MOST``. Of a bulk action that is due all settled
items are read, 20,000 at most. They are kept for some seconds, so that several monitors ask no more
often than one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import structlog
from django.core.cache import caches
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F, Min, OuterRef, QuerySet, Subquery
from django.db.models.functions import Greatest
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from fulfillment.models import Fulfillment
from offers import heartbeat
from offers.breaker import redis_breaker
from offers.contention import drop_broken_connection
from offers_project import queues
from offers_project.accounts.models import AccountLetter
from purchases.models import (
    BulkItem,
    BulkJob,
    Email,
    Purchase,
    Refund,
    StripeEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from purchases.states import OPEN_HOLDS

logger = structlog.get_logger(__name__)

KEPT_SECONDS = 5.0
# Milliseconds: no figure is worth more of the database's time.
PATIENCE = 1000
# More rows than these aren't counted: it says enough that there are so many.
MOST = 10_000


@dataclass(frozen=True)
class Waiting:
    """What there is of one kind: how many rows, and since when the one that waits longest."""

    rows: int
    since: datetime | None


def _first(rows: QuerySet, moment: str) -> datetime | None:
    found: datetime | None = rows.order_by(moment).values_list(moment, flat=True).first()
    return found


def _count(rows: QuerySet) -> int:
    return rows.order_by()[:MOST].count()


def _oldest(*moments: datetime | None) -> datetime | None:
    return min((each for each in moments if each is not None), default=None)


# -- The queues -----------------------------------------------------------------------------------


def _holds(now: datetime) -> Waiting:
    """Overdue, since their deadline. Each part by an index of its own (``holds.is_overdue``)."""
    mine = Purchase.objects.filter(problem="")
    late = [mine.filter(status=status, reserved_until__lte=now) for status in OPEN_HOLDS]
    failed = mine.filter(status__in=OPEN_HOLDS, checkout_failed_at__lte=now, reserved_until__gt=now)
    return Waiting(
        sum(map(_count, [*late, failed])),
        _oldest(*(_first(each, "reserved_until") for each in late),
                _first(failed, "checkout_failed_at")),
    )  # fmt: skip


def _events(now: datetime) -> Waiting:
    """Stored and not processed, or failed, since they came: also those put off after a failure."""
    state = StripeEvent.State
    mine = [StripeEvent.objects.filter(state=each) for each in (state.STORED, state.FAILED)]
    return Waiting(sum(map(_count, mine)), _oldest(*(_first(each, "received_at") for each in mine)))


def _fulfilments(now: datetime) -> Waiting:
    """What a worker has to deliver, since it was paid: unheard of, due, or stalled."""
    news = Purchase.objects.filter(fulfillment_due=True)
    queue = Fulfillment.objects.filter(due_at__isnull=False)
    due = queue.filter(is_stalled=False, due_at__lte=now)
    stalled = queue.filter(is_stalled=True)
    return Waiting(
        _count(news) + _count(due) + _count(stalled),
        _oldest(*(_first(each, "paid_at") for each in (news, due, stalled))),
    )


def _refunds(now: datetime) -> Waiting:
    """To be sent, since they were asked for: each try that fails moves their time on. Or to be
    asked after, since that is due.
    """
    state = Refund.State
    mine = Refund.objects.filter(state__in=[state.REQUESTED, state.PENDING])
    unsent = mine.filter(stripe_refund_id=None)
    due = mine.filter(stripe_refund_id__isnull=False, due_at__lte=now)
    return Waiting(
        _count(unsent) + _count(due), _oldest(_first(unsent, "created_at"), _first(due, "due_at"))
    )


def _emails(now: datetime) -> Waiting:
    """Rows: all unsent ones, so that a mail server that takes none is seen. Since they are due."""
    unsent = Email.objects.filter(state=Email.State.WAITING)
    return Waiting(_count(unsent), _first(unsent.filter(due_at__lte=now), "due_at"))


def _letters(now: datetime) -> Waiting:
    """As with e-mails."""
    unsent = AccountLetter.objects.filter(sent_at=None)
    return Waiting(_count(unsent), _first(unsent.filter(due_at__lte=now), "due_at"))


def _subscribers(now: datetime) -> Waiting:
    """Events for organizations' endpoints; not those of endpoints that are off, or left alone."""
    waiting = WebhookDelivery.objects.filter(state=WebhookDelivery.State.WAITING)
    active = WebhookEndpoint.objects.filter(is_active=True)
    first = waiting.filter(endpoint=OuterRef("pk"), due_at__lte=now).order_by("due_at")
    since = (
        active.filter(due_at__lte=now)
        .annotate(first=Subquery(first.values("due_at")[:1]))
        .aggregate(since=Min("first"))["since"]
    )
    return Waiting(_count(waiting.filter(endpoint__in=active)), since)


def _bulk(now: datetime) -> Waiting:
    """Bulk actions that aren't finished, since they are due or, if that is later, an item of theirs
    was settled: one that is worked on for hours isn't late.
    """
    mine = BulkJob.objects.filter(started_at__isnull=False, finished_at=None)
    state = BulkItem.State
    settled = BulkItem.objects.filter(
        job=OuterRef("pk"), state__in=[state.DONE, state.REFUSED, state.FAILED]
    ).order_by(F("settled_at").desc(nulls_last=True))
    since = (
        mine.filter(due_at__lte=now)
        # On PostgreSQL it passes over NULL: nothing of a job may be settled yet.
        .annotate(stands=Greatest("due_at", Subquery(settled.values("settled_at")[:1])))
        .aggregate(since=Min("stands"))["since"]
    )
    return Waiting(_count(mine), since)


QUEUES: dict[str, Callable[[datetime], Waiting]] = {
    "holds": _holds,
    "events": _events,
    "fulfilments": _fulfilments,
    "refunds": _refunds,
    "emails": _emails,
    "letters": _letters,
    "subscribers": _subscribers,
    "bulk": _bulk,
}


# -- What is told of them -------------------------------------------------------------------------


class Failures:
    """What couldn't be found out at this scrape, so that its absence isn't taken for peace."""

    def __init__(self) -> None:
        self.of = GaugeMetricFamily(
            "offers_scrape_failed", "1 where this scrape could not find something out.",
            labels=["part"],
        )  # fmt: skip
        self._database_is_away = False

    def database(self, part: str, read: Callable[[], None]) -> None:
        """Run one query of its own transaction; nothing more is tried once there is no database."""
        failed = True
        if not self._database_is_away:
            try:
                with transaction.atomic():
                    with connection.cursor() as cursor:
                        cursor.execute(f"SET LOCAL statement_timeout = {PATIENCE}")
                    read()
                failed = False
            except (DatabaseError, InterfaceError) as error:
                logger.warning("metric not collected", part=part, error=str(error))
                drop_broken_connection()
                self._database_is_away = connection.connection is None
        self.of.add_metric([part], failed)

    def redis(self, part: str, read: Callable[[], None]) -> None:
        """Ask Redis, unless it is left alone at the moment."""
        failed = True
        if redis_breaker.allows():
            try:
                read()
                failed = False
                redis_breaker.succeeded()
            except (RedisError, OSError) as error:
                redis_breaker.failed(error)
        self.of.add_metric([part], failed)


def _collected(now: datetime) -> list[Metric]:
    failures = Failures()
    rows = GaugeMetricFamily(
        "offers_queue_rows", f"Rows that wait, of which at most {MOST} are counted.",
        labels=["queue"],
    )  # fmt: skip
    oldest = GaugeMetricFamily(
        "offers_queue_oldest_seconds", "How long the one that waits longest does; 0 if none does.",
        labels=["queue"],
    )  # fmt: skip

    def look_at(queue: str) -> None:
        waiting = QUEUES[queue](now)
        rows.add_metric([queue], waiting.rows)
        since = waiting.since
        oldest.add_metric([queue], max(0.0, (now - since).total_seconds()) if since else 0.0)

    for queue in QUEUES:
        failures.database(queue, lambda queue=queue: look_at(queue))  # type: ignore[misc]  # mypy infers no default's type

    dead = GaugeMetricFamily("offers_dead_events", "Stripe's events that were given up.")
    failures.database(
        "dead_events",
        lambda: dead.add_metric(
            [], _count(StripeEvent.objects.filter(state=StripeEvent.State.DEAD))
        ),
    )
    seen = GaugeMetricFamily(
        "offers_worker_seen_seconds", "How long ago a worker ran what beat sends each minute."
    )

    def heart() -> None:
        last = heartbeat.last()
        if last is not None:
            seen.add_metric([], max(0.0, (now - last).total_seconds()))

    failures.database("worker", heart)
    messages = GaugeMetricFamily(
        "offers_celery_messages", "Messages to workers that none has taken.", labels=["queue"]
    )
    failures.redis("celery", lambda: _count_messages(messages))
    return [rows, oldest, dead, seen, messages, failures.of]


def _count_messages(messages: GaugeMetricFamily) -> None:
    names = [queue.name for queue in queues.QUEUES]
    pipeline = caches["default"].client.get_client().pipeline(transaction=False)
    for name in names:
        pipeline.llen(name)
    for name, length in zip(names, pipeline.execute(), strict=True):
        messages.add_metric([name], length)


class WaitingCollector(Collector):
    """For a registry of prometheus_client; collects for all of its process's scrapes."""

    _guard = threading.Lock()
    _kept: tuple[float, list[Metric]] = (-KEPT_SECONDS, [])

    def collect(self) -> Iterator[Metric]:
        """Called by a scrape, outside any transaction."""
        cls = type(self)
        with self._guard:
            at, kept = self._kept
            if time.monotonic() >= at + KEPT_SECONDS:
                kept = _collected(timezone.now())
                cls._kept = (time.monotonic(), kept)
        return chain(kept)
