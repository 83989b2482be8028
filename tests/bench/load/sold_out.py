"""The last minute of a sale: more buyers than units, and everybody has to be told."""

from django.db import connection

from offers.models import Event
from tests.bench.load.bench import Bench, request
from tests.bench.load.data import HOT, SOLD_OUT, make_hot_offer
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.purchases import SECONDS
from tests.bench.load.rows import Family, Floor, Goal, Row

UNITS, RUSH, AT_ONCE = 50, 500, 100
UNITS_QUICK, RUSH_QUICK = 5, 50
MOST = 12_000
WHILE_LOCKED = 200
FIRST_NUMBER = 1_000_000  # of the offers that are sold out here, one after the other


def _rush(bench: Bench, database: str) -> Measured:
    """A new offer, bought at once by ten times as many as can have it."""
    units, rush = (UNITS_QUICK, RUSH_QUICK) if bench.quick else (UNITS, RUSH)
    [number] = bench.numbers(1)
    with bench.database(database):
        offer_id = make_hot_offer(
            Event.objects.get(slug=HOT), FIRST_NUMBER + number, price=0, total=units
        )
    bench.sold_out[database] = offer_id
    measured = bench.buy(database, offer_id, connections=AT_ONCE, count=rush, expect={201, 409})
    if measured.statuses != {201: units, 409: rush - units}:
        raise Wrong(f"{rush} purchases of {units} units: {dict(measured.statuses)}")
    measured.also["seconds until all are answered"] = round(measured.seconds, 3)
    return measured


def _refused(bench: Bench, database: str) -> Measured:
    """The same offer afterwards."""
    offer_id = sold_out_offer(bench, database)
    how = {"connections": AT_ONCE, "expect": {409}}
    measured = bench.buy(database, offer_id, count=MOST, seconds=bench.seconds(SECONDS), **how)
    # If any of these took the lock, it would wait until it is given up, which is answered 503.
    with bench.database(database), connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM offers_offer WHERE id = %s FOR UPDATE", [offer_id])
        bench.buy(database, offer_id, count=WHILE_LOCKED, **how)
        cursor.execute("ROLLBACK")
    return measured


def sold_out_offer(bench: Bench, database: str) -> object:
    """The id of one that was sold out by purchases."""
    if database not in bench.sold_out:
        _rush(bench, database)
    return bench.sold_out[database]


def _view(bench: Bench) -> Measured:
    return bench.load(
        "floor",
        [request("POST", f"/refuse/{SOLD_OUT}")] * MOST,
        connections=AT_ONCE,
        seconds=bench.seconds(SECONDS),
        expect={409},
    )


BARE_409 = "bare 409"
FAMILY = Family(
    rows=(
        Row(
            "sold-out-rush",
            f"{RUSH} purchases for {UNITS} units, {AT_ONCE} at once",
            _rush,
            (BARE_409,),
        ),
        Row(
            "sold-out",
            f"sold-out answers, {AT_ONCE} at once, while another session has the row's lock too",
            _refused,
            (BARE_409,),
            (Goal("ratio", least=0.7),),
        ),
    ),
    floors=(Floor(BARE_409, "a view that reads the row by the ORM and answers 409", _view),),
)
