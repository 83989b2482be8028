"""Two years of an organizer's business, in the proportions of one that is going well.

Everything follows from a row's number, so two runs have the same rows. One organization has a third
of it all, one offer every twentieth sale: plans that suit an average row have to bear these too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from waffle.models import Switch

from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from purchases.models import Purchase, PurchaseTransition
from tests.bench import delivered, paperwork
from tests.bench.filling import fill, run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much there is; ``users`` is a multiple of ``events``."""

    organizations: int
    events: int
    users: int
    offers: int
    purchases: int


FULL = Size(organizations=10, events=100, users=20_000, offers=10_000, purchases=200_000)
QUICK = Size(organizations=4, events=12, users=600, offers=300, purchases=4_000)

# Who looks: at everything, at a third of it, and at next to nothing.
SUPERUSER, MANAGER, NEWCOMER = "superuser", "manager", "newcomer"

FUNCTIONS = """
CREATE FUNCTION pg_temp.id(kind text, n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
    AS $$ SELECT md5(kind || ':' || n)::uuid $$;
CREATE FUNCTION pg_temp.dice(n bigint, sides bigint) RETURNS bigint IMMUTABLE LANGUAGE sql
    AS $$ SELECT mod(hashint8extended(n, 7) & 2147483647, sides) $$;
"""

# Where each offer and each purchase comes from and what becomes of it; all else is read from these.
PLANNED_OFFERS = """
CREATE TEMP TABLE planned_offer AS
SELECT n, pg_temp.id('offer', n) AS id, mod(n, %(events)s) AS event,
       pg_temp.id('event', mod(n, %(events)s)) AS event_id,
       (ARRAY['EXCLUSIVE_CONTENT', 'MERCHANDISE', 'SERVICE', 'TICKET_UPGRADE'])
           [1 + mod(n + n / %(events)s, 4)] AS type,
       (5 + 5 * pg_temp.dice(n, 40))::numeric AS price,
       (ARRAY['EUR', 'USD', 'GBP'])[1 + mod(n, %(events)s) %% 3] AS currency,
       (ARRAY['Hoodie', 'Recordings', 'Coaching', 'Lounge', 'Workshop', 'Poster', 'Dinner'])
           [1 + pg_temp.dice(n + 3, 7)] || ' no. ' || n AS title
FROM generate_series(0, %(offers)s - 1) AS n;
CREATE UNIQUE INDEX ON planned_offer (n);
"""
PLANNED_PURCHASES = """
CREATE TEMP TABLE planned AS
SELECT s.n, pg_temp.id('purchase', s.n) AS id, o.id AS offer_id, o.event_id, o.n AS offer, o.type,
       o.title, o.price, o.currency, s.quantity, s.status,
       mod(o.event + pg_temp.dice(s.n, 3), %(events)s)
           + %(events)s * pg_temp.dice(s.n + 11, %(users)s / %(events)s) AS buyer,
       CASE WHEN s.status IN ('reserved', 'awaiting_payment', 'payment_processing')
           THEN %(now)s - pg_temp.dice(s.n, 60) * interval '1 minute'
           ELSE %(now)s - interval '1 hour' - s.n * %(days)s * interval '1 day' / %(purchases)s
       END AS created_at
FROM (
    SELECT n,
        CASE pg_temp.dice(n + 1, 20) WHEN 0 THEN 0 WHEN 1 THEN pg_temp.dice(n + 2, 20)
             ELSE pg_temp.dice(n + 3, %(offers)s) END AS offer,
        1 + (pg_temp.dice(n + 4, 5) = 0)::int AS quantity,
        CASE WHEN d < 740 THEN 'paid' WHEN d < 925 THEN 'released' WHEN d < 970 THEN 'refunded'
             WHEN d < 980 THEN 'awaiting_payment' WHEN d < 985 THEN 'reserved'
             WHEN d < 990 THEN 'payment_processing' WHEN d < 995 THEN 'refunding'
             ELSE 'refund_due' END AS status
    FROM (SELECT n, pg_temp.dice(n + 5, 1000) AS d
          FROM generate_series(0, %(purchases)s - 1) AS n) AS thrown
) AS s JOIN planned_offer o ON o.n = s.offer;
CREATE UNIQUE INDEX ON planned (n);
CREATE UNIQUE INDEX ON planned (id);
ANALYZE planned;
"""
DAYS = 700
PAID = "p.status IN ('paid', 'refunding', 'refunded')"


def make(size: Size, *, now: datetime, say: Say) -> None:
    """Fill an empty, migrated database."""
    run("SET statement_timeout = 0")
    run(FUNCTIONS)
    numbers = {"events": size.events, "users": size.users, "offers": size.offers}
    run(PLANNED_OFFERS, **numbers)
    run(PLANNED_PURCHASES, purchases=size.purchases, days=DAYS, now=now, **numbers)
    _people_and_events(size, now=now)
    say("people and events")
    _offers_and_purchases(size, now=now)
    say("offers and purchases")
    paperwork.make(size, now=now)
    say("refunds, disputes, e-mails, Stripe events, webhooks, logs")
    delivered.make(now=now)
    say("fulfilments and what was delivered")
    _newcomer()
    cache.clear()


def settle() -> None:
    """Have PostgreSQL look at what there is, as it does by itself in the long run.

    It can't in a transaction. The connection is closed, and the settings for loading with it.
    """
    run("VACUUM ANALYZE")
    connection.close()


def _people_and_events(size: Size, *, now: datetime) -> None:
    fill(
        User,
        {
            "username": "'buyer' || n",
            "first_name": "(ARRAY['Ada','Grace','Alan','Edsger','Barbara'])[1 + mod(n, 5)]",
            "last_name": "'Person' || n / 5",
            "email": "'buyer' || n || '@example.com'",
            "date_joined": "%(now)s - n * interval '20 minutes'",
            "password": "'!'",
        },
        source="generate_series(0, %(users)s - 1) AS n",
        users=size.users,
        now=now,
    )
    fill(
        Organization,
        {
            "id": "pg_temp.id('organization', n)",
            "name": "'Organization ' || n",
            "slug": "'organization-' || n",
        },
        source="generate_series(0, %(organizations)s - 1) AS n",
        organizations=size.organizations,
    )
    fill(
        Event,
        {
            "id": "pg_temp.id('event', n)",
            # The first has a third of the events.
            "organization_id": "pg_temp.id('organization', CASE WHEN mod(n, 3) = 0 THEN 0 "
            "ELSE 1 + mod(n, %(organizations)s - 1) END)",
            "title": "'Event ' || n",
            "slug": "'event-' || n",
            "starts_at": "%(now)s + (50 - n) * interval '7 days'",
            "ends_at": "%(now)s + (50 - n) * interval '7 days' + interval '9 hours'",
        },
        source="generate_series(0, %(events)s - 1) AS n",
        events=size.events,
        organizations=size.organizations,
        now=now,
    )
    for model, kind, count in ((EventSession, "session", 8), (TicketTier, "tier", 3)):
        fill(
            model,
            {
                "id": "%(count)s * e + k + 1",
                "event_id": "pg_temp.id('event', e)",
                "slug": "%(kind)s || '-' || k",
                "title": "initcap(%(kind)s) || ' ' || k",
            },
            source="generate_series(0, %(events)s - 1) AS e, "
            "generate_series(0, %(count)s - 1) AS k",
            events=size.events,
            kind=kind,
            count=count,
        )
        _restart_ids(model._meta.db_table)
    fill(
        Registration,
        {
            "event_id": "pg_temp.id('event', e)",
            "user_id": "u.id",
            "ticket_tier_id": "3 * e + 1",
            "created_at": "%(now)s - n * interval '10 minutes'",
        },
        source="(SELECT n, k, mod(n - k + %(events)s, %(events)s) AS e FROM "
        "generate_series(0, %(users)s - 1) AS n, generate_series(0, 2) AS k) AS r "
        "JOIN auth_user u ON u.username = 'buyer' || n",
        events=size.events,
        users=size.users,
        now=now,
    )
    User.objects.create_superuser(SUPERUSER, "superuser@example.com")
    for name, organization in ((MANAGER, "organization-0"), ("support", "organization-0")):
        Membership.objects.create(
            user=User.objects.create_user(name),
            organization=Organization.objects.get(slug=organization),
            role=name,
        )
    run("CREATE TEMP TABLE person AS SELECT substr(username, 6)::bigint AS n, id, username "
        "FROM auth_user WHERE username LIKE 'buyer%%'")  # fmt: skip
    run("CREATE UNIQUE INDEX ON person (n); ANALYZE person")
    Switch.objects.get_or_create(name="purchases", defaults={"active": True})


def _offers_and_purchases(size: Size, *, now: datetime) -> None:
    fill(
        Offer,
        {
            "id": "id",
            "event_id": "event_id",
            "title": "title",
            "description": "repeat('What it is, and for whom. ', 20)",
            "offer_type": "type",
            "placement": "(ARRAY['CHECKOUT','POST_PURCHASE','IN_EVENT','EMAIL'])[1 + mod(n, 4)]",
            "price": "price",
            "currency": "currency",
            "ticket_tier_id": "CASE WHEN type = 'TICKET_UPGRADE' THEN 3 * event + 2 END",
            "is_active": "mod(n, 4) <> 1",
            "is_archived": "mod(n, 5) = 1",
            "expires_at": "CASE WHEN mod(n, 3) = 0 "
            "THEN %(now)s + (n - 2000) * interval '1 hour' END",
            "created_at": "%(now)s - n * %(days)s * interval '1 day' / %(offers)s",
            "updated_at": "%(now)s",
            "stripe_product_id": "'prod_' || n",
            "stripe_price_id": "'price_' || n",
            "stripe_price_minor": "price * 100",
            "stripe_price_currency": "currency",
            "catalog_synced_version": "1",
        },
        source="planned_offer",
        now=now,
        days=DAYS,
        offers=size.offers,
    )
    paid = PAID.replace("p.", "")
    fill(
        Purchase,
        {
            "id": "p.id",
            "user_id": "person.id",
            "offer_id": "offer_id",
            "event_id": "event_id",
            "offer_title": "title",
            "quantity": "quantity",
            "unit_price": "price",
            "total_price": "price * quantity",
            "currency": "currency",
            "status": "status",
            "release_reason": "CASE WHEN status = 'released' THEN (ARRAY['expired', 'cancelled', "
            "'payment_failed', 'staff'])[1 + mod(p.n, 4)] ELSE '' END",
            "reserved_until": "created_at + interval '15 minutes'",
            "refunded_amount": "CASE WHEN status = 'refunded' THEN price * quantity "
            "WHEN status = 'paid' AND mod(p.n, 100) = 0 THEN 1 ELSE 0 END",
            "created_at": "created_at",
            "paid_at": f"CASE WHEN {paid} THEN created_at + interval '3 minutes' END",
            "refunded_at": "CASE WHEN status = 'refunded' THEN created_at + interval '3 days' END",
            "idempotency_key": "'key-' || p.n",
            "request_fingerprint": "md5(p.n::text) || md5(p.n::text)",
            "checkout_session_id": "'cs_live_' || md5(p.n::text) || md5('s' || p.n)",
            "checkout_url": "CASE WHEN status = 'awaiting_payment' THEN "
            "'https://checkout.stripe.com/c/pay/cs_live_' || md5(p.n::text) ELSE '' END",
            "checkout_expires_at": "created_at + interval '35 minutes'",
            "payment_intent_id": f"CASE WHEN {paid} OR status = 'refund_due' "
            "THEN 'pi_' || md5(p.n::text) ELSE '' END",
            "delivery_method": "CASE WHEN type <> 'MERCHANDISE' THEN '' "
            "WHEN mod(p.n, 3) = 0 THEN 'collection' ELSE 'shipping' END",
            "shipping_address": "CASE WHEN type = 'MERCHANDISE' AND mod(p.n, 3) > 0 THEN "
            "jsonb_build_object('name', username, 'address', jsonb_build_object('line1', "
            "'Main street ' || p.n, 'city', 'Berlin', 'postal_code', '10115', 'country', 'DE')) "
            "END",
            "problem": "CASE WHEN mod(p.n, 2000) = 7 THEN 'Stripe has another amount.' ELSE '' END",
        },
        source="planned p JOIN person ON person.n = p.buyer ORDER BY p.created_at",
    )
    run("""
        UPDATE offers_offer o
        SET inventory_reserved = s.reserved, inventory_sold = s.sold,
            inventory_total = s.reserved + s.sold
                + CASE WHEN pg_temp.dice(s.sold, 5) = 0 THEN 0 ELSE pg_temp.dice(s.sold, 90) END
        FROM (
            SELECT offer_id,
                coalesce(sum(quantity) FILTER (WHERE status IN
                    ('reserved', 'awaiting_payment', 'payment_processing')), 0) AS reserved,
                coalesce(sum(quantity) FILTER (WHERE status IN ('paid', 'refunding')), 0) AS sold
            FROM purchases_purchase GROUP BY offer_id
        ) AS s WHERE s.offer_id = o.id
    """)
    events = (
        ("open_checkout", "reserved", "awaiting_payment", "api", "true", "1 second"),
        ("pay", "awaiting_payment", "paid", "webhook", PAID, "3 minutes"),
        ("release", "awaiting_payment", "released", "sweep",
         "p.status IN ('released', 'refund_due')", "20 minutes"),
        ("refund", "paid", "refunded", "webhook", "p.status = 'refunded'", "3 days"),
    )  # fmt: skip
    for name, before, after, edge, which, later in events:
        fill(
            PurchaseTransition,
            {
                "purchase_id": "p.id",
                "name": "%(name)s",
                "from_status": "%(before)s",
                "to_status": "%(after)s",
                "source": "%(edge)s",
                "created_at": "p.created_at + %(later)s::interval",
            },
            source=f"planned p WHERE {which} ORDER BY p.n DESC",
            name=name,
            before=before,
            after=after,
            edge=edge,
            later=later,
        )


def _restart_ids(table: str) -> None:
    run("SELECT setval(pg_get_serial_sequence(%(table)s, 'id'), 1000000)", table=table)


def _newcomer() -> None:
    """Somebody who has just begun: next to nothing is theirs, and that has to be found."""
    user = User.objects.create_user(NEWCOMER)
    organization = Organization.objects.create(name="Newcomer", slug="newcomer")
    Membership.objects.create(user=user, organization=organization, role=Membership.Role.OWNER)
    event = Event.objects.create(organization=organization, title="First event", slug="first")
    tier = TicketTier.objects.create(event=event, title="Standard", slug="standard")
    Registration.objects.create(event=event, user=user, ticket_tier=tier)
    # Of the oldest, where a list that is read from its newest end comes last.
    moved = list(Purchase.objects.order_by("created_at").values_list("offer", flat=True)[:2])
    Offer.objects.filter(pk__in=moved).update(event=event)
    Purchase.objects.filter(offer__in=moved).update(event=event)
