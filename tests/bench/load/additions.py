"""Purchases that a row needs before it is measured: written in bulk, as the service would have."""

import uuid
from datetime import timedelta

import psycopg
from django.db import connection, models
from django.utils import timezone

from purchases.models import Purchase, PurchaseTransition
from tests.bench.filling import fill, insertion, run
from tests.bench.load.data import HOT, OTHERS, PRICED, id_of

AWAITING, OVERDUE, PAID = "awaiting payment", "overdue", "paid"


def add_purchases(kind: str, *, first: int, count: int, state: str, buyers: int) -> None:
    """Add purchases of the priced offer, no. ``first`` and following, to Django's database.

    The id of no. n is ``id_of(kind, n)``, its session ``session_of(kind, n)``.
    """
    now = timezone.now()
    made = now - timedelta(days=1) if state == OVERDUE else now
    columns = {
        "id": "md5(%(kind)s || ':' || n)::uuid",
        "user_id": f"{buyers + 1} + mod(n, {OTHERS})",
        "offer_id": "o.id",
        "event_id": "o.event_id",
        "offer_title": "o.title",
        "quantity": "1",
        "unit_price": "o.price",
        "total_price": "o.price",
        "currency": "o.currency",
        "status": "%(status)s",
        "created_at": "%(made)s",
        "reserved_until": "%(made)s + interval '15 minutes'",
        "checkout_session_id": "'cs_test_' || %(kind)s || '_' || n",
        "checkout_url": "'https://checkout.stripe.com/c/pay/cs_test_' || %(kind)s || '_' || n",
        "checkout_expires_at": "%(now)s + interval '35 minutes'",
    }
    if state == PAID:
        columns |= {
            "paid_at": "%(now)s",
            "payment_intent_id": "'pi_' || %(kind)s || '_' || n",
            "fulfillment_due": "true",
        }
    rows = f"generate_series({first}, {first + count - 1}) AS n"
    fill(
        Purchase,
        columns,
        source=f"{rows}, offers_offer AS o WHERE o.id = %(offer)s",
        kind=kind,
        status="paid" if state == PAID else "awaiting_payment",
        made=made,
        now=now,
        offer=id_of(HOT, PRICED),
    )
    if state == PAID:
        fill(
            PurchaseTransition,
            {
                "purchase_id": "md5(%(kind)s || ':' || n)::uuid",
                "name": "'pay'",
                "from_status": "'awaiting_payment'",
                "to_status": "'paid'",
                "source": "'webhook'",
                "created_at": "%(now)s",
            },
            source=rows,
            kind=kind,
            now=now,
        )
    counter = "inventory_sold" if state == PAID else "inventory_reserved"
    run(
        f"UPDATE offers_offer SET {counter} = {counter} + %(count)s WHERE id = %(offer)s",  # noqa: S608
        count=count,
        offer=id_of(HOT, PRICED),
    )


def session_of(kind: str, number: int) -> str:
    """The id of its Checkout Session."""
    return f"cs_test_{kind}_{number}"


def count_of(kind: str, *, first: int, count: int, status: str) -> int:
    """How many of those purchases have that status, in Django's database."""
    ids = [id_of(kind, number) for number in range(first, first + count)]
    return Purchase.objects.filter(pk__in=ids, status=status).count()


def insert_for_pgbench(model: type[models.Model], columns: dict[str, str]) -> str:
    """INSERT of one row, as a line of a script; ``columns`` as in ``fill``."""
    statement, parameters = insertion(model, columns, source="(SELECT) AS nothing")
    connection.ensure_connection()
    assert connection.connection is not None
    return psycopg.ClientCursor(connection.connection).mogrify(statement, parameters) + ";"


def numbered(script: str, kind: str, **parts: str) -> str:
    """A script for pgbench in which `:n` is the number of a purchase, and `{id}` its id.

    ``parts`` are put in for their names in braces, the offer's id for `{offer}`. Each transaction
    has a number of its own, if pgbench is given `first`, `each` (how many a client does) and `i`
    (0).
    """
    parts |= {"offer": f"'{offer_id()}'", "id": f"md5('{kind}:' || :n)::uuid"}
    for name, text in parts.items():  # those of the row first: they have ids in them
        script = script.replace(f"{{{name}}}", text)
    return "\\set n :first + :client_id * :each + :i\n\\set i :i + 1\n" + script


def offer_id() -> uuid.UUID:
    """Of the offer that all of these are of."""
    return id_of(HOT, PRICED)
