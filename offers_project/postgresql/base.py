"""Django's backend on psycopg's pool, which notices within moments that the server is away or back.

The pool alone lets each caller wait out its time-out while PostgreSQL is away, so that soon every
thread waits, ``/livez`` with them; it tries again after 1, 2, 4 … 128 s, so that a server that is
back is noticed minutes later; and it throws broken connections away one at a time, with longer and
longer pauses, so that a restart fails requests long after it. So here the pool is told to give up
at once (``reconnect_timeout`` in the settings), and who asks for a connection decides how to go on.
"""

import select
import threading
import time
from contextlib import nullcontext
from functools import cache
from itertools import chain
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
import structlog
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.postgresql import base
from prometheus_client import Gauge, Histogram
from psycopg_pool import ConnectionPool, PoolTimeout

from offers import metrics

logger = structlog.get_logger(__name__)

# Seconds. A caller asks the pool again after so long, which makes the pool try to connect again.
PATIENCE = 0.25
# Seconds. While the server is away, one caller of a process tries so often; others fail at once.
PAUSE = 1.0
# Seconds. A connection that was tried so lately needs no question to the server, as long as the
# server hasn't ended it: that would lie there to be read.
TRUST = 5.0


class Outage:
    """Remembers, for this process, whether one server could be reached last time.

    A line in the log when that changes, however many callers were refused meanwhile.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        service = "postgresql" if alias == DEFAULT_DB_ALIAS else alias
        self._away = metrics.service_away.labels(service)
        self._guard = threading.Lock()
        self._is_on = False
        self._next_try = 0.0
        self._last_answer = 0.0

    def refuse_unless_worth_a_try(self) -> None:
        """Raise psycopg's OperationalError, but not for one caller every ``PAUSE``."""
        if not self._is_on:
            return
        with self._guard:
            now = time.monotonic()
            if not self._is_on or now >= self._next_try:
                self._next_try = now + PAUSE
                return
        raise psycopg.OperationalError("PostgreSQL was away a moment ago")

    def is_over(self) -> None:
        """Note that the server answered."""
        self._last_answer = time.monotonic()
        if self._is_on:
            with self._guard:
                was_on, self._is_on = self._is_on, False
            if was_on:
                self._away.set(0)
                logger.info("PostgreSQL back", database=self._alias)

    def has_begun(self, *, asked_at: float) -> bool:
        """Note that who asked then got no connection; whether nobody else got one since either."""
        with self._guard:
            if self._last_answer >= asked_at:
                return False  # the server is full, not away
            was_on, self._is_on = self._is_on, True
            self._next_try = time.monotonic() + PAUSE
        if not was_on:
            self._away.set(1)
            logger.error("PostgreSQL away", database=self._alias)
        return True


@cache
def outage_of(alias: str) -> Outage:
    """What this process knows of one database."""
    return Outage(alias)


class Figures(NamedTuple):
    """One database's, looked up once: that takes longer than to count."""

    wait: Histogram
    in_use: Gauge


@cache
def figures_of(alias: str, size: int) -> Figures:
    """What a pool of so many connections counts."""
    metrics.pool_size.labels(alias).set(size)
    return Figures(metrics.pool_wait.labels(alias), metrics.pool_in_use.labels(alias))


class RestartablePool:
    """psycopg's pool as Django's backend uses it, with a ``getconn`` that knows of outages."""

    # When each connection is to be tried next; of all pools, since each is made anew for a thread.
    _trusted: ClassVar[WeakKeyDictionary[Any, float]] = WeakKeyDictionary()

    def __init__(self, pool: ConnectionPool[Any], outage: Outage, alias: str) -> None:
        self._pool = pool
        self._outage = outage
        self._figures = figures_of(alias, pool.max_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def getconn(self) -> Any:
        """Return a connection that works.

        Raises PoolTimeout when none is free within the pool's ``timeout``, and at once, or after
        ``PATIENCE``, while the server can't be reached.
        """
        self._outage.refuse_unless_worth_a_try()
        asked_at = time.monotonic()
        try:
            connection = self._connection_that_works()
        finally:
            self._figures.wait.observe(time.monotonic() - asked_at)
        self._figures.in_use.inc()
        return connection

    def _connection_that_works(self) -> Any:
        deadline = time.monotonic() + self._pool.timeout
        while True:
            asked_at, errors = time.monotonic(), self._errors()
            try:
                connection = self._pool.getconn(max(min(PATIENCE, deadline - asked_at), 0.01))
            except PoolTimeout:
                refused = self._errors() > errors
                if refused and self._outage.has_begun(asked_at=asked_at):
                    raise
                if time.monotonic() >= deadline:
                    raise
                continue
            if self._works(connection):
                self._outage.is_over()
                return connection
            if time.monotonic() >= deadline:
                # As with a proxy that takes connections for a server that is gone.
                raise PoolTimeout("no connection works")

    def has_back_one(self) -> None:
        """Count a connection that was given back, which Django does without us."""
        self._figures.in_use.dec()

    def _works(self, connection: Any) -> bool:
        now = time.monotonic()
        if now < self._trusted.get(connection, 0.0) and not _has_something_to_say(connection):
            return True
        self._trusted[connection] = now + TRUST
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.Error:
            self._pool.putconn(connection)  # which drops it, and makes another
            if settings.HAS_SESSIONS:
                # A server that ended this one has most likely ended them all. A pooler that has no
                # connection to spare would keep us waiting for each of them in turn.
                self._pool.check()
            return False
        return True

    def _errors(self) -> int:
        """How many connections could not be made so far."""
        return self._pool.get_stats().get("connections_errors", 0)


def _has_something_to_say(connection: Any) -> bool:
    """Whether an idle connection can be read from: a farewell, or the end of the line."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


class Operations(base.DatabaseOperations):
    def last_executed_query(self, cursor: Any, sql: Any, params: Any) -> str | None:
        """For logs of queries: a prepared one as it would be without being prepared."""
        if isinstance(cursor, base.ServerBindingCursor):
            return str(self.compose_sql(sql, params))
        found: str | None = super().last_executed_query(cursor, sql, params)
        return found


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with our pool; without a pool (``DB_POOL_SIZE=0``) it is Django's."""

    ops_class = Operations
    _has_complained = False
    # What is sent together with COMMIT, and who is told how long that took: ``send_with_commit``.
    _last: tuple[tuple[str, Any], ...] = ()
    _timer: Histogram | None = None

    @property
    def pool(self) -> Any:
        """The process's pool of this database, or ``None`` without one."""
        pool = super().pool
        return pool and RestartablePool(pool, outage_of(self.alias), self.alias)

    def _close(self) -> None:
        self._last, self._timer = (), None
        pool = self.pool if self.connection is not None else None
        super()._close()
        if pool:
            pool.has_back_one()

    def prepared_cursor(self) -> Any:
        """A cursor that leaves the values to the server, and has it prepare what it is sent often.

        For ``offers.prepared``. Django's own cursors put the values into the SQL, so that no two
        statements are the same. Whether anything is prepared is ``prepare_threshold``'s business.
        """
        self.ensure_connection()
        with self.wrap_database_errors:
            cursor = base.ServerBindingCursor(self.connection)
        return self._prepare_cursor(cursor)

    def send_with_commit(self, sql: str, params: Any, *, timer: Histogram | None = None) -> None:
        """Send what is most likely a transaction's last statement in one message with its COMMIT.

        For a row lock that many wait for, and the write behind it. The server does all of it
        without a word from us in between, for which a busy process may need milliseconds, all of
        them spent with the row locked. Called again, it is one statement more. What is asked before
        the commit after all sends them first. Their errors come out of ``transaction.atomic``,
        which then has been rolled back. ``timer`` is told how many seconds they took.
        """
        if len(self.atomic_blocks) == 1:
            self._last += ((sql, params),)
            self._timer = timer or self._timer
        else:
            self.prepared_cursor().execute(sql, params)

    def _send_last(self) -> None:
        statements, self._last = self._last, ()
        for sql, params in statements:
            self.prepared_cursor().execute(sql, params)

    def _prepare_cursor(self, cursor: Any) -> Any:
        self._send_last()
        return super()._prepare_cursor(cursor)

    def _commit(self) -> None:
        if not self._last:
            super()._commit()
            return
        statements, self._last = self._last, ()
        timer, self._timer = self._timer, None
        texts, values = zip(*statements, strict=True)
        with timer.time() if timer else nullcontext(), self.cursor() as cursor:
            # The first that fails ends the message, and so there is no commit:
            # https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
            cursor.execute("; ".join((*texts, "COMMIT")), [*chain.from_iterable(values)])

    def _rollback(self) -> None:
        self._last, self._timer = (), None
        super()._rollback()

    def _configure_connection(self, connection: Any) -> bool:
        """Called by Django and by the pool for each connection that was made."""
        commit = super()._configure_connection(connection)
        if not settings.HAS_SESSIONS:
            self._complain_unless_locks_time_out(connection)
        return commit or not settings.HAS_SESSIONS

    @classmethod
    def _complain_unless_locks_time_out(cls, connection: Any) -> None:
        """Once in a process: nobody would notice before purchases of a hot offer hang."""
        query = "SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'"
        (milliseconds,) = connection.execute(query).fetchone()
        if milliseconds != settings.LOCK_TIMEOUT_MS and not cls._has_complained:
            cls._has_complained = True
            logger.error(
                "LOCK_TIMEOUT_MS is not in force: run manage.py store_timeouts",
                alert="timeouts_not_stored",
                milliseconds=milliseconds,
            )
