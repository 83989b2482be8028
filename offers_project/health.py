"""``/livez`` and ``/readyz``, for whoever decides whether to restart us or to send us traffic."""

from django.core.cache import cache
from django.db import OperationalError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from offers.breaker import redis_breaker


@never_cache
def livez(request: HttpRequest) -> JsonResponse:
    """The process answers; nothing else is looked at, or an outage elsewhere would restart us."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Red without PostgreSQL, which nothing works without; `degraded` without Redis."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError:
        answer = JsonResponse({"status": "unavailable", "postgresql": "unavailable"}, status=503)
        answer["Retry-After"] = "2"
        return answer
    cache.get("readyz")
    redis = "degraded" if redis_breaker.is_open else "ok"
    return JsonResponse({"status": redis, "postgresql": "ok", "redis": redis})
