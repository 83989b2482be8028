"""Nudging the worker: a message that makes things happen sooner, never one that is needed."""

import threading
import time
from typing import Any

from celery import current_app
from django.core.cache import cache
from kombu.exceptions import OperationalError

from offers.breaker import redis_breaker

# Seconds: by then a sweep has done it.
EXPIRES = 30
# Seconds. Of what comes faster than that, all but the first is told together at its end.
RUSH = 0.1


def wake(task_name: str, *args: Any, together: str | None = None) -> None:
    """Ask the worker to run ``task_name`` now; call it after the commit that the task will read.

    Raises nothing, and doesn't wait while Redis is away: whatever is to be done is a row in
    PostgreSQL, which the sweeps find within 30 s anyway. Tasks are named, not imported, so that an
    app can wake the ones above it.

    A message costs as much as some of the requests that send one. So for what may come hundreds of
    times a second ``together`` names the sweep that finds all of it: in a rush one message asks for
    that, ``RUSH`` seconds later, instead of one for each.
    """
    if together is None or _rush.is_over(together):
        _send(task_name, args)


def _send(task_name: str, args: tuple[Any, ...]) -> None:
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


class _Rush:
    """When this process last sent a message of each kind, and whether one is yet to be sent."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._next: dict[str, float] = {}
        self._waiting: set[str] = set()

    def is_over(self, sweep: str) -> bool:
        """Whether to send a message at once; if not, ``sweep`` is asked for in a moment."""
        with self._guard:
            now = time.monotonic()
            if sweep in self._waiting:
                return False
            left = self._next.get(sweep, 0.0) - now
            if left <= 0:
                self._next[sweep] = now + RUSH
                return True
            self._waiting.add(sweep)
        try:
            # No daemon: a process that ends waits for it.
            threading.Timer(left, self._send, (sweep,)).start()
        except RuntimeError:  # no thread to be had: the sweep comes by itself
            with self._guard:
                self._waiting.discard(sweep)
        return False

    def _send(self, sweep: str) -> None:
        with self._guard:
            self._waiting.remove(sweep)
            self._next[sweep] = time.monotonic() + RUSH
        _send(sweep, ())


_rush = _Rush()
