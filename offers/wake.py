"""Nudging the worker: a message that makes things happen sooner, never one that is needed."""

from typing import Any

from celery import current_app
from django.core.cache import cache
from kombu.exceptions import OperationalError

from offers.breaker import redis_breaker

# Seconds: by then a sweep has done it.
EXPIRES = 30


def wake(task_name: str, *args: Any) -> None:
    """Ask the worker to run ``task_name`` now; call it after the commit that the task will read.

    Raises nothing, and doesn't wait while Redis is away: whatever is to be done is a row in
    PostgreSQL, which the sweeps find within 30 s anyway. Tasks are named, not imported, so that an
    app can wake the ones above it.
    """
    # The cache has the shorter patience, 0.1 s: it finds out for us whether Redis answers at all.
    cache.get("wake")
    if redis_breaker.is_open:
        return
    try:
        current_app.send_task(
            task_name, args=args, retry=False, ignore_result=True, expires=EXPIRES
        )
    except (OperationalError, OSError) as error:
        redis_breaker.failed(error)
