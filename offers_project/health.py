"""``/livez`` and ``/readyz``, for whoever decides whether to restart us or to send us traffic."""

from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from offers.breaker import redis_breaker
from purchases import stripe_probe


def is_draining() -> bool:
    """Whether this server was asked to end, and waits until nobody sends it anything any more.

    See ``draining.py``, which names the file; without it a server is never draining.
    """
    return bool(settings.DRAINING_FILE) and Path(settings.DRAINING_FILE).exists()


@never_cache
def livez(request: HttpRequest) -> JsonResponse:
    """The process answers; nothing else is looked at, or an outage elsewhere would restart us.

    `draining` is for a proxy, to send nothing more; the process is as well as before.
    """
    return JsonResponse({"status": "draining" if is_draining() else "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Red without PostgreSQL, which nothing works without; `degraded` without Redis or Stripe.

    Red, too, when this server is about to end: others should be asked.
    """
    if is_draining():
        return _red({"status": "draining"})
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError:
        return _red({"status": "unavailable", "postgresql": "unavailable"})
    cache.get("readyz")
    parts = {
        "redis": not redis_breaker.is_open,
        "stripe": stripe_probe.is_well(),
    }
    said = {name: "ok" if is_well else "degraded" for name, is_well in parts.items()}
    status = "ok" if all(parts.values()) else "degraded"
    return JsonResponse({"status": status, "postgresql": "ok", **said})


def _red(said: dict[str, str]) -> JsonResponse:
    return JsonResponse(said, status=503, headers={"Retry-After": "2"})
