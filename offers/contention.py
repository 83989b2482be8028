"""Transactions that stand in each other's way: how often to try again, and how long to wait.

PostgreSQL ends one of two deadlocked transactions, and one that it can't serialize, and expects
them to be tried again: https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import stamina
from django.db import OperationalError, connection
from psycopg import errors as pg

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
    """Wait less for locks than ``LOCK_TIMEOUT_MS`` within the block; outside any transaction.

    Nothing in the block may give the connection back: the setting belongs to it, and must be reset
    before anybody else gets it.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{milliseconds}ms"])
    try:
        yield
    finally:
        # A connection that broke meanwhile takes its settings with it.
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")
