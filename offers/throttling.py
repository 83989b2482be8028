"""Rate limits: django-ratelimit counts (on Redis, or in the process while Redis is away)."""

import unicodedata
from abc import ABC, abstractmethod
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from django.conf import settings
from django_ratelimit.core import get_usage
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle


class RateLimit(BaseThrottle, ABC):
    """One limit on one kind of request; DRF answers 429 `throttled` with ``Retry-After``.

    ``group`` names the counter, ``setting`` the setting with the rate (`10/m`). The pages, which
    aren't DRF's, call it with Django's own request.
    """

    group: str
    setting: str

    def __init__(self) -> None:
        self._seconds_left = 1.0

    @abstractmethod
    def key(self, request: Request) -> str:
        """What is counted: one counter for each value."""

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count the request; false when it is one too many."""
        value = self.key(request)

        def key(group: str, http_request: Any) -> str:
            return value

        usage = get_usage(
            getattr(request, "_request", request),
            group=self.group,
            key=key,
            rate=getattr(settings, self.setting),
            increment=True,
        )
        if usage is None or not usage["should_limit"]:
            return True
        # The window may end within this very second: a Retry-After of 0 would invite a refusal.
        self._seconds_left = max(1.0, usage["time_left"])
        return False

    def wait(self) -> float:
        """Seconds until the window ends."""
        return self._seconds_left


class PerAddress(RateLimit):
    """Base: counts by the client's address, as the proxy or the connection tells it."""

    def key(self, request: Request) -> str:
        address = str(request.META.get(settings.RATELIMIT_IP_META_KEY) or "unknown")
        return _network(address) if ":" in address else address


def _network(address: str) -> str:
    """The network of an IPv6 address: whoever has one has all of it, and could use each once.

    As django-ratelimit's own key "ip" has it, which would put all of IPv4 that is written as IPv6
    (``::ffff:192.0.2.1``) into one network. What is no address counts as it is.
    """
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    network = IPv6Network((found, settings.RATELIMIT_IPV6_MASK), strict=False)
    return str(network.network_address)


class PurchasesPerUser(RateLimit):
    group = "purchases"
    setting = "PURCHASE_RATE_LIMIT"

    def key(self, request: Request) -> str:
        return str(request.user.pk)


class PurchasesPerAddress(PerAddress):
    group = "purchases-address"
    setting = "PURCHASE_RATE_LIMIT_IP"


class LoginsPerName(RateLimit):
    """Counts attempts on one user name, wherever they come from."""

    group = "logins"
    setting = "LOGIN_RATE_LIMIT"

    def key(self, request: Any) -> str:
        data = request.data if isinstance(request, Request) else request.POST
        data = data if isinstance(data, dict) else {}
        # As the login forms read it, or each spelling of one name would have tries of its own.
        return unicodedata.normalize("NFKC", str(data.get("username", ""))).strip().lower()[:150]


class LoginsPerAddress(PerAddress):
    group = "logins-address"
    setting = "LOGIN_RATE_LIMIT_IP"
