"""How often each offer was shown: counted on Redis at once, kept in PostgreSQL by the minute.

Whoever shows offers counts them with one command to Redis, and nothing at all while Redis is away.
A task takes what was counted (``offers.tasks``). The counts are for a funnel, not for money: those
that are on Redis when it goes, or in the hands of a task that dies, are lost, and none is counted
twice.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

from django.core.cache import caches
from django.db import connection, models
from django.http import HttpRequest
from redis.exceptions import NoScriptError, RedisError

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
ADD = "for _, field in ipairs(ARGV) do redis.call('HINCRBY', KEYS[1], field, 1) end"
ADD_SHA = hashlib.sha1(ADD.encode(), usedforsecurity=False).hexdigest()

# Those that say so; one that hides is a visitor like any other.
ROBOTS = re.compile(r"bot\b|crawl|spider|slurp|preview", re.IGNORECASE)


def note(request: HttpRequest, shown: Iterable[tuple[object, str]], *, now: datetime) -> None:
    """Count the offers that are shown by the answer to ``request``: their ids and placements.

    Called where offers are listed, with the page that was asked for and no more. HEAD shows
    nothing, nor do a prefetch and a robot's visit; who asks whether the list that they have is
    still right looked at it before. One round trip, no query; raises nothing.
    """
    if request.method != "GET" or not _is_a_visitor(request):
        return
    day = f"{now.astimezone(UTC):%Y-%m-%d}"
    fields = [f"{day} {placement} {offer_id}" for offer_id, placement in shown]
    if not fields or not redis_breaker.allows():
        return
    try:
        _add(fields)
    except (RedisError, OSError) as error:
        redis_breaker.failed(error)
    else:
        redis_breaker.succeeded()


def _is_a_visitor(request: HttpRequest) -> bool:
    if "If-None-Match" in request.headers:
        return False
    if ROBOTS.search(request.headers.get("User-Agent", "")):
        return False
    return not request.headers.get("Sec-Purpose", "").startswith("prefetch")


def _add(fields: list[str]) -> None:
    redis = _redis()
    try:
        redis.evalsha(ADD_SHA, 1, KEY, *fields)
    except NoScriptError:  # the first time, or after Redis was restarted
        redis.eval(ADD, 1, KEY, *fields)


def flush() -> int:
    """Move what was counted into PostgreSQL; returns how many showings that were.

    Several at once share the counts among them: Redis gives each to one only. What isn't committed
    after that is lost, since nobody could tell a commit that failed from one whose answer got lost.
    """
    connection.ensure_connection()  # nothing is taken that can't be kept for want of a database
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
