"""One measurement, and what it takes to make it."""

import http
import itertools
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.contrib.auth.models import User
from django.db import connection
from rest_framework_simplejwt.tokens import AccessToken

from purchases import reconciliation
from tests.bench.load import cpu
from tests.bench.load.data import Sizes
from tests.bench.load.load_generator import Job, LoadGenerator
from tests.bench.load.stack import Stack

GROUPS = ("clients", "web", "PostgreSQL", "Valkey", "Stripe")


class Wrong(Exception):
    """The service did what it must not: the run fails. The text says what."""


@dataclass
class Measured:
    """One round of one piece of work. ``cpu`` is in seconds, by group of processes."""

    answers: int
    seconds: float
    cpu: dict[str, float]
    latencies: list[float] = field(default_factory=list)
    # Figures that only some rows have, by what they are.
    also: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def percentile(self, percent: int) -> float:
        """Seconds within which so many of a hundred answers came."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] if self.latencies else 0.0

    def cpu_ms(self, group: str) -> float:
        """Processor time for each answer."""
        return self.cpu.get(group, 0.0) * 1000 / self.answers

    @property
    def clients_share(self) -> float:
        """The clients' part of all processor time."""
        return self.cpu.get("clients", 0.0) / (sum(self.cpu.values()) or 1.0)


class Bench:
    """The stack under load: what the rows of the table measure with."""

    def __init__(
        self,
        stack: Stack,
        clients: LoadGenerator,
        sizes: Sizes,
        *,
        databases: list[str],
        quick: bool,
    ) -> None:
        self.stack = stack
        self.quick = quick
        self.is_warming_up = True
        # Where the tables of the floor are, beside as many rows as there are.
        self.floor_database = databases[-1]
        self._clients = clients
        self._tokens: dict[int, str] = {}
        self._buyers = itertools.cycle(range(1, sizes.buyers + 1))
        self._keys = itertools.count()
        self._begun = time.time_ns()

    def seconds(self, full: float) -> float:
        """How long to measure; the first round only warms everything up."""
        return min(full, 0.5 if self.quick else 1.0 if self.is_warming_up else full)

    def load(
        self,
        web: str,
        requests: Sequence[bytes],
        *,
        connections: int,
        expect: Collection[int],
        seconds: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Measured:
        """Send the requests and count. Raises ``Wrong`` for a status that isn't expected."""
        roots = self.stack.roots(web) | {"clients": self._clients.pid}
        taken: list[dict[str, float]] = []

        def look() -> None:
            taken.append(cpu.seconds(roots))

        job = Job(self.stack.ports[web], connections, requests, seconds)
        outcome = self._clients.run(job, before=look, meanwhile=meanwhile, after=look)
        for status, count in sorted(outcome.statuses.items()):
            if status not in expect:
                shown = outcome.examples[status].decode(errors="replace")
                name = http.HTTPStatus(status).phrase
                raise Wrong(f"{count} answers {status} {name} from {web}, such as:\n{shown}")
        measured = Measured(
            answers=outcome.statuses.total(),
            seconds=outcome.seconds,
            cpu=cpu.between(*taken),
            latencies=outcome.latencies,
        )
        measured.also.update({f"{s}": float(n) for s, n in outcome.statuses.items()})
        return measured

    # -- Requests ---------------------------------------------------------------------------------

    def next_buyer(self) -> int:
        """The id of one who hasn't bought for longest: each keeps their own limits."""
        return next(self._buyers)

    def purchases(self, offer_id: object, count: int) -> list[bytes]:
        """Requests of so many buyers, each for one unit, each with a key of its own."""
        body = f'{{"offer": "{offer_id}", "quantity": 1}}'
        return [
            request(
                "POST",
                "/api/v1/purchases/",
                f"Authorization: Bearer {self.token(self.next_buyer())}",
                f"Idempotency-Key: {self._begun}-{next(self._keys)}",
                "Content-Type: application/json",
                body=body,
            )
            for _ in range(count)
        ]

    def token(self, user_id: int) -> str:
        """What the login gives, made once."""
        if user_id not in self._tokens:
            # As `make_shop` made them: the password is part of what the token proves.
            self._tokens[user_id] = str(AccessToken.for_user(User(pk=user_id, password="!")))
        return self._tokens[user_id]

    # -- Databases --------------------------------------------------------------------------------

    @contextmanager
    def database(self, name: str) -> Iterator[None]:
        """Django's connection of this process is to that database."""
        with django_on(name):
            yield

    def check_invariants(self, database: str) -> None:
        """Raise ``Wrong`` if an offer's counters say something else than its purchases do."""
        with django_on(database):
            connection.ensure_connection()
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = 0")
            found = [str(difference) for difference in reconciliation.counter_differences()]
        if found:
            raise Wrong("\n".join(found[:10]))

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection past the service's code."""
        return psycopg.connect(self.stack.database_url(database), autocommit=True)


@contextmanager
def django_on(database: str) -> Iterator[None]:
    """Django's connection of this process is to that database."""
    connection.close()
    connection.settings_dict["NAME"] = database
    try:
        yield
    finally:
        connection.close()


def line(name: str, measured: Measured) -> str:
    """A round in one line."""
    groups = [f"{group} {measured.cpu_ms(group):.2f}" for group in GROUPS]
    return (
        f"{name:28} {measured.rate:8.1f}/s  p50 {measured.percentile(50) * 1000:6.1f} ms  "
        f"p95 {measured.percentile(95) * 1000:6.1f} ms  CPU ms: {', '.join(groups)}  "
        f"(clients {measured.clients_share:.1%})"
    )


def request(method: str, path: str, *headers: str, body: str = "") -> bytes:
    """A request as a client behind the proxy sends it."""
    content = body.encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "Accept: application/json",
        *headers,
        *([f"Content-Length: {len(content)}"] if content else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
