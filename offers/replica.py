"""Lists read from a replica of the database, where there is one (``DATABASE_REPLICA_URL``).

A list may be some moments old: it shows what could be bought, and buying looks again. So lists and
the pages that show them ask ``read`` or ``reading_database``. Everything else stays on the primary:
what is bought and by whom, whether it can be, what somebody edits, who may open an event (who has
just registered shall not be told that it doesn't exist). Don't fill a cache from here whose entries
are thrown away at a change: what is read after the change may be from before it.

A replica that is away, or more than ``DATABASE_REPLICA_MAX_LAG`` seconds behind, isn't asked.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connections
from psycopg import errors as pg

from offers import metrics

T = TypeVar("T")
logger = structlog.get_logger(__name__)

ALIAS = "replica"
# Seconds. One caller of a process looks so often how far the replica is.
LOOK_EVERY = 1.0

# A position in the write-ahead log, in bytes. NULL on a server that replays nobody's.
WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
REPLAYED = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint"


def reading_database() -> str:
    """The alias of the database for a list: the replica's, if it is there and not far behind.

    Called right before the query, ``queryset.using(reading_database())``, by what reads lists and
    can't be repeated; ``read`` is better where it can. Costs nothing without a replica.
    """
    if ALIAS not in connections.settings:
        return DEFAULT_DB_ALIAS
    database = ALIAS if _progress.is_near() and _is_reachable() else DEFAULT_DB_ALIAS
    metrics.replica_reads.labels(database).inc()
    return database


def read(work: Callable[[str], T]) -> T:
    """Return what ``work`` reads from the database whose alias it is given: the replica, or not.

    Should the replica go away in the middle, or cancel the query because it is in the way of what
    it replays, ``work`` is called once more, for the primary. So it may only read, and must have
    read (``list(queryset.using(database))``) when it returns.
    """
    database = reading_database()
    if database == DEFAULT_DB_ALIAS:
        return work(database)
    try:
        return work(database)
    except (OperationalError, InterfaceError) as error:
        if isinstance(error.__cause__, pg.QueryCanceled):
            raise  # too slow here is too slow there
        _progress.forget()
        connections[ALIAS].close_if_unusable_or_obsolete()
        logger.warning("list read from the primary instead", error=str(error))
    metrics.replica_reads.labels(DEFAULT_DB_ALIAS).inc()
    return work(DEFAULT_DB_ALIAS)


def _is_reachable() -> bool:
    try:
        connections[ALIAS].ensure_connection()
    except OperationalError:
        _progress.forget()
        return False
    return True


class Progress:
    """How far behind the primary the replica is, as this process sees it.

    PostgreSQL tells how much a replica has replayed, but not how old that is: while nothing is
    written the newest transaction may be hours old, and a replica that lost its primary has
    replayed all that it got. So each look notes where the primary is by now. A replica that has
    replayed as much as that is no older than the note.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._notes: deque[tuple[float, int]] = deque()
        self._is_near = False
        self._next_look = -math.inf

    def is_near(self) -> bool:
        """Whether the replica was near enough at the last look, a second ago at most."""
        if time.monotonic() >= self._next_look and self._guard.acquire(blocking=False):
            # The others go on with the last answer.
            try:
                self._is_near = self._look()
                self._next_look = time.monotonic() + LOOK_EVERY
            finally:
                self._guard.release()
        return self._is_near

    def forget(self) -> None:
        """Use the replica no more until the next look."""
        self._is_near = False
        self._next_look = time.monotonic() + LOOK_EVERY

    def _look(self) -> bool:
        now = time.monotonic()
        written = _position(DEFAULT_DB_ALIAS, WRITTEN)
        try:
            replayed = _position(ALIAS, REPLAYED)
        except OperationalError:
            return False
        if written is None or replayed is None:
            logger.error("DATABASE_REPLICA_URL leads to no replica of DATABASE_URL's database")
            return False
        self._notes.append((now, written))
        while self._notes[0][0] < now - settings.DATABASE_REPLICA_MAX_LAG:
            self._notes.popleft()
        return any(replayed >= position for _, position in self._notes)


def _position(database: str, query: str) -> int | None:
    with connections[database].cursor() as cursor:
        cursor.execute(query)
        found: int | None = cursor.fetchone()[0]
    return found


_progress = Progress()


class Router:
    """For ``settings.DATABASE_ROUTERS``: a row that was read from the replica is written back home.

    What is related to such a row is read where it came from, which is Django's own way.
    """

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return DEFAULT_DB_ALIAS

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        """The same rows are on both."""
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == DEFAULT_DB_ALIAS
