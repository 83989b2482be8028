"""A run: the databases filled, then rows and floors measured in turn, round by round."""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

import django
import psycopg

from tests.bench.load.load_generator import LoadGenerator
from tests.bench.load.stack import Stack

Say = Callable[[str], None]
ROUNDS = 5


def run(stack: Stack, clients: LoadGenerator, options: argparse.Namespace) -> int:
    """All of it; called by the command line. Returns the exit status."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {text}", flush=True)

    # This process fills the databases and asks them; it serves nothing.
    os.environ.update(
        stack.environment("small") | {"DB_POOL_SIZE": "0", "LOG_LEVEL": "ERROR"},
        DJANGO_SETTINGS_MODULE="offers_project.settings",
    )
    django.setup()
    from tests.bench.load import bench as benches
    from tests.bench.load import data, purchases, report
    from tests.bench.load.rows import Row

    databases = ["small", "large"] if options.large or not options.only else ["small"]
    sizes = data.QUICK if options.quick else data.FULL
    _fill(stack, databases, sizes, say)
    bench = benches.Bench(stack, clients, sizes, databases=databases, quick=options.quick)
    for database in databases:
        stack.start_web(database)
    with bench.database(bench.floor_database):
        purchases.make_floor()
    stack.start_floor(bench.floor_database)
    say("web servers up")

    families = [purchases.FAMILY]
    known = [row.name for family in families for row in family.rows]
    wanted = options.only or known
    if unknown := set(wanted) - set(known):
        say(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    results: defaultdict[str, list[benches.Measured]] = defaultdict(list)
    for family in families:
        rows = [row for row in family.rows if row.name in wanted]
        floors = [floor for floor in family.floors if any(floor.name in r.floors for r in rows)]
        work: dict[str, Callable[[], benches.Measured]] = {}

        def on(row: Row, database: str) -> Callable[[], benches.Measured]:
            return lambda: row.work(bench, database)

        for row in rows:
            for database in databases:
                work[f"{row.name}, {database}"] = on(row, database)
        for floor in floors:
            work[floor.name] = lambda floor=floor: floor.work(bench)
        try:
            for number in range(-1, rounds):
                bench.is_warming_up = number < 0
                for name, measure in work.items():
                    measured = measure()
                    if number >= 0:
                        results[name].append(measured)
                        say(f"{number + 1}/{rounds} {benches.line(name, measured)}")
            for database in databases:
                bench.check_invariants(database)
        except benches.Wrong as error:
            say(f"WRONG: {error}")
            return 1
        for row in rows:
            say(report.summary(row, databases, results))
    return 0


def _fill(stack: Stack, databases: list[str], sizes: object, say: Say) -> None:
    from django.core.management import call_command

    from tests.bench.load import bench as benches
    from tests.bench.load import data

    assert isinstance(sizes, data.Sizes)
    now = datetime.now(UTC)
    with psycopg.connect(stack.postgres.url, autocommit=True) as server:
        server.execute("CREATE DATABASE small")
        with benches.django_on("small"):
            call_command("migrate", verbosity=0)
            say("migrated")
            data.make_shop(sizes, now=now)
        if "large" in databases:
            server.execute("CREATE DATABASE large TEMPLATE small")
    for database in databases:
        size = sizes.large if database == "large" else sizes.small
        with benches.django_on(database):
            data.make_background(size, buyers=sizes.buyers, now=now)
            data.settle()
        say(f"{database}: {size.offers:,} offers more, {size.purchases:,} purchases")
