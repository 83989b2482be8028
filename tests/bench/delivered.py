"""What became of the purchases that were paid."""

from datetime import datetime

from fulfillment.bookings.models import ServiceBooking, ServiceDetails, TimeSlot
from fulfillment.codes import text
from fulfillment.digital.models import AccessCode, DigitalContent, DigitalDelivery
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.shipping.models import ShippingOrder
from fulfillment.tickets.models import TicketUpgrade
from tests.bench.filling import fill, run

WORK = """
CREATE TEMP TABLE work AS
SELECT p.*, pg_temp.id('fulfillment', n) AS fulfillment_id, mod(n, 12) AS slot,
       p.created_at + interval '4 minutes' AS paid_at,
       CASE WHEN p.status = 'refunded' THEN 'REVOKED'
            WHEN pg_temp.dice(n + 6, 1000) < 900 THEN 'FULFILLED'
            WHEN pg_temp.dice(n + 6, 1000) < 960 THEN 'PROCESSING'
            WHEN pg_temp.dice(n + 6, 1000) < 985 THEN 'PENDING' ELSE 'FAILED' END AS became
FROM planned p WHERE p.status IN ('paid', 'refunding', 'refunded');
CREATE UNIQUE INDEX ON work (fulfillment_id);
ANALYZE work;
"""
HANDED_OUT = "became IN ('FULFILLED', 'REVOKED')"


def make(*, now: datetime) -> None:
    """A fulfilment for each purchase that was paid, and the rows of its type."""
    run(WORK)
    fill(
        Fulfillment,
        {
            "id": "fulfillment_id",
            "purchase_id": "id",
            "type": "CASE type WHEN 'EXCLUSIVE_CONTENT' THEN 'DIGITAL' WHEN 'MERCHANDISE' THEN "
            "'PHYSICAL' WHEN 'TICKET_UPGRADE' THEN 'TICKET' ELSE 'SERVICE' END",
            "status": "became",
            "attempts": "1",
            "due_at": "CASE WHEN became = 'PENDING' THEN %(now)s::timestamptz END",
            "error": "CASE WHEN became = 'FAILED' THEN 'There is no file yet.' ELSE '' END",
            "paid_at": "paid_at",
            "created_at": "paid_at",
            "fulfilled_at": f"CASE WHEN {HANDED_OUT} THEN paid_at + interval '1 minute' END",
            "revoked_at": "CASE WHEN became = 'REVOKED' THEN paid_at + interval '3 days' END",
        },
        source="work ORDER BY paid_at",
        now=now,
    )
    for name, before, after, which in (
        ("fulfill", "PROCESSING", "FULFILLED", HANDED_OUT),
        ("fail", "PROCESSING", "FAILED", "became = 'FAILED'"),
        ("revoke", "FULFILLED", "REVOKED", "became = 'REVOKED'"),
    ):
        fill(
            FulfillmentTransition,
            {
                "fulfillment_id": "fulfillment_id",
                "name": "%(name)s",
                "from_status": "%(before)s",
                "to_status": "%(after)s",
                "source": "'worker'",
                "created_at": "paid_at + interval '1 minute'",
            },
            source=f"work WHERE {which} ORDER BY paid_at",
            name=name,
            before=before,
            after=after,
        )
    _digital()
    _parcels()
    _upgrades()
    _bookings(now=now)


def _digital() -> None:
    fill(
        DigitalContent,
        {
            "offer_id": "id",
            "url": "'https://content.example.com/' || n",
            "gives_access_codes": "true",
            "instructions": "repeat('Unpack it. ', 30)",
        },
        source="planned_offer WHERE type = 'EXCLUSIVE_CONTENT'",
    )
    content = "work JOIN digital_content_of USING (offer_id)"
    run("CREATE TEMP TABLE digital_content_of AS "
        "SELECT id AS content_id, offer_id FROM fulfillment_digitalcontent")  # fmt: skip
    fill(
        DigitalDelivery,
        {
            "fulfillment_id": "fulfillment_id",
            "content_id": "content_id",
            "downloads": "mod(n, 5)",
        },
        source=f"{content} WHERE {HANDED_OUT}",
    )
    fill(
        AccessCode,
        {
            "offer_id": "offer_id",
            "code": "'GIVEN-' || upper(left(md5(n::text), 12))",
            "fulfillment_id": "fulfillment_id",
            "given_at": "paid_at + interval '1 minute'",
        },
        source=f"{content} WHERE {HANDED_OUT}",
    )
    fill(
        AccessCode,
        {"offer_id": "id", "code": "'FREE-' || upper(left(md5(n || '-' || k), 12))"},
        # The first has a pool of thousands.
        source="planned_offer, LATERAL generate_series(1, CASE WHEN n = 0 THEN 20000 ELSE 20 END) "
        "AS k WHERE type = 'EXCLUSIVE_CONTENT'",
    )


def _parcels() -> None:
    sent = "mod(n, 3) > 0"
    fill(
        ShippingOrder,
        {
            "fulfillment_id": "fulfillment_id",
            "method": f"CASE WHEN {sent} THEN 'shipping' ELSE 'collection' END",
            "name": "(ARRAY['Ada','Grace','Alan','Edsger','Barbara'])[1 + mod(buyer, 5)] "
            "|| ' Person' || buyer / 5",
            "line1": f"CASE WHEN {sent} THEN 'Main street ' || n ELSE '' END",
            "city": f"CASE WHEN {sent} THEN 'Berlin' ELSE '' END",
            "postal_code": f"CASE WHEN {sent} THEN '10115' ELSE '' END",
            "country": f"CASE WHEN {sent} THEN 'DE' ELSE '' END",
            "pickup_code": f"CASE WHEN NOT {sent} THEN "
            "upper(left(md5('bag' || n), %(length)s)) END",
            "carrier": f"CASE WHEN {sent} AND {HANDED_OUT} THEN 'DHL' ELSE '' END",
            "tracking_number": f"CASE WHEN {sent} AND {HANDED_OUT} THEN 'JD' || n ELSE '' END",
            "created_at": "paid_at",
            "shipped_at": f"CASE WHEN {sent} AND {HANDED_OUT} THEN paid_at + interval '1 day' END",
            "delivered_at": f"CASE WHEN {HANDED_OUT} AND mod(n, 7) > 0 THEN "
            "paid_at + interval '2 days' END",
            "revoked_at": "CASE WHEN became = 'REVOKED' THEN paid_at + interval '3 days' END",
        },
        source="work WHERE type = 'MERCHANDISE' AND (became IN ('PROCESSING', 'FULFILLED', "
        "'REVOKED')) ORDER BY paid_at",
        length=text.LENGTH,
    )


def _upgrades() -> None:
    fill(
        TicketUpgrade,
        {
            "fulfillment_id": "w.fulfillment_id",
            "registration_id": "r.id",
            "from_tier_id": "r.ticket_tier_id",
            "to_tier_id": "r.ticket_tier_id + 1",
            "code": "upper(left(md5('ticket' || w.n), %(length)s))",
            "applied_at": "w.paid_at",
            "revoked_at": "CASE WHEN became = 'REVOKED' THEN paid_at + interval '3 days' END",
        },
        source="work w JOIN person ON person.n = w.buyer JOIN offers_registration r "
        f"ON r.user_id = person.id AND r.event_id = w.event_id WHERE type = 'TICKET_UPGRADE' "
        f"AND {HANDED_OUT} ORDER BY w.paid_at",
        length=text.LENGTH,
    )


def _bookings(*, now: datetime) -> None:
    fill(
        ServiceDetails,
        {"offer_id": "id", "location": "'Room ' || n", "instructions": "'Bring your CV.'"},
        source="planned_offer WHERE type = 'SERVICE'",
    )
    starts = "%(now)s + (mod(o.n, 60) - 30) * interval '1 day' + k * interval '1 hour'"
    fill(
        TimeSlot,
        {
            "id": "pg_temp.id('slot', o.n * 12 + k)",
            "offer_id": "o.id",
            "starts_at": starts,
            "ends_at": f"{starts} + interval '30 minutes'",
            "taken": "coalesce(w.taken, 0)",
            "capacity": "coalesce(w.taken, 0) + mod(k, 3) + 1",
        },
        source="planned_offer o CROSS JOIN generate_series(0, 11) AS k LEFT JOIN (SELECT offer, "
        "slot, sum(quantity) AS taken FROM work WHERE became = 'FULFILLED' GROUP BY 1, 2) AS w "
        "ON w.offer = o.n AND w.slot = k WHERE o.type = 'SERVICE'",
        now=now,
    )
    fill(
        ServiceBooking,
        {
            "fulfillment_id": "fulfillment_id",
            "uid": "pg_temp.id('calendar', n)",
            "slot_id": "s.id",
            "scheduled_at": "s.starts_at",
            "ends_at": "s.ends_at",
            "can_change_until": "s.starts_at - interval '1 day'",
            "location": "'Room ' || offer",
            "created_at": "paid_at",
            "changed_at": "paid_at",
        },
        source="work w LEFT JOIN fulfillment_timeslot s ON became = 'FULFILLED' AND "
        "s.id = pg_temp.id('slot', offer * 12 + slot) WHERE type = 'SERVICE' AND "
        "became IN ('FULFILLED', 'PROCESSING', 'REVOKED') ORDER BY paid_at",
    )
