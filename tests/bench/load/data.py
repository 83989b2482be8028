"""What there is before the load begins: buyers, events with offers, and earlier sales.

Everything follows from a row's number, so that each database has the same rows as the smaller one,
and more.
"""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db import connection

from fulfillment.digital.models import DigitalContent
from fulfillment.models import Fulfillment
from offers.models import Event, Offer, Organization, Registration, TicketTier
from purchases.models import Purchase, PurchaseTransition
from tests.bench.data import FUNCTIONS
from tests.bench.filling import fill, run

HOT = "hot"
FREE, PRICED = 0, 1
PRICE = 20
# What an event of the list rows has; the event's slug is `list-20` and so on.
LISTS = (20, 1_000, 10_000)
# So many offers of the background have had sales.
SELLING = 10_000


@dataclass(frozen=True)
class Size:
    """How much one database has."""

    offers: int
    purchases: int


# Rows of the floor's table of stock.
FOR_THE_VIEW, FOR_PGBENCH, SOLD_OUT = 1, 2, 3
# Users who have what is filled in during the run, so that it counts against no buyer's limits.
OTHERS = 10_000


@dataclass(frozen=True)
class Sizes:
    """Of the databases; ``buyers`` are in each, and ``OTHERS`` with the ids after theirs."""

    buyers: int
    small: Size
    large: Size


FULL = Sizes(20_000, small=Size(2_000, 10_000), large=Size(1_000_000, 1_000_000))
QUICK = Sizes(5_000, small=Size(500, 1_000), large=Size(5_000, 10_000))


def id_of(kind: str, number: int) -> uuid.UUID:
    """The same as ``pg_temp.id`` in SQL."""
    return uuid.UUID(hashlib.md5(f"{kind}:{number}".encode(), usedforsecurity=False).hexdigest())


def make_shop(sizes: Sizes, *, now: datetime) -> None:
    """Fill an empty, migrated database with what every row of the benchmark needs."""
    _prepare_for_filling()
    fill(
        User,
        {
            "id": "n + 1",
            "username": "'buyer' || n",
            "email": "'buyer' || n || '@example.com'",
            "date_joined": "%(now)s",
            "password": "'!'",
        },
        source="generate_series(0, %(users)s - 1) AS n",
        users=sizes.buyers + OTHERS,
        now=now,
    )
    organization = Organization.objects.create(name="Organizer", slug="organizer")
    for slug in (HOT, *(f"list-{count}" for count in LISTS)):
        event = Event.objects.create(organization=organization, slug=slug, title=f"Event {slug}")
        tier = TicketTier.objects.create(event=event, title="Standard", slug="standard")
        fill(
            Registration,
            {
                "user_id": "n + 1",
                "event_id": "%(event)s",
                "ticket_tier_id": "%(tier)s",
                "created_at": "%(now)s",
            },
            source="generate_series(0, 999) AS n",
            event=event.pk,
            tier=tier.pk,
            now=now,
        )
    hot = Event.objects.get(slug=HOT)
    make_hot_offer(hot, FREE, price=0, total=100_000_000)
    make_hot_offer(hot, PRICED, price=PRICE, total=100_000_000)
    for count in LISTS:
        event_id = Event.objects.get(slug=f"list-{count}").pk
        _offers(f"list-{count}", count, event="%(event)s", now=now, event_id=event_id)


def make_hot_offer(event: Event, number: int, *, price: int, total: int) -> uuid.UUID:
    """Something digital, which can be handed out at once; returns its id."""
    offer = Offer(
        id=id_of(HOT, number),
        event=event,
        title=f"Recordings no. {number}",
        description="What it is, and for whom. " * 10,
        offer_type=Offer.Type.EXCLUSIVE_CONTENT,
        price=price,
        inventory_total=total,
        catalog_synced_version=1,
    )
    Offer.objects.bulk_create([offer])
    DigitalContent.objects.create(offer=offer, url="https://content.example/recordings")
    return offer.pk


def make_background(size: Size, *, buyers: int, now: datetime) -> None:
    """Add the other events' offers, and all earlier sales."""
    _prepare_for_filling()
    events = max(1, size.offers // 2_000)
    fill(
        Event,
        {
            "id": "pg_temp.id('event', n)",
            "organization_id": "(SELECT id FROM offers_organization)",
            "title": "'Event ' || n",
            "slug": "'event-' || n",
        },
        source="generate_series(0, %(events)s - 1) AS n",
        events=events,
    )
    _offers(
        "background", size.offers, event=f"pg_temp.id('event', mod(n, {events}))", now=now,
        event_id=None,
    )  # fmt: skip
    run(
        """
        CREATE TEMP TABLE planned AS
        SELECT n, pg_temp.id('purchase', n) AS id, 1 + pg_temp.dice(n, %(buyers)s) AS user_id,
               CASE mod(n, 10) WHEN 0 THEN %(free)s WHEN 1 THEN %(priced)s
                   ELSE pg_temp.id('background', pg_temp.dice(n + 1, %(selling)s)) END AS offer_id,
               CASE mod(n, 10) WHEN 0 THEN 0 ELSE %(price)s END AS price,
               CASE mod(n, 10) WHEN 9 THEN 'released' ELSE 'paid' END AS status,
               %(now)s - interval '1 hour' - n * interval '1 minute' AS created_at
        FROM generate_series(0, %(purchases)s - 1) AS n
        """,
        buyers=buyers,
        free=id_of(HOT, FREE),
        priced=id_of(HOT, PRICED),
        price=PRICE,
        selling=min(SELLING, size.offers),
        purchases=size.purchases,
        now=now,
    )
    paid = "CASE WHEN p.status = 'paid' THEN p.created_at + interval '3 minutes' END"
    fill(
        Purchase,
        {
            "id": "p.id",
            "user_id": "user_id",
            "offer_id": "offer_id",
            "event_id": "o.event_id",
            "offer_title": "o.title",
            "quantity": "1",
            "unit_price": "p.price",
            "total_price": "p.price",
            "currency": "'USD'",
            "status": "p.status",
            "release_reason": "CASE p.status WHEN 'released' THEN 'expired' ELSE '' END",
            "reserved_until": "p.created_at + interval '15 minutes'",
            "created_at": "p.created_at",
            "paid_at": paid,
            "idempotency_key": "'background-' || n",
            "request_fingerprint": "md5(n::text) || md5(n::text)",
            "checkout_session_id": "'cs_background_' || md5(n::text)",
            "checkout_expires_at": "p.created_at + interval '35 minutes'",
            "payment_intent_id": "CASE p.status WHEN 'paid' THEN 'pi_' || md5(n::text) ELSE '' END",
        },
        source="planned p JOIN offers_offer o ON o.id = p.offer_id ORDER BY n DESC",
    )
    for name, before, after, edge in (
        ("hold", "", "reserved", "api"),
        ("pay", "awaiting_payment", "paid", "webhook"),
    ):
        fill(
            PurchaseTransition,
            {
                "purchase_id": "id",
                "name": "%(name)s",
                "from_status": "%(before)s",
                "to_status": "%(after)s",
                "source": "%(edge)s",
                "created_at": "created_at",
            },
            source="planned WHERE status = 'paid' ORDER BY n DESC",
            name=name,
            before=before,
            after=after,
            edge=edge,
        )
    fill(
        Fulfillment,
        {
            "id": "pg_temp.id('fulfillment', n)",
            "purchase_id": "id",
            "type": "'DIGITAL'",
            "status": "'FULFILLED'",
            "attempts": "1",
            "paid_at": "created_at",
            "created_at": "created_at",
            "fulfilled_at": "created_at",
        },
        source="planned WHERE status = 'paid' ORDER BY n DESC",
    )
    run("""
        UPDATE offers_offer o
        SET inventory_sold = s.sold, inventory_total = greatest(inventory_total, s.sold)
        FROM (SELECT offer_id, count(*) AS sold FROM planned WHERE status = 'paid' GROUP BY 1) AS s
        WHERE s.offer_id = o.id
    """)


def make_floor() -> None:
    """The floor's tables, in the database that Django's connection is to."""
    with connection.cursor() as cursor:
        cursor.execute("""
            CREATE TABLE floor_stock (
                id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
                name varchar(200) NOT NULL, total integer NOT NULL, sold integer NOT NULL
            );
            CREATE TABLE floor_sale (
                id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
                stock_id bigint NOT NULL REFERENCES floor_stock DEFERRABLE INITIALLY DEFERRED,
                buyer integer NOT NULL, quantity integer NOT NULL, created_at timestamptz NOT NULL
            );
            CREATE INDEX ON floor_sale (stock_id);
            INSERT INTO floor_stock (id, name, total, sold)
            VALUES (1, 'Recordings', 100000000, 0), (2, 'Recordings', 100000000, 0),
                   (3, 'Recordings', 50, 50);
        """)


def _prepare_for_filling() -> None:
    """For this connection: rows refer to rows that are there, and are on the disk by `settle`."""
    run("SET statement_timeout = 0")
    run("SET session_replication_role = replica")
    run("SET synchronous_commit = off")
    run(FUNCTIONS)


def settle() -> None:
    """Have PostgreSQL look at what there is and write it down, before anything is measured."""
    run("VACUUM ANALYZE")
    run("CHECKPOINT")
    connection.close()


def _offers(kind: str, count: int, *, event: str, now: datetime, event_id: object) -> None:
    fill(
        Offer,
        {
            "id": f"pg_temp.id('{kind}', n)",
            "event_id": event,
            "title": "(ARRAY['Hoodie', 'Recordings', 'Coaching', 'Lounge', 'Poster'])"
            "[1 + mod(n, 5)] || ' no. ' || n",
            "description": "repeat('What it is, and for whom. ', 10)",
            "offer_type": "(ARRAY['EXCLUSIVE_CONTENT', 'MERCHANDISE', 'SERVICE'])[1 + mod(n, 3)]",
            "placement": "(ARRAY['CHECKOUT','POST_PURCHASE','IN_EVENT','EMAIL'])[1 + mod(n, 4)]",
            "price": str(PRICE),
            "currency": "'USD'",
            # One in eight is sold out or not on sale, as in any event.
            "inventory_total": "CASE WHEN mod(n, 8) = 1 THEN 0 ELSE 1000000 END",
            "is_active": "mod(n, 8) <> 2",
            "expires_at": "CASE WHEN mod(n, 3) = 0 THEN %(now)s + interval '30 days' END",
            "created_at": "%(now)s - n * interval '1 minute'",
            "updated_at": "%(now)s - n * interval '1 minute'",
            "stripe_product_id": f"'prod_{kind}_' || n",
            "stripe_price_id": f"'price_{kind}_' || n",
            "stripe_price_minor": str(PRICE * 100),
            "stripe_price_currency": "'USD'",
            "catalog_synced_version": "1",
        },
        source="generate_series(0, %(count)s - 1) AS n",
        count=count,
        event=event_id,
        now=now,
    )
