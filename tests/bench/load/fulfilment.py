"""Paid purchases of something digital, ten thousand in all: taken in and handed out."""

from fulfillment.digital.models import DigitalContent, DigitalDelivery
from fulfillment.models import Fulfillment, FulfillmentTransition
from purchases.models import Email, Purchase
from tests.bench.load import additions, pgbench
from tests.bench.load.additions import PAID
from tests.bench.load.bench import Bench
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.rows import Family, Floor, Row

# In five rounds on two databases 5,000.
PURCHASES, PURCHASES_QUICK = 500, 50
# In the three steps that each survive a crash of the worker.
SCRIPT = """
BEGIN;
SELECT * FROM purchases_purchase WHERE id = {id} FOR NO KEY UPDATE SKIP LOCKED;
{take_on}
{taken_on}
{confirmed}
UPDATE purchases_purchase SET fulfillment_due = false WHERE id = {id};
COMMIT;
BEGIN;
SELECT * FROM fulfillment_fulfillment WHERE id = {id} FOR NO KEY UPDATE SKIP LOCKED;
UPDATE fulfillment_fulfillment SET status = 'PROCESSING', attempts = 1,
    due_at = now() + interval '1 minute' WHERE id = {id};
COMMIT;
BEGIN;
SELECT * FROM purchases_purchase WHERE id = {id} FOR NO KEY UPDATE;
SELECT * FROM fulfillment_fulfillment WHERE id = {id} FOR NO KEY UPDATE;
{deliver}
{content_ready}
UPDATE fulfillment_fulfillment SET status = 'FULFILLED', fulfilled_at = now(), due_at = NULL
    WHERE id = {id};
{fulfilled}
COMMIT;
"""
KIND, FLOOR_KIND = "digital", "digital-floor"
CLIENTS = 8


def _deliver(bench: Bench, database: str) -> Measured:
    numbers = bench.numbers(PURCHASES_QUICK if bench.is_short else PURCHASES)
    what = {"first": numbers.start, "count": len(numbers)}
    with bench.database(database):
        # What other rows have sold isn't to be delivered now.
        Purchase.objects.filter(fulfillment_due=True).update(fulfillment_due=False)
        additions.add_purchases(KIND, **what, state=PAID, buyers=bench.buyers)
    measured = bench.worker(database).run("fulfillment.tasks.deliver", count=len(numbers))
    with bench.database(database):
        ids = [additions.id_of(KIND, number) for number in numbers]
        done = Fulfillment.objects.filter(purchase__in=ids, status="FULFILLED").count()
    if done != len(numbers):
        raise Wrong(f"{len(numbers)} paid purchases, and {done} are fulfilled")
    return measured


def _pgbench(bench: Bench) -> Measured:
    each = (PURCHASES_QUICK if bench.is_short else PURCHASES) // CLIENTS
    numbers = bench.numbers(each * CLIENTS)
    with bench.database(bench.floor_database):
        additions.add_purchases(
            FLOOR_KIND,
            first=numbers.start,
            count=len(numbers),
            state=PAID,
            buyers=bench.buyers,
        )
        inserts = _inserts()
    return pgbench.run(
        bench,
        additions.numbered(SCRIPT, FLOOR_KIND, **inserts),
        database=bench.floor_database,
        clients=CLIENTS,
        transactions=each,
        first=numbers.start,
        each=each,
        i=0,
    )


def _inserts() -> dict[str, str]:
    """The rows of one delivery."""
    content = DigitalContent.objects.get(offer=additions.offer_id()).pk
    take_on = additions.insert_for_pgbench(
        Fulfillment,
        {
            "id": "{id}",
            "purchase_id": "{id}",
            "type": "'DIGITAL'",
            "paid_at": "now()",
            "created_at": "now()",
            "due_at": "now()",
        },
    )
    deliver = additions.insert_for_pgbench(
        DigitalDelivery, {"fulfillment_id": "{id}", "content_id": str(content)}
    )

    def transition(name: str, before: str, after: str) -> str:
        return additions.insert_for_pgbench(
            FulfillmentTransition,
            {
                "fulfillment_id": "{id}",
                "name": f"'{name}'",
                "from_status": f"'{before}'",
                "to_status": f"'{after}'",
                "source": "'worker'",
                "created_at": "now()",
            },
        )

    def email(occasion: str) -> str:
        return additions.insert_for_pgbench(
            Email,
            {
                "purchase_id": "{id}",
                "occasion": f"'{occasion}'",
                "due_at": "now()",
                "created_at": "now()",
            },
        )

    return {
        "take_on": take_on,
        "taken_on": transition("take_on", "", "PENDING"),
        "confirmed": email("confirmed"),
        "deliver": deliver,
        "content_ready": email("content_ready"),
        "fulfilled": transition("fulfill", "PROCESSING", "FULFILLED"),
    }


ROWS_ALONE = "pgbench, a delivery's rows"
FAMILY = Family(
    rows=(
        Row("fulfilment", "paid purchases of digital content delivered", _deliver, (ROWS_ALONE,)),
    ),
    floors=(Floor(ROWS_ALONE, "the same rows inserted and updated, 8 clients", _pgbench),),
)
