"""The page that Prometheus reads: one for all processes of a web server, or of a worker.

prometheus_client counts in each process for itself. With ``PROMETHEUS_MULTIPROC_DIR`` the processes
share a folder of files, which are added up here, whichever process answers:
https://prometheus.github.io/client_python/multiprocess/
"""

import os
from contextlib import suppress
from pathlib import Path

import prometheus_client
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.multiprocess import MultiProcessCollector

from offers_project.monitoring.waiting import WaitingCollector


@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """What was counted since the start, and what waits. Answers whatever is away."""
    registry = counted()
    registry.register(WaitingCollector())
    page = prometheus_client.generate_latest(registry)
    return HttpResponse(page, content_type=prometheus_client.CONTENT_TYPE_LATEST)


def counted() -> CollectorRegistry:
    """The figures of this process, or of all that share the folder; asks nobody."""
    registry = CollectorRegistry()
    if settings.METRICS_DIR:
        _bury_the_dead(Path(settings.METRICS_DIR))
        MultiProcessCollector(registry, path=settings.METRICS_DIR)
    else:
        registry.register(prometheus_client.REGISTRY)
    return registry


def _bury_the_dead(folder: Path) -> None:
    """Drop gauges of processes that are gone: nobody of theirs waits or is busy any more.

    Their counters stay, since they happened. The servers that start processes have no hook for it.
    """
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        try:
            os.kill(int(pid), 0)  # asks whether there is one, and does nothing to it
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another scrape was faster
                multiprocess.mark_process_dead(pid, folder)
        except PermissionError:
            continue  # somebody else's
