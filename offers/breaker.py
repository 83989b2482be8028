"""A circuit breaker: after one failure Redis is left alone for some seconds."""

import threading
import time

import structlog
from django.conf import settings

from offers import metrics

logger = structlog.get_logger(__name__)


class Breaker:
    """Remembers, per process, whether a service is worth waiting for.

    Closed: calls go through. After a failure it is open for ``settings.REDIS_BREAKER_SECONDS``:
    callers skip the service without waiting. Then one caller at a time may try; success closes it.
    One warning an outage and one line when it ends, however many calls were skipped.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._guard = threading.Lock()
        self._open_until = 0.0
        self._failing = False

    def allows(self) -> bool:
        """Whether to call the service now; of many threads after an outage, one gets to try."""
        if not self._failing:
            return True
        with self._guard:
            now = time.monotonic()
            if now < self._open_until:
                return False
            # The others go on without for as long as this try may take, and a little more.
            self._open_until = now + settings.REDIS_BREAKER_SECONDS
            return True

    def failed(self, error: Exception) -> None:
        """Note a failure: the service is skipped for some seconds."""
        with self._guard:
            first = not self._failing
            self._failing = True
            self._open_until = time.monotonic() + settings.REDIS_BREAKER_SECONDS
        if first:
            metrics.service_away.labels(self.name).set(1)
            logger.warning("service away, going on without", service=self.name, error=str(error))

    def succeeded(self) -> None:
        """Note an answer: the service is used again."""
        if not self._failing:
            return
        with self._guard:
            was_failing, self._failing = self._failing, False
        if was_failing:
            metrics.service_away.labels(self.name).set(0)
            logger.info("service back", service=self.name)

    @property
    def is_open(self) -> bool:
        """Whether the last call failed and none has succeeded since; shown by ``/readyz``."""
        return self._failing


redis_breaker = Breaker("redis")
