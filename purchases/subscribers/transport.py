"""One request to a server that may do anything: hang, redirect, never stop answering.

``requests-hardened`` sees to where the request goes (``addresses``). Its answer is bounded here:
in time as a whole, since the time-outs of a socket begin again with each byte; and in size.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import requests
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_match_hostname import CertificateError

from purchases.errors import AddressRefused
from purchases.subscribers.addresses import PinnedAdapter, check

# Seconds: to connect (with TLS), for a sign of life, and for everything after the name is looked
# up. Looking up a name takes as long as the machine's resolver lets it.
CONNECT, READ, TOTAL = 3.0, 10.0, 15.0
# Bytes of the answer that are read, and characters of it that are kept.
MOST = 64 * 1024
EXCERPT = 1000


@dataclass(frozen=True)
class Answer:
    """What a server said, and ``error``, in words for staff, where that isn't 2xx.

    Without an answer there is no ``status``.
    """

    status: int | None
    body: str
    error: str
    milliseconds: int

    @property
    def is_accepted(self) -> bool:
        return not self.error


def post(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Send ``body``; called outside any transaction. Raises nothing: a failure is an ``Answer``."""
    began = time.monotonic()
    status, text = None, ""
    try:
        check(url)
        with _Deadline(TOTAL) as deadline, _session() as session:
            try:
                with session.post(url, data=body, headers=headers, stream=True) as response:
                    if deadline.is_over:  # what was cut off looks like an answer without headers
                        raise requests.Timeout
                    status, text = response.status_code, _beginning_of(response)
                    error = _complaint(response.status_code)
            except (requests.RequestException, HTTPError, OSError, ValueError) as failure:
                error = _in_words(failure, took_too_long=deadline.is_over)
    except AddressRefused as refused:
        error = str(refused)
    return Answer(status, text, error, round((time.monotonic() - began) * 1000))


def _session() -> requests.Session:
    session: requests.Session = _Session(
        Config(
            ip_filter_enable=True,
            ip_filter_allow_loopback_ips=False,  # the adapters below have the last word
            never_redirect=True,
            default_timeout=(CONNECT, READ),
            user_agent_override="Offers-Webhooks/1.0",
        )
    )
    # No proxy and no password from the environment: a proxy would look the name up again.
    session.trust_env = False
    session.mount("https://", _Adapter(is_https=True))
    session.mount("http://", _Adapter(is_https=False))
    # What is read is what was sent: nothing to unpack that grows.
    session.headers["Accept-Encoding"] = "identity"
    return session


class _Session(HTTPSession):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere. Otherwise requests reads all of a redirect's body, though it won't follow it."""


def _beginning_of(response: requests.Response) -> str:
    """As much of the answer as is kept. One that breaks off was an answer all the same."""
    found = bytearray()
    with contextlib.suppress(HTTPError, OSError, http.client.HTTPException):
        while len(found) < MOST:
            piece = response.raw.read1(MOST - len(found), decode_content=False)
            if not piece:
                break
            found += piece
    # PostgreSQL stores no NUL.
    return found.decode(errors="replace").replace("\0", "\ufffd")[:EXCERPT]


def _complaint(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"It answered {status}, a redirect, which is not followed: enter where it leads to."
    return f"It answered {status}."


def _in_words(failure: BaseException, *, took_too_long: bool) -> str:
    """For staff. Not the library's message, which has the whole address, keys in it included."""
    if took_too_long:
        return f"It took longer than {TOTAL:g} seconds to answer."
    if isinstance(failure, requests.ConnectTimeout):
        return f"No connection within {CONNECT:g} seconds."
    if isinstance(failure, requests.Timeout):
        return f"No answer within {READ:g} seconds."
    if isinstance(failure, InvalidIPAddress):
        return "Its name leads to an address that is not on the public internet."
    if isinstance(failure, requests.exceptions.SSLError):
        return f"No secure connection: {_why_not_secure(failure)}."
    return "The connection was refused, or broke off."


def _why_not_secure(failure: BaseException) -> str:
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return str(getattr(cause, "verify_message", "") or cause.reason)
        if isinstance(cause, CertificateError):
            return "its certificate is for another name"
        cause = cause.__cause__ or cause.__context__
    return "it broke off"


class _Deadline:
    """Ends connections by force once time is over, whatever they are waiting for."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._outer = _deadline.set(self)
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _deadline.reset(self._outer)

    def watch(self, connected: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connected)
            if self.is_over:
                self._shut()

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            self._shut()

    def _shut(self) -> None:
        for connected in self._sockets:
            # Of the plain socket: TLS's own would first say goodbye to the other side.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


_deadline: ContextVar[_Deadline] = ContextVar("deadline")


class _WatchedHTTP(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _deadline.get().watch(self.sock)


class _WatchedHTTPS(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _deadline.get().watch(self.sock)


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class _Adapter(PinnedAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have connections made that the deadline can end."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
