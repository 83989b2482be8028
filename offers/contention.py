"""Transactions that stand in each other's way: how often to try again, and how long to wait.

PostgreSQL ends one of two deadlocked transactions, and one that it can't serialize, and expects
them to be tried again: https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import stamina
from django.conf import settings
from django.db import OperationalError, connection
from psycopg import errors as pg
from psycopg.pq import TransactionStatus

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 4


def is_conflict(error: Exception) -> bool:
    """Whether the same transaction, begun again now, may go through."""
    if not isinstance(error, OperationalError) or connection.in_atomic_block:
        return False
    return isinstance(error.__cause__, pg.DeadlockDetected | pg.SerializationFailure)


def retried(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that is one whole transaction: a conflict makes it run again.

    At most ``ATTEMPTS`` times within a second or so, then the error goes on to the caller
    (``busy`` in the API). Inside a transaction of the caller's nothing is repeated: what was lost
    is the whole of it, which only the caller can begin again.
    """
    return stamina.retry(
        on=is_conflict,
        attempts=ATTEMPTS,
        wait_initial=0.02,
        wait_max=0.3,
        wait_jitter=0.05,
    )(work)


def drop_broken_connection() -> None:
    """After an error in the middle of a loop: the next row gets a connection that works.

    Django itself looks only between requests and tasks.
    """
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


@contextmanager
def lock_wait(milliseconds: int) -> Iterator[None]:
    """Wait less for locks than ``LOCK_TIMEOUT_MS`` in the transactions within the block.

    Each of them is told as it begins and forgets it as it ends, so nothing is left on a connection
    that somebody else gets, be it from our pool or from a pooler (``DATABASE_POOLER``).
    """

    def told_first(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 - as Django calls it
        wrapper = context["connection"]
        begins = wrapper.connection.info.transaction_status == TransactionStatus.IDLE
        if begins and wrapper.in_atomic_block:
            # Past Django's cursor, whose wrapper this is.
            with wrapper.connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {milliseconds:d}")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(told_first):
        yield


def store_timeouts(*, dry_run: bool = False) -> list[str]:
    """Make the settings' time-outs those that PostgreSQL gives our role in this database.

    Behind a pooler (``DATABASE_POOLER``) this is the only way to have them: it takes none from a
    client that connects, and what one sets would be kept by somebody else's connection. They hold
    for connections made from now on. Called by the command of that name; returns the statements.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        role, database = (connection.ops.quote_name(name) for name in cursor.fetchone())
        statements = [
            f"ALTER ROLE {role} IN DATABASE {database} SET {name} = {milliseconds:d}"
            for name, milliseconds in (
                ("lock_timeout", settings.LOCK_TIMEOUT_MS),
                ("statement_timeout", settings.STATEMENT_TIMEOUT_MS),
            )
        ]
        for statement in statements if not dry_run else ():
            cursor.execute(statement)
    return statements
