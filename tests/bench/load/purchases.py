"""Fifty buyers at once after one offer with ample stock."""

from collections.abc import Callable
from typing import Any

import psycopg

from tests.bench.load import pgbench, row_lock
from tests.bench.load.bench import Bench, request
from tests.bench.load.data import FOR_PGBENCH, FOR_THE_VIEW, FREE, HOT, PRICED, id_of
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.rows import Family, Floor, Goal, Row, Work, WorkOn

BUYERS = 50
SECONDS = 3.0
SLOW_STRIPE = 0.3
# Longer than the others: all begin at once, and of three seconds' answers that wave is an eighth.
SECONDS_SLOW = 8.0
TRANSACTIONS_QUICK = 5  # of each of pgbench's clients
# More than can be answered in that time.
MOST = 6_000

# The lock transaction by itself: read the row with its lock, write it, insert.
LOCK = """
BEGIN;
SELECT id, name, total, sold FROM floor_stock WHERE id = :stock FOR UPDATE;
UPDATE floor_stock SET sold = sold + 1 WHERE id = :stock;
INSERT INTO floor_sale (stock_id, buyer, quantity, created_at) VALUES (:stock, 1, 1, now());
COMMIT;
"""


def _free(bench: Bench, database: str) -> Measured:
    measured = _buy(bench, database, FREE)
    if not bench.is_warming_up:
        measured.also["row held, ms"] = row_lock.held_milliseconds(
            bench, database, lambda: _buy(bench, database, FREE, seconds=1.0)
        )
    return measured


def _priced(latency: float) -> WorkOn:
    def work(bench: Bench, database: str) -> Measured:
        bench.stack.set_stripe(latency=latency)
        with bench.connect(database) as connection:
            watch = Watch(connection, database)
            seconds = SECONDS_SLOW if latency else SECONDS
            measured = _buy(bench, database, PRICED, seconds=seconds, meanwhile=watch.look)
        asked = bench.stack.stripe_requests()["requests"]
        bench.stack.set_stripe()
        if asked != measured.answers:
            raise Wrong(f"{measured.answers} purchases asked Stripe {asked} times")
        measured.also["PostgreSQL connections"] = watch.most
        measured.also["of them busy"] = watch.most_busy
        measured.also["p95, ms"] = round(measured.percentile(95) * 1000, 1)
        return measured

    return work


def _buy(
    bench: Bench,
    database: str,
    offer: int,
    *,
    seconds: float = SECONDS,
    meanwhile: Callable[[], None] | None = None,
) -> Measured:
    return bench.buy(
        database,
        id_of(HOT, offer),
        connections=BUYERS,
        count=MOST,
        seconds=bench.seconds(seconds),
        expect={201},
        meanwhile=meanwhile,
    )


class Watch:
    """The most connections to a database that were open, and that were not idle."""

    SAMPLE = """
        SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
        WHERE datname = %s AND backend_type = 'client backend' AND pid <> pg_backend_pid()
          AND application_name <> 'floor'
    """

    def __init__(self, connection: psycopg.Connection[Any], database: str) -> None:
        self.most = self.most_busy = 0
        self._connection = connection
        self._database = database

    def look(self) -> None:
        found = self._connection.execute(self.SAMPLE, [self._database]).fetchone()
        assert found is not None
        self.most = max(self.most, found[0])
        self.most_busy = max(self.most_busy, found[1])


def _view(bench: Bench) -> Measured:
    return bench.load(
        "floor",
        [request("POST", f"/sell/{FOR_THE_VIEW}")] * MOST,
        connections=BUYERS,
        seconds=bench.seconds(SECONDS),
        expect={201},
    )


def _pgbench(clients: int) -> Work:
    def work(bench: Bench) -> Measured:
        return pgbench.run(
            bench,
            LOCK,
            database=bench.floor_database,
            clients=clients,
            # A busy machine may take a second to connect them.
            seconds=SECONDS,
            transactions=TRANSACTIONS_QUICK if bench.is_short else None,
            stock=FOR_PGBENCH,
        )

    return work


def _ceiling(bench: Bench) -> Measured:
    return Measured(answers=BUYERS, seconds=SLOW_STRIPE, cpu={})


CEILING = f"{BUYERS} / {SLOW_STRIPE} s"
ORM_VIEW, PGBENCH_50, PGBENCH_8 = "bare ORM view", "pgbench, 50 clients", "pgbench, 8 clients"
ALONE = (ORM_VIEW, PGBENCH_50, PGBENCH_8)
FAMILY = Family(
    rows=(
        Row(
            "free-hot",
            f"{BUYERS} concurrent purchases of a free offer",
            _free,
            ALONE,
            (
                Goal("ratio", least=1.0),
                Goal(f"ratio to {PGBENCH_50}", least=0.35),
                Goal("CPU ms, web and PostgreSQL", most=7),
                Goal("row held, ms", most=3),
            ),
        ),
        Row(
            "priced-0ms",
            f"{BUYERS} concurrent purchases, Stripe at 0 ms",
            _priced(0.0),
            ALONE,
            (Goal("ratio", least=0.7), Goal("CPU ms, Stripe", most=0.3)),
        ),
        Row(
            "priced-300ms",
            f"{BUYERS} concurrent purchases, Stripe at {SLOW_STRIPE * 1000:.0f} ms",
            _priced(SLOW_STRIPE),
            (CEILING,),
            (
                Goal("ratio", least=0.9),
                Goal("p95, ms", most=450),
                Goal("PostgreSQL connections", most=20),
            ),
        ),
    ),
    floors=(
        Floor(ORM_VIEW, "select_for_update, update, insert by the ORM", _view),
        Floor(PGBENCH_50, "the lock transaction alone", _pgbench(50)),
        Floor(PGBENCH_8, "the lock transaction alone", _pgbench(8)),
        Floor(CEILING, "as many as can wait for Stripe at once", _ceiling),
    ),
)
