"""Each purchase's status on Redis, for pages that wait: asked every second, it costs no query.

PostgreSQL is the truth, and a mirror may be wrong in two ways: an older state written after a newer
one, and a newer one that was never written, because Redis was away for just that moment. So each
entry has a version that only grows, and is believed for ``BELIEVED`` only; after that, or without
an entry, or without Redis, PostgreSQL answers, and the entry is made anew.
"""

import hashlib
import json
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.core.cache import caches
from django.db.models import Max
from redis.exceptions import NoScriptError, RedisError

from offers.breaker import redis_breaker
from purchases.errors import PurchaseNotFound
from purchases.models import Purchase

# As long as a hold: the versions have to outlast whatever is still on its way to be written.
TTL = timedelta(minutes=15)
# How late a page may hear of what Redis missed.
BELIEVED = timedelta(seconds=30)

# Commits of one purchase follow each other, since each locks its row, but what runs after them
# doesn't: a process that was held up writes `awaiting_payment` after another one's `paid`. Redis
# compares, in one step. The version is the id of the row in PurchaseTransition: it is drawn from
# its sequence under the purchase's lock, so a later change of the same purchase has a higher one.
WRITE = """
local known = redis.call('HGET', KEYS[1], 'version')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'state', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
WRITE_SHA = hashlib.sha1(WRITE.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class State:
    """What a page that waits has to know; ``version`` grows with each change of the status."""

    status: str
    reserved_until: datetime
    version: int


def state_of(purchase: Purchase, *, version: int) -> State:
    """The purchase as it will be mirrored once its transaction has committed."""
    return State(purchase.status, purchase.reserved_until, version)


def write(purchase_id: uuid.UUID, state: State) -> None:
    """Mirror a committed state, unless a newer one is there. One command; raises nothing.

    Called by ``purchases.transitions`` after each commit but a purchase's first, and by ``read``.
    """
    entry = {
        "status": state.status,
        "reserved_until": state.reserved_until.isoformat(),
        "at": time.time(),
    }
    arguments = (state.version, json.dumps(entry), int(TTL.total_seconds() * 1000))
    _ask(lambda redis: _run(redis, _key(purchase_id), *arguments))


def read(purchase_id: uuid.UUID) -> State:
    """The purchase's state, from Redis or else PostgreSQL: a fact of at most ``BELIEVED`` ago.

    Called by the status poll. Raises ``PurchaseNotFound``, and nothing about Redis.
    """
    found = _ask(lambda redis: redis.hmget(_key(purchase_id), "version", "state"))
    state = _believed(found) if found else None
    if state is None:
        state = _stored(purchase_id)
        write(purchase_id, state)
    return state


def _believed(found: list[bytes | None]) -> State | None:
    version, entry = found
    if version is None or entry is None:
        return None
    known = json.loads(entry)
    if abs(time.time() - known["at"]) > BELIEVED.total_seconds():
        return None
    return State(
        known["status"], datetime.fromisoformat(known["reserved_until"]), version=int(version)
    )


def _stored(purchase_id: uuid.UUID) -> State:
    """One statement, so that status and version are of the same moment."""
    row = (
        Purchase.objects.filter(pk=purchase_id)
        .annotate(version=Max("transitions__id"))
        .values_list("status", "reserved_until", "version")
        .first()
    )
    if row is None:
        raise PurchaseNotFound
    status, reserved_until, version = row
    return State(status, reserved_until, version or 0)


def _key(purchase_id: uuid.UUID) -> str:
    return f"offers:purchase:{purchase_id.hex}"


def _run(redis: Any, key: str, *arguments: Any) -> Any:
    try:
        return redis.evalsha(WRITE_SHA, 1, key, *arguments)
    except NoScriptError:  # the first time, or after Redis was restarted
        return redis.eval(WRITE, 1, key, *arguments)


def _ask(command: Any) -> Any:
    """What Redis says to ``command``, or ``None`` while it is away."""
    if not redis_breaker.allows():
        return None
    try:
        answer = command(cast("Any", caches["default"]).client.get_client(write=True))
    except (RedisError, OSError) as error:
        redis_breaker.failed(error)
        return None
    redis_breaker.succeeded()
    return answer
