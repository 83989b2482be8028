"""Django's backend on psycopg's pool, which notices within moments that the server is away or back.

The pool alone lets each caller wait out its time-out while PostgreSQL is away, so that soon every
thread waits, ``/livez`` with them; it tries again after 1, 2, 4 … 128 s, so that a server that is
back is noticed minutes later; and it throws broken connections away one at a time, with longer and
longer pauses, so that a restart fails requests long after it. So here the pool is told to give up
at once (``reconnect_timeout`` in the settings), and who asks for a connection decides how to go on.
"""

import threading
import time
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool, PoolTimeout

logger = structlog.get_logger(__name__)

# Seconds. A caller asks the pool again after so long, which makes the pool try to connect again.
PATIENCE = 0.25
# Seconds. While the server is away, one caller of a process tries so often; others fail at once.
PAUSE = 1.0


class Outage:
    """Remembers, for this process, whether the server could be reached last time.

    A line in the log when that changes, however many callers were refused meanwhile.
    """

    def __init__(self) -> None:
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
                logger.info("PostgreSQL back")

    def has_begun(self, *, asked_at: float) -> bool:
        """Note that who asked then got no connection; whether nobody else got one since either."""
        with self._guard:
            if self._last_answer >= asked_at:
                return False  # the server is full, not away
            was_on, self._is_on = self._is_on, True
            self._next_try = time.monotonic() + PAUSE
        if not was_on:
            logger.error("PostgreSQL away")
        return True


class RestartablePool:
    """psycopg's pool as Django's backend uses it, with a ``getconn`` that knows of outages."""

    def __init__(self, pool: ConnectionPool[Any], outage: Outage) -> None:
        self._pool = pool
        self._outage = outage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def getconn(self) -> Any:
        """Return a connection that works.

        Raises PoolTimeout when none is free within the pool's ``timeout``, and at once, or after
        ``PATIENCE``, while the server can't be reached.
        """
        self._outage.refuse_unless_worth_a_try()
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

    def _works(self, connection: Any) -> bool:
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.Error:
            self._pool.putconn(connection)  # which drops it, and makes another
            # A server that ended this one has most likely ended them all.
            self._pool.check()
            return False
        return True

    def _errors(self) -> int:
        """How many connections could not be made so far."""
        return self._pool.get_stats().get("connections_errors", 0)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with our pool; without a pool (``DB_POOL_SIZE=0``) it is Django's."""

    _outage = Outage()
    _has_complained = False

    @property
    def pool(self) -> Any:
        """The process's pool, or ``None`` without one."""
        pool = super().pool
        return pool and RestartablePool(pool, self._outage)

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
