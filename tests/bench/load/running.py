"""A run: the databases filled, then rows and floors measured in turn, round by round."""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import redis
from django.core.management import call_command

from offers_project.local.environment import ROOT
from tests.bench.load import (
    data,
    document,
    fulfilment,
    lists,
    memory,
    picture,
    purchases,
    report,
    sold_out,
    sweep,
    webhooks,
)
from tests.bench.load.bench import Bench, django_on
from tests.bench.load.figures import name_of
from tests.bench.load.load_generator import LoadGenerator
from tests.bench.load.measured import Measured, Wrong, line
from tests.bench.load.rows import Family
from tests.bench.load.stack import CACHES, Stack

Say = Callable[[str], None]
ROUNDS = 5
DOCUMENTS = ROOT / "docs" / "benchmarks"
FAMILIES = (
    purchases.FAMILY,
    sold_out.FAMILY,
    lists.FAMILY,
    webhooks.FAMILY,
    sweep.FAMILY,
    fulfilment.FAMILY,
    memory.FAMILY,
)


class NoSuchRow(Exception):
    """The command line names a row that there isn't; the text says which there are."""


class Run:
    """What is measured, and how; ``results`` are the rounds, by what was measured."""

    def __init__(self, bench: Bench, databases: Sequence[str], *, rounds: int, say: Say) -> None:
        self.results: defaultdict[str, list[Measured]] = defaultdict(list)
        self._floors: set[str] = set()
        self._bench = bench
        self._databases = databases
        self._rounds = rounds
        self._say = say

    def measure(self, family: Family) -> None:
        """Measure each row on each database and each floor, in turn. Raises ``Wrong``.

        Two rounds that don't count come first, to warm up what is measured: one with few clients,
        one with all of them.
        """
        work = self._work(family)
        for number in range(-1, self._rounds + 1):
            self._bench.is_gentle = number < 0 or self._bench.quick
            self._bench.is_warming_up = number < 1
            if number == 0 and self._bench.quick:
                continue
            for name, (measure, rounds) in work.items():
                if number > rounds or (number < 0 and name in self._floors):
                    continue
                measured = measure()
                if number > 0:
                    self.results[name].append(measured)
                    self._say(f"{number}/{rounds} {line(name, measured)}")
        for database in self._databases:
            self._bench.check_invariants(database)
        self._bench.stop_workers()

    def _work(self, family: Family) -> dict[str, tuple[Callable[[], Measured], int]]:
        """What makes up a round, by name, with the number of rounds it takes part in."""
        work: dict[str, tuple[Callable[[], Measured], int]] = {}
        for row in family.rows:
            for database in self._databases if row.rounds is None else self._databases[-1:]:
                work[name_of(row, database)] = (
                    lambda row=row, database=database: row.work(self._bench, database),
                    min(row.rounds or self._rounds, self._rounds),
                )
        for floor in family.floors:
            of = [row for row in family.rows if floor.name in row.floors]
            if of:
                rounds = max(min(row.rounds or self._rounds, self._rounds) for row in of)
                self._floors.add(floor.name)
                work[floor.name] = (lambda floor=floor: floor.work(self._bench), rounds)
        return work


def run(stack: Stack, clients: LoadGenerator, options: argparse.Namespace) -> int:
    """All of it; called by the command line. Returns the exit status."""
    begun = time.monotonic()
    busy = os.getloadavg()[0]

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {text}", flush=True)

    families = _wanted(options.only)
    databases = ["small", "large"] if options.large or not options.only else ["small"]
    sizes = data.QUICK if options.quick else data.FULL
    _fill(stack, databases, sizes, say)
    bench = Bench(stack, clients, sizes, databases=databases, quick=options.quick)
    for database in databases:
        stack.start_web(database)
    stack.start_floor(bench.floor_database)
    say("the web servers are up")

    rounds = options.rounds or (1 if options.quick else ROUNDS)
    this = Run(bench, databases, rounds=rounds, say=say)
    try:
        for family in families:
            this.measure(family)
            _forget_messages(stack, databases)
            for row in family.rows:
                say(report.summary(row, databases, this.results))
        facts = document.Facts(
            sizes=sizes,
            databases=databases,
            rounds=rounds,
            versions=stack.versions(),
            servers=stack.image.env,
            minutes=(time.monotonic() - begun) / 60,
            day=datetime.now(UTC),
            busy=busy,
        )
        if to := _folder(options, stack):
            to.mkdir(parents=True, exist_ok=True)
            page = document.written(families, this.results, facts)
            (to / "load.md").write_text(page, encoding="utf-8")
            picture.draw(families, this.results, databases[-1], to / "load.png")
            say(f"written to {to}")
    except Wrong as error:
        say(f"WRONG: {error}")
        return 1
    finally:
        bench.stop_workers()
    return 0


def _folder(options: argparse.Namespace, stack: Stack) -> Path | None:
    """Where the report goes: that of a quick run, which measures nothing, goes with its data."""
    if options.output or options.only:
        return options.output
    return stack.folder / "report" if options.quick else DOCUMENTS


def _wanted(names: Sequence[str] | None) -> list[Family]:
    """The families with the rows that are to be measured. Raises ``NoSuchRow``."""
    known = [row.name for family in FAMILIES for row in family.rows]
    if unknown := set(names or ()) - set(known):
        raise NoSuchRow(f"No row {', '.join(sorted(unknown))}: there are {', '.join(known)}.")
    families = []
    for family in FAMILIES:
        rows = tuple(row for row in family.rows if not names or row.name in names)
        if rows:
            families.append(replace(family, rows=rows))
    return families


def _fill(stack: Stack, databases: Sequence[str], sizes: data.Sizes, say: Say) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(stack.postgres.url, autocommit=True) as server:
        server.execute("CREATE DATABASE small")
        with django_on("small"):
            call_command("migrate", verbosity=0)
            data.make_shop(sizes, now=now)
        if "large" in databases:
            server.execute("CREATE DATABASE large TEMPLATE small")
    for database in databases:
        size = sizes.large if database == "large" else sizes.small
        with django_on(database):
            data.make_background(size, buyers=sizes.buyers, now=now)
            if database == databases[-1]:
                data.make_floor()
            data.settle()
        say(f"{database}: {size.offers:,} offers more, {size.purchases:,} purchases")


def _forget_messages(stack: Stack, databases: Sequence[str]) -> None:
    """Drop the nudges that no worker has taken: a queue that grows is no part of the next row."""
    for database in databases:
        with redis.Redis.from_url(f"{stack.valkey.url}/{CACHES[database]}") as cache:
            cache.flushdb()
