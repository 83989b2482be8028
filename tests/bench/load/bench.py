"""One measurement, and what it takes to make it."""

import http
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.contrib.auth.models import User
from django.db import connection
from rest_framework_simplejwt.tokens import AccessToken

from purchases import reconciliation
from tests.bench.load import cpu
from tests.bench.load.data import Sizes
from tests.bench.load.load_generator import Job, LoadGenerator
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.stack import Stack
from tests.bench.load.worker import Worker

GENTLY = 8


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
        # At first only a few connections: a process that has just started isn't to be judged by it.
        self.is_gentle = True
        # Where the tables of the floor are, beside as many rows as there are.
        self.floor_database = databases[-1]
        self._clients = clients
        self._tokens: dict[int, str] = {}
        self.buyers = sizes.buyers
        self._buyer = 0
        self._keys = itertools.count()
        self._begun = time.time_ns()
        self._added = 0
        self._workers: dict[str, Worker] = {}
        # The offer that was sold out last, by database.
        self.sold_out: dict[str, object] = {}

    @property
    def is_short(self) -> bool:
        """Whether as little as possible is to be done: the first round only warms things up."""
        return self.quick or self.is_warming_up

    def seconds(self, full: float) -> float:
        """How long to measure."""
        return min(full, 0.5 if self.quick else 1.0 if self.is_warming_up else full)

    def worker(self, database: str) -> Worker:
        """The process that runs tasks, started when it is first asked for."""
        if database not in self._workers:
            self._workers[database] = Worker(self.stack, database)
        return self._workers[database]

    def stop_workers(self) -> None:
        """End those processes: nothing of theirs runs beside other rows."""
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

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
        if self.is_gentle:
            connections = min(connections, GENTLY)
        roots = self.stack.roots(web) | {"clients": [self._clients.pid]}
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
        return Measured(
            answers=outcome.statuses.total(),
            seconds=outcome.seconds,
            cpu=cpu.between(*taken),
            latencies=outcome.latencies,
            statuses=outcome.statuses,
        )

    # -- Requests ---------------------------------------------------------------------------------

    def buy(
        self, web: str, offer_id: object, *, connections: int, count: int, **how: Any
    ) -> Measured:
        """Purchases of up to ``count`` buyers at one web server: see ``load``."""
        measured = self.load(web, self.purchases(offer_id, count), connections=connections, **how)
        self._buyer -= count - measured.answers  # those whose turn it wasn't are next
        return measured

    def next_buyer(self) -> int:
        """The id of one who hasn't bought for longest: each keeps within their own limits."""
        self._buyer += 1
        return 1 + self._buyer % self.buyers

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

    def numbers(self, count: int) -> range:
        """So many numbers that nothing else has: for what a round adds to a database."""
        self._added += count
        return range(self._added - count, self._added)

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
