"""How pages hear of what is left: polling with validators, or server-sent events?

`python -m tests.bench.live_stock` starts PostgreSQL, Valkey and granian as production does, lets
200 viewers watch an event of 12 offers for 20 seconds, and prints a row for each way. What it
printed, and what follows from it, is in docs/benchmarks/live-stock.md. By hand: it wants the
machine for itself for two minutes.

The events come from `application` below, which production hasn't got: the cheapest that can be had
from a WSGI server. One thread looks for all viewers once a second, so a viewer costs no query.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import psutil

from tests.servers import ENVIRONMENT, Services

VIEWERS = 200
SECONDS = 20.0
EVENT = "live"
PAGE = f"/events/{EVENT}/offers/live?lang=en"
STREAM = "/bench/stream"
# As live.js: seconds from one look to the next.
SHORTEST, LONGEST, SLOWER = 3.0, 10.0, 1.25
PATIENCE = 5.0
SALE_EVERY = 5.0


# -- The server's side of server-sent events ------------------------------------------------------


class Ticker:
    """What is left, looked up once a second for everybody, from the first one who asks on."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.body = b""
        self.version = 0
        self.thread: threading.Thread | None = None

    def start(self, look: Any) -> None:
        with self.changed:
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, args=[look], daemon=True)
                self.thread.start()

    def _run(self, look: Any) -> None:
        while True:
            body = look()
            with self.changed:
                if body != self.body:
                    self.body, self.version = body, self.version + 1
                    self.changed.notify_all()
            time.sleep(1)

    def events(self) -> Iterable[bytes]:
        seen = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.version > seen)  # noqa: B023 - at once
                seen, body = self.version, self.body
            yield b"data: " + body + b"\n\n"


TICKER = Ticker()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The service, and an address that sends events."""
    from offers_project.wsgi import application as service

    if environ["PATH_INFO"] != STREAM:
        return service(environ, start_response)

    from django.test import Client

    TICKER.start(lambda: Client(headers={"Host": "127.0.0.1"}).get(PAGE).content)
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return TICKER.events()


# -- The viewers ----------------------------------------------------------------------------------


@dataclass
class Seen:
    """What the viewers of one run had; times in seconds."""

    sold_at: dict[int, float] = field(default_factory=dict)  # how many were left -> when
    delays: list[float] = field(default_factory=list)  # from a sale to the page
    others: list[float] = field(default_factory=list)  # until somebody else was answered
    served: set[int] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)

    def note(self, viewer: int, body: str) -> None:
        self.served.add(viewer)
        for stock in json.loads(body)["offers"].values():
            if stock["left"] in self.sold_at:
                self.delays.append(time.monotonic() - self.sold_at[stock["left"]])


async def poll(client: httpx.AsyncClient, viewer: int, seen: Seen) -> None:
    wait, known = SHORTEST, ""
    while True:
        # Nobody's safety hangs on this chance.
        await asyncio.sleep(wait * (0.75 + random.random() / 2))  # noqa: S311
        try:
            answer = await client.get(PAGE, headers={"If-None-Match": known})
        except httpx.TransportError as error:
            seen.failed[type(error).__name__] += 1
            continue
        if answer.status_code == 304:
            wait = min(LONGEST, wait * SLOWER)
        elif answer.status_code != 200:
            seen.failed[str(answer.status_code)] += 1
        else:
            wait, known = SHORTEST, answer.headers["ETag"]
            seen.note(viewer, answer.text)


async def listen(client: httpx.AsyncClient, viewer: int, seen: Seen) -> None:
    async with client.stream("GET", STREAM, timeout=None) as answer:
        async for line in answer.aiter_lines():
            if line:
                seen.note(viewer, line.removeprefix("data: "))


async def browse(client: httpx.AsyncClient, seen: Seen) -> None:
    """Somebody who wants something else of the service, four times a second."""
    while True:
        begun = time.monotonic()
        try:
            await client.get(f"/api/v1/offers/?event={EVENT}")
        except httpx.TransportError:
            seen.others.append(PATIENCE)
        else:
            seen.others.append(time.monotonic() - begun)
        await asyncio.sleep(0.25)


async def sell(seen: Seen, set_total: Any) -> None:
    """One unit now and then, of the few that are left; a new stock when it is gone."""
    left = 9
    while True:
        await asyncio.sleep(SALE_EVERY)
        left = left - 1 or 9
        await asyncio.to_thread(set_total, left)
        seen.sold_at[left] = time.monotonic()


async def watch(url: str, viewer: Any, set_total: Any) -> Seen:
    seen = Seen()
    unlimited = httpx.Limits(max_connections=None)
    options: Any = {"base_url": url, "trust_env": False, "timeout": PATIENCE, "limits": unlimited}
    async with httpx.AsyncClient(**options) as theirs, httpx.AsyncClient(**options) as other:
        tasks = [asyncio.create_task(viewer(theirs, n, seen)) for n in range(VIEWERS)]
        tasks.append(asyncio.create_task(browse(other, seen)))
        if set_total:
            tasks.append(asyncio.create_task(sell(seen, set_total)))
        await asyncio.sleep(SECONDS)
        seen.failed["gave up"] = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise ended
    return seen


# -- The runs -------------------------------------------------------------------------------------


def processor_seconds(pid: int) -> float:
    """What the server's processes have used so far."""
    server = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (server, *server.children(recursive=True)))


def run(name: str, viewer: Any, *, threads: int, set_total: Any) -> str:
    """A row of the table, by a server of its own."""
    from tests.service_processes import Processes

    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder), LOG_LEVEL="ERROR")
        server = processes.start_web(
            workers=1, threads=threads, application="tests.bench.live_stock:application"
        )
        processes.wait_until_up()
        try:
            before = processor_seconds(server.pid)
            seen = asyncio.run(watch(processes.url, viewer, set_total))
            used = processor_seconds(server.pid) - before
        finally:
            processes.stop()
    if seen.failed.total():
        print(f"{name}: {dict(seen.failed)}", file=sys.stderr)
    each = used / VIEWERS / SECONDS * 1000
    return (
        f"| {name} | {len(seen.served)} | {each:.2f} | {spread(seen.delays)} "
        f"| {spread(seen.others, 1000, 0)} |"
    )


def spread(values: list[float], factor: float = 1, digits: int = 1) -> str:
    """The middle one and the slowest of a hundred."""
    if len(values) < 2:
        return "–"
    cuts = quantiles(values, n=100, method="inclusive")
    return f"{cuts[49] * factor:.{digits}f} / {cuts[98] * factor:.{digits}f}"


HEAD = """
| way | served | processor for a viewer, ms/s | sale to page, s | other answers, ms |
| --- | ---: | ---: | ---: | ---: |"""


def main() -> int:
    os.environ |= ENVIRONMENT | {"LOG_LEVEL": "ERROR"}
    os.environ["DJANGO_SETTINGS_MODULE"] = "offers_project.settings"
    services = Services()
    try:
        services.start()
        import django

        django.setup()
        from django.core.management import call_command

        from offers.models import Offer
        from tests.factories import EventFactory, OfferFactory

        call_command("migrate", verbosity=0)
        event = EventFactory(slug=EVENT)
        sold = OfferFactory(event=event)
        OfferFactory.create_batch(11, event=event, inventory_total=500)

        def set_total(total: int) -> None:
            Offer.objects.filter(pk=sold.pk).update(inventory_total=total)

        print(HEAD)
        for name, viewer, threads, selling in (
            ("polling, 32 threads, sales", poll, 32, True),
            ("polling, 32 threads, nothing sold", poll, 32, False),
            ("events, 32 threads, sales", listen, 32, True),
            ("events, 256 threads, sales", listen, 256, True),
            ("events, 256 threads, nothing sold", listen, 256, False),
        ):
            how = set_total if selling else None
            print(run(name, viewer, threads=threads, set_total=how), flush=True)
    finally:
        services.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
