"""Connections to Stripe, for its SDK: what that needs of a ``requests.Session``, at half the cost.

All that is sent is a form to one host, and an answer's body is small. ``requests`` prepares for
redirects, cookies, hooks and authentication, for which a purchase would pay as for two queries.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import requests
import urllib3
from urllib3 import exceptions as http


@dataclass(frozen=True, slots=True)
class Answer:
    """What the SDK reads of a ``requests.Response``."""

    content: bytes
    status_code: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class Tries:
    """The requests of one call, with those that the SDK repeats."""

    made: int = 0
    unconnected: int = 0

    @property
    def reached_nobody(self) -> bool:
        """Whether none of them got as far as a connection: then Stripe was asked nothing.

        False where nothing was counted, as with a proxy, which may have passed something on.
        """
        return 0 < self.made == self.unconnected


_tries: ContextVar[Tries] = ContextVar("tries")


@contextmanager
def counted() -> Iterator[Tries]:
    """Count the requests that ``DirectConnections`` makes for this thread within the block."""
    tries = Tries()
    token = _tries.set(tries)
    try:
        yield tries
    finally:
        _tries.reset(token)


class DirectConnections:
    """Kept open, and shared by all threads; ``number`` of them, and more are closed after use."""

    def __init__(self, *, number: int, ca_bundle: str) -> None:
        self._pool = urllib3.PoolManager(maxsize=number, ca_certs=ca_bundle)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        data: str | None,
        timeout: tuple[float, float],
        verify: object,
    ) -> Answer:
        """Send a request, once. Raises errors of ``requests``, by which the SDK decides.

        One that breaks off within its answer is a lost connection here, and so is repeated by the
        SDK as any other (with the same ``Idempotency-Key``); to ``requests`` it isn't. Seconds to
        connect and between two pieces of the answer. ``verify`` is the bundle again.
        """
        connect, read = timeout
        headers = {"Accept-Encoding": "gzip, deflate", **(headers or {})}
        with _errors_of_requests():
            answer = self._pool.urlopen(
                method.upper(),
                url,
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=connect, read=read),
                retries=False,
                redirect=False,
            )
        return Answer(answer.data, answer.status, answer.headers)

    def close(self) -> None:
        self._pool.clear()


@contextmanager
def _errors_of_requests() -> Iterator[None]:
    tries = _tries.get(None) or Tries()
    tries.made += 1
    try:
        yield
    except http.ConnectTimeoutError as error:
        # Its kinds are all that can happen before a connection: no name, nobody there, no answer.
        tries.unconnected += 1
        raise requests.exceptions.ConnectionError(error) from error
    except http.SSLError as error:
        raise requests.exceptions.SSLError(error) from error
    except http.ProtocolError as error:
        raise requests.exceptions.ConnectionError(error) from error
    except http.TimeoutError as error:
        raise requests.exceptions.Timeout(error) from error
    except http.HTTPError as error:
        raise requests.exceptions.RequestException(error) from error
