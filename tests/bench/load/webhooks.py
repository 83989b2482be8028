"""Stripe's news of payments: signed events, fifty at once, each of which makes a purchase paid."""

import json
import time
from typing import Any

import stripe

from offers_project.stripe_sandbox import objects
from purchases.models import PurchaseTransition, StripeEvent
from tests.bench.load import additions, pgbench
from tests.bench.load.additions import AWAITING
from tests.bench.load.bench import Bench, request
from tests.bench.load.data import PRICE, id_of
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.rows import Family, Floor, Row
from tests.bench.load.stack import WEBHOOK_SECRET

AT_ONCE = 50
# In five rounds 2,000.
EVENTS, EVENTS_QUICK = 400, 50
# What is written for each, and read under a lock.
SCRIPT = """
{event}
BEGIN;
SELECT * FROM purchases_purchase WHERE id = {id} FOR NO KEY UPDATE;
UPDATE purchases_purchase SET status = 'paid', paid_at = now(), fulfillment_due = true,
    payment_intent_id = 'pi_floor_' || :n WHERE id = {id};
{transition}
UPDATE purchases_stripeevent SET state = 'processed', processed_at = now()
    WHERE id = 'evt_floor_' || :n;
SELECT * FROM offers_offer WHERE id = {offer} FOR NO KEY UPDATE;
UPDATE offers_offer SET inventory_reserved = inventory_reserved - 1,
    inventory_sold = inventory_sold + 1 WHERE id = {offer};
COMMIT;
"""
KIND, FLOOR_KIND = "webhook", "webhook-floor"


def _events(bench: Bench, database: str) -> Measured:
    numbers = bench.numbers(EVENTS_QUICK if bench.is_short else EVENTS)
    what = {"first": numbers.start, "count": len(numbers)}
    with bench.database(database):
        additions.add_purchases(KIND, **what, state=AWAITING, buyers=bench.buyers)
    requests = [_request(json.dumps(completed(number))) for number in numbers]
    measured = bench.load(database, requests, connections=AT_ONCE, expect={200})
    with bench.database(database):
        paid = additions.count_of(KIND, **what, status="paid")
    if left := len(numbers) - paid:
        # An answer doesn't wait long for a row: the event is stored, and a worker's to do.
        bench.worker(database).run("purchases.tasks.process_events", count=left)
        with bench.database(database):
            paid = additions.count_of(KIND, **what, status="paid")
    measured.also["left to the worker"] = left
    if paid != len(numbers):
        raise Wrong(f"{len(numbers)} events of payments, and {paid} purchases are paid")
    return measured


def completed(number: int) -> dict[str, Any]:
    """The event that says that the purchase of that number was paid."""
    now = int(time.time())
    reference = {"purchase": str(id_of(KIND, number)), "offer": str(additions.offer_id())}
    session = objects.checkout_session(
        {
            "client_reference_id": reference["purchase"],
            "metadata": reference,
            "expires_at": now + 1800,
            "success_url": "https://shop.example/events/hot/offers/success",
            "cancel_url": "https://shop.example/events/hot/offers",
        },
        session_id=additions.session_of(KIND, number),
        url="",
        amount=PRICE * 100,
        currency="usd",
        now=now - 60,
    )
    objects.fill_in_buyer(session, email="buyer@example.com", name="Buyer", address=None)
    session.update(
        status="complete", payment_status="paid", payment_intent=f"pi_{number}", url=None
    )
    return objects.event(
        "checkout.session.completed",
        session,
        created=now,
        request_id=None,
        idempotency_key=None,
        pending_webhooks=1,
    )


def _request(body: str) -> bytes:
    signature = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)
    return request(
        "POST",
        "/api/v1/webhooks/stripe/",
        f"Stripe-Signature: {signature}",
        "Content-Type: application/json; charset=utf-8",
        body=body,
    )


def _pgbench(bench: Bench) -> Measured:
    """The rows that an event inserts and updates: the event is committed first, as Stripe's are."""
    each = (EVENTS_QUICK if bench.is_short else EVENTS) // AT_ONCE
    numbers = bench.numbers(each * AT_ONCE)
    with bench.database(bench.floor_database):
        additions.add_purchases(
            FLOOR_KIND,
            first=numbers.start,
            count=len(numbers),
            state=AWAITING,
            buyers=bench.buyers,
        )
        payload = json.dumps(completed(0)).replace("'", "''")
        event = additions.insert_for_pgbench(
            StripeEvent,
            {
                "id": "'evt_floor_' || :n",
                "type": "'checkout.session.completed'",
                "created": "now()",
                "payload": "'" + payload.replace("%", "%%") + "'::jsonb",
                "received_at": "now()",
                "due_at": "now()",
                "attempts": "1",
            },
        )
        transition = additions.insert_for_pgbench(
            PurchaseTransition,
            {
                "purchase_id": "{id}",
                "name": "'pay'",
                "from_status": "'awaiting_payment'",
                "to_status": "'paid'",
                "source": "'webhook'",
                "created_at": "now()",
            },
        )
    return pgbench.run(
        bench,
        additions.numbered(SCRIPT, FLOOR_KIND, event=event, transition=transition),
        database=bench.floor_database,
        clients=AT_ONCE,
        transactions=each,
        first=numbers.start,
        each=each,
        i=0,
    )


ROWS_ALONE = "pgbench, an event's rows"
FAMILY = Family(
    rows=(Row("webhooks", f"signed events, {AT_ONCE} at once", _events, (ROWS_ALONE,)),),
    floors=(Floor(ROWS_ALONE, "the same rows inserted and updated", _pgbench),),
)
