"""How often each offer was shown: counted in the process, brought together on Redis each second,
and kept in PostgreSQL by the minute.

Whoever shows offers adds to a counter in memory. What a process has counted goes to Redis in one
round trip, or nowhere while Redis is away, and a task takes it from there (``offers.tasks``). The
counts are for a funnel, not for money: the last second of a process that is killed, those on Redis
when it goes, and those in the hands of a task that dies are lost, and none is counted twice.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from multiprocessing import util
from typing import Any, ClassVar, cast

from django.core.cache import caches
from django.db import connection, models
from django.http import HttpRequest
from redis.exceptions import RedisError

from offers.breaker import redis_breaker
from offers.contention import retried


class Impression(models.Model):
    """How often an offer was shown on one day (UTC), in the placement that it had then."""

    offer = models.ForeignKey(
        "offers.Offer", on_delete=models.CASCADE, related_name="impressions", db_index=False
    )
    placement = models.CharField(max_length=20)
    day = models.DateField()
    seen = models.PositiveBigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["offer", "day", "placement"], name="impressions_once_a_day"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["day"], include=["offer", "placement", "seen"], name="impression_by_day"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.offer_id} {self.day}: {self.seen}"


# A hash: "2026-11-23 IN_EVENT <id>" -> how often. It can't grow beyond what there is to sell, even
# if no worker takes it for days.
KEY = "offers:impressions"
# Seconds. What a process has counted is on Redis so soon.
HAND_OVER_EVERY = 1.0

# Those that say so; one that hides is a visitor like any other.
ROBOTS = re.compile(r"bot\b|crawl|spider|slurp|preview", re.IGNORECASE)


def note(request: HttpRequest, shown: Iterable[tuple[object, str]], *, now: datetime) -> None:
    """Count the offers that are shown by the answer to ``request``: their ids and placements.

    Called where offers are listed, with the page that was asked for and no more. HEAD shows
    nothing, nor do a prefetch and a robot's visit; who asks whether the list that they have is
    still right looked at it before. Asks nobody and waits for nobody; raises nothing.
    """
    if request.method == "GET" and _is_a_visitor(request):
        _counts.add(f"{now.astimezone(UTC):%Y-%m-%d}", shown)


def _is_a_visitor(request: HttpRequest) -> bool:
    if "If-None-Match" in request.headers:
        return False
    if ROBOTS.search(request.headers.get("User-Agent", "")):
        return False
    return not request.headers.get("Sec-Purpose", "").startswith("prefetch")


class _Counts:
    """What this process has counted and not handed over yet: by day, then by id and placement."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._days: dict[str, Counter[tuple[object, str]]] = {}

    def add(self, day: str, shown: Iterable[tuple[object, str]]) -> None:
        """Add one to each; the first after a quiet time has them all handed over soon."""
        seen = tuple(shown)
        if not seen:
            return
        with self._guard:
            is_first = not self._days
            self._days.setdefault(day, Counter()).update(seen)
        if is_first:
            soon = threading.Timer(HAND_OVER_EVERY, hand_over)
            soon.daemon = True  # a process that ends doesn't wait for it: see below
            soon.start()

    def take(self) -> dict[str, int]:
        """All of it, as fields of Redis' hash, which nobody else gets."""
        with self._guard:
            days, self._days = self._days, {}
        fields: Counter[str] = Counter()
        for day, seen in days.items():
            for (offer_id, placement), count in seen.items():
                fields[f"{day} {placement} {offer_id}"] += count
        return fields


_counts = _Counts()
_handing_over = threading.Lock()


def hand_over() -> None:
    """Add what this process has counted to Redis; lost while Redis is away. Raises nothing.

    Called a second after something was counted, by a thread of its own, and when the process ends.
    When it returns, nothing that was counted before is on its way any more.
    """
    with _handing_over:
        fields = _counts.take()
        if not fields or not redis_breaker.allows():
            return
        try:
            with _redis().pipeline(transaction=False) as commands:
                for field, count in fields.items():
                    commands.hincrby(KEY, field, count)
                commands.execute()
        except (RedisError, OSError) as error:
            # Some may have been added, so none is tried again.
            redis_breaker.failed(error)
        else:
            redis_breaker.succeeded()


# A web server's worker ends as a child of multiprocessing does, which runs no `atexit`.
util.Finalize(None, hand_over, exitpriority=1)


def flush() -> int:
    """Move what was handed over into PostgreSQL; returns how many showings that were.

    Several at once share the counts among them: Redis gives each to one only. What isn't committed
    after that is lost, since nobody could tell a commit that failed from one whose answer got lost.
    """
    connection.ensure_connection()  # nothing is taken that can't be kept for want of a database
    hand_over()
    counted = _take()
    if counted:
        _keep(counted)
    return sum(counted.values())


def _take() -> dict[str, int]:
    """What was counted since the last time, which nobody else gets; nothing without Redis."""
    if not redis_breaker.allows():
        return {}
    try:
        # One transaction of Redis: no count falls between the reading and the deleting.
        taken, _ = _redis().pipeline(transaction=True).hgetall(KEY).delete(KEY).execute()
    except (RedisError, OSError) as error:
        redis_breaker.failed(error)
        return {}
    redis_breaker.succeeded()
    return {field.decode(): int(count) for field, count in taken.items()}


@retried
def _keep(counted: dict[str, int]) -> None:
    """Add to the rows of their days. Sorted, so that two of these don't wait for each other."""
    rows = sorted((*field.split(" "), count) for field, count in counted.items())
    days, placements, offers, counts = zip(*rows, strict=True)
    with connection.cursor() as cursor:
        # An offer that is gone since has no row to add to.
        cursor.execute(
            """
            INSERT INTO offers_impression (offer_id, placement, day, seen)
            SELECT offer.id, counted.placement, counted.day, counted.seen
            FROM unnest(%s::date[], %s::text[], %s::uuid[], %s::bigint[])
                 AS counted (day, placement, offer_id, seen)
            JOIN offers_offer AS offer ON offer.id = counted.offer_id
            ORDER BY counted.day, offer.id, counted.placement
            ON CONFLICT (offer_id, day, placement)
            DO UPDATE SET seen = offers_impression.seen + EXCLUDED.seen
            """,
            [list(days), list(placements), list(offers), list(counts)],
        )


def _redis() -> Any:
    """The client behind the cache, for commands that Django's caches don't have."""
    return cast("Any", caches["default"]).client.get_client(write=True)
