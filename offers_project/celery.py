"""Celery, and a beat that keeps sweeping when the broker is away."""

import os
from typing import Any

import structlog
from celery import Celery
from celery.beat import PersistentScheduler, SchedulingError
from celery.signals import worker_init
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "offers_project.settings")

app = Celery("offers")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

logger = structlog.get_logger(__name__)


@worker_init.connect
def tell_what_is_counted(**_: object) -> None:
    """Serve a worker's own figures, where a port is set for it; called by Celery at the start."""
    if settings.WORKER_METRICS_PORT:
        # Both need the settings, and this module is imported before them.
        from prometheus_client import start_http_server

        from offers_project.monitoring.exposition import counted

        start_http_server(settings.WORKER_METRICS_PORT, registry=counted())


class BrokerlessScheduler(PersistentScheduler):
    """Beat's own scheduler, but a sweep that can't be sent is run here, in beat's process.

    Redis only makes things fast: with the broker away, holds must still end and events must still
    be processed. A sweep that runs here and in a worker at once does nothing twice.
    """

    # Beat's own producer waits for a broker for ever; without it each task is published over the
    # application's pool, which fails at once and reconnects by itself.
    producer: Any = None

    def apply_async(
        self,
        entry: Any,
        producer: Any = None,
        advance: bool = True,  # noqa: FBT001, FBT002 - as the overridden method has it
        **kwargs: Any,
    ) -> Any:
        """Send the entry's task; run it in place when the broker refuses."""
        try:
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        except SchedulingError:
            logger.warning("broker away: beat runs the sweep itself", task=entry.task)
            return self.app.tasks[entry.task].apply(args=entry.args, kwargs=entry.kwargs)
