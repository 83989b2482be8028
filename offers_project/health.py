"""``/livez`` and ``/readyz``, for whoever decides whether to restart us or to send us traffic."""

from django.core.cache import cache
from django.db import OperationalError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from offers.breaker import redis_breaker
from purchases import stripe_gateway


@never_cache
def livez(request: HttpRequest) -> JsonResponse:
    """The process answers; nothing else is looked at, or an outage elsewhere would restart us."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Red without PostgreSQL, which nothing works without; `degraded` without Redis or Stripe."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError:
        answer = JsonResponse({"status": "unavailable", "postgresql": "unavailable"}, status=503)
        answer["Retry-After"] = "2"
        return answer
    cache.get("readyz")
    parts = {"redis": not redis_breaker.is_open, "stripe": stripe_gateway.is_available()}
    said = {name: "ok" if is_well else "degraded" for name, is_well in parts.items()}
    status = "ok" if all(parts.values()) else "degraded"
    return JsonResponse({"status": status, "postgresql": "ok", **said})
