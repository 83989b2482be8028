"""Whether Stripe's address can be connected to, for who asks after our health: a look now and then.

It sends nothing, so it counts against no limit. A purchase finds out by itself.
"""

import math
import socket
import threading
import time
from functools import lru_cache
from urllib.parse import urlsplit

import requests
from django.conf import settings

from offers.turns import let_others
from purchases import stripe_gateway

# Seconds. A look is repeated after so long.
AGAIN = 10.0
# So long ``/readyz`` waits for a look, and no longer: its caller takes a late answer for none.
PATIENCE = 0.3


class Address:
    """Somewhere to connect to; a thread of its own looks, since a name server may hang, too."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._guard = threading.Lock()
        self._began = -math.inf
        self._is_over = threading.Event()
        self._is_over.set()
        self._is_there = True

    def is_there(self) -> bool:
        """What the last look found; the first one, or one that takes long, isn't waited for."""
        with self._guard:
            is_due = self._is_over.is_set() and time.monotonic() - self._began >= AGAIN
            if is_due:
                self._began = time.monotonic()
                self._is_over.clear()
        if is_due:
            self._start()
        if not self._is_over.is_set():
            with let_others():
                self._is_over.wait(PATIENCE)
        return self._is_there

    def _start(self) -> None:
        try:
            threading.Thread(target=self._look, name="stripe-probe", daemon=True).start()
        except RuntimeError:  # no more threads: another time
            self._is_over.set()

    def _look(self) -> None:
        try:
            socket.create_connection(self._where, timeout=settings.STRIPE_CONNECT_TIMEOUT).close()
        except OSError:
            self._is_there = False
        else:
            self._is_there = True
        finally:
            self._is_over.set()


def is_well() -> bool:
    """Whether Stripe is configured, could be connected to a moment ago, and failed no call since.

    Called by ``/readyz`` and by the back-office's dashboard.
    """
    if not stripe_gateway.is_available():
        return False
    address = _address(settings.STRIPE_API_BASE)
    return address is None or address.is_there()


@lru_cache(maxsize=4)
def _address(base: str) -> Address | None:
    """``None`` where a proxy stands between us and Stripe: only it can connect."""
    if requests.utils.select_proxy(base, requests.utils.get_environ_proxies(base)):
        return None
    parts = urlsplit(base)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Address(parts.hostname or "", port)
