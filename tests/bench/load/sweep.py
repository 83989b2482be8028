"""Ten thousand holds whose time is up: each is ended at Stripe, then given back."""

from purchases.models import Purchase, PurchaseTransition
from tests.bench.load import additions, pgbench
from tests.bench.load.additions import OVERDUE
from tests.bench.load.bench import Bench
from tests.bench.load.measured import Measured
from tests.bench.load.rows import Family, Floor, Row, WorkOn

PRESENT, PRESENT_QUICK = 10_000, 200
# Of those, in a round.
ENDED, ENDED_QUICK = 500, 50
STRIPES_LIMIT = 25.0
ENDED_AT_THE_LIMIT = 150
# What is written for each, and read under a lock.
SCRIPT = """
UPDATE purchases_purchase SET ending_until = now() WHERE id = {id};
BEGIN;
SELECT * FROM purchases_purchase WHERE id = {id} FOR NO KEY UPDATE;
UPDATE purchases_purchase SET status = 'released', release_reason = 'expired', ending_until = NULL
    WHERE id = {id};
{transition}
SELECT * FROM offers_offer WHERE id = {offer} FOR NO KEY UPDATE;
UPDATE offers_offer SET inventory_reserved = inventory_reserved - 1
    WHERE id = {offer};
COMMIT;
"""
KIND, FLOOR_KIND = "overdue", "overdue-floor"
CLIENTS = 8


def _sweep(limit: float) -> WorkOn:
    def work(bench: Bench, database: str) -> Measured:
        _fill_up(bench, database)
        count = ENDED_AT_THE_LIMIT if limit else ENDED
        bench.stack.set_stripe(limit=limit)
        measured = bench.worker(database).run(
            "purchases.tasks.end_overdue_holds", count=ENDED_QUICK if bench.is_short else count
        )
        asked = bench.stack.stripe_requests()
        bench.stack.set_stripe()
        measured.also["requests to Stripe"] = asked["requests"]
        measured.also["of those refused"] = asked["refused"]
        return measured

    return work


def _fill_up(bench: Bench, database: str) -> None:
    """Have so many overdue holds as there should be when a round begins."""
    with bench.database(database):
        waiting = Purchase.objects.filter(
            status="awaiting_payment", checkout_session_id__startswith=f"cs_test_{KIND}_"
        ).count()
        missing = (PRESENT_QUICK if bench.quick else PRESENT) - waiting
        if missing > 0:
            numbers = bench.numbers(missing)
            additions.add_purchases(
                KIND, first=numbers.start, count=missing, state=OVERDUE, buyers=bench.buyers
            )


def _pgbench(bench: Bench) -> Measured:
    each = (ENDED_QUICK if bench.is_short else ENDED) // CLIENTS
    numbers = bench.numbers(each * CLIENTS)
    with bench.database(bench.floor_database):
        additions.add_purchases(
            FLOOR_KIND,
            first=numbers.start,
            count=len(numbers),
            state=OVERDUE,
            buyers=bench.buyers,
        )
        transition = additions.insert_for_pgbench(
            PurchaseTransition,
            {
                "purchase_id": "{id}",
                "name": "'release'",
                "from_status": "'awaiting_payment'",
                "to_status": "'released'",
                "source": "'sweep'",
                "created_at": "now()",
            },
        )
    return pgbench.run(
        bench,
        additions.numbered(SCRIPT, FLOOR_KIND, transition=transition),
        database=bench.floor_database,
        clients=CLIENTS,
        transactions=each,
        first=numbers.start,
        each=each,
        i=0,
    )


def _stripes_limit(bench: Bench) -> Measured:
    return Measured(answers=1000, seconds=1000 / STRIPES_LIMIT, cpu={})


ROWS_ALONE = "pgbench, an ended hold's rows"
LIMIT = "Stripe's 25 requests/s"
FAMILY = Family(
    rows=(
        Row(
            "sweep",
            f"{PRESENT:,} overdue holds, Stripe at 0 ms",
            _sweep(0),
            (ROWS_ALONE,),
        ),
        Row(
            "sweep-25",
            f"{PRESENT:,} overdue holds, Stripe at {STRIPES_LIMIT:.0f} requests/s",
            _sweep(STRIPES_LIMIT),
            (LIMIT,),
            rounds=1,
        ),
    ),
    floors=(
        Floor(ROWS_ALONE, "the same rows inserted and updated, 8 clients", _pgbench),
        Floor(LIMIT, "what Stripe allows in test mode; a hold takes one request", _stripes_limit),
    ),
)
