"""The cache on Redis, behind a breaker: it may vanish at any time and come back at any time."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.cache import caches
from django_redis.cache import RedisCache
from redis.exceptions import RedisError

from offers.breaker import redis_breaker


def _or_without_redis(name: str, without: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one cache operation: Redis if it is there, else the fallback cache, else ``without``."""
    operation = getattr(RedisCache, name)

    @wraps(operation)
    def guarded(self: "BreakerRedisCache", *args: Any, **kwargs: Any) -> Any:
        if redis_breaker.allows():
            try:
                answer = operation(self, *args, **kwargs)
            except (RedisError, OSError) as error:
                redis_breaker.failed(error)
            else:
                redis_breaker.succeeded()
                return answer
        if self.fallback is not None:
            return getattr(self.fallback, name)(*args, **kwargs)
        return without(*args, **kwargs)

    return guarded


class BreakerRedisCache(RedisCache):
    """django-redis that misses, instead of failing or waiting, while Redis is away.

    With ``OPTIONS["FALLBACK"]`` naming another cache, that one is used meanwhile: rate limits then
    count within each process. Used by ``settings.CACHES``; raises nothing about Redis.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        name = params.get("OPTIONS", {}).get("FALLBACK")
        self.fallback = caches[name] if name else None

    get = _or_without_redis("get", lambda key, default=None, **_: default)
    get_many = _or_without_redis("get_many", lambda *_, **__: {})
    set = _or_without_redis("set", lambda *_, **__: False)
    set_many = _or_without_redis("set_many", lambda data, *_, **__: list(data))
    add = _or_without_redis("add", lambda *_, **__: True)
    incr = _or_without_redis("incr", lambda key, delta=1, **_: delta)
    touch = _or_without_redis("touch", lambda *_, **__: False)
    delete = _or_without_redis("delete", lambda *_, **__: False)
    delete_many = _or_without_redis("delete_many", lambda *_, **__: 0)
    has_key = _or_without_redis("has_key", lambda *_, **__: False)
    clear = _or_without_redis("clear", lambda: False)


# Counts, and lets the count end by itself; both or neither.
COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count
"""


class CountingRedisCache(BreakerRedisCache):
    """For django-ratelimit, which counts by ``add(key, 1)`` and, if that was there, ``incr(key)``.

    Nearly always it is there: two trips to Redis, and a counter that ends between them is lost.
    Here ``add`` counts in one step, and the ``incr`` that follows it tells what came out.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._counted = threading.local()

    def add(self, key: Any, value: Any, timeout: Any = None, **kwargs: Any) -> Any:
        """Count; whether this is the first."""
        self._counted.last = None
        if value != 1 or timeout is None or not redis_breaker.allows():
            return super().add(key, value, timeout, **kwargs)
        name = self.client.make_key(key)
        try:
            count = self.client.get_client(write=True).eval(
                COUNT, 1, str(name), int(timeout * 1000)
            )
        except (RedisError, OSError) as error:
            redis_breaker.failed(error)
            return super().add(key, value, timeout, **kwargs)
        redis_breaker.succeeded()
        self._counted.last = (key, int(count))
        return count == 1

    def incr(self, key: Any, delta: int = 1, **kwargs: Any) -> Any:
        """What ``add`` has just counted, or else one more."""
        last, self._counted.last = getattr(self._counted, "last", None), None
        if last is not None and last[0] == key:
            return last[1]
        return super().incr(key, delta, **kwargs)
