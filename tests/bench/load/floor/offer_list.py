"""The first page of an event's offers: one prepared query, and orjson."""

import os
from functools import lru_cache

import orjson
from django.http import HttpRequest, HttpResponse
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool

PAGE = """
SELECT o.id, e.slug AS event, o.title, o.description, o.offer_type,
       o.price::numeric(12, 2)::text AS price,
       o.original_price::numeric(12, 2)::text AS original_price, o.currency, o.image_url,
       json_build_object('total', o.inventory_total,
           'available', o.inventory_total - o.inventory_reserved - o.inventory_sold,
           'reserved', o.inventory_reserved, 'sold', o.inventory_sold) AS inventory,
       true AS is_available, o.placement,
       ARRAY(SELECT s.slug FROM offers_offer_target_sessions t
             JOIN offers_eventsession s ON s.id = t.eventsession_id
             WHERE t.offer_id = o.id) AS target_sessions,
       ARRAY(SELECT s.slug FROM offers_offer_target_ticket_tiers t
             JOIN offers_tickettier s ON s.id = t.tickettier_id
             WHERE t.offer_id = o.id) AS target_ticket_tiers,
       (SELECT slug FROM offers_tickettier WHERE id = o.ticket_tier_id) AS ticket_tier,
       o.shipping_countries, o.allows_collection, o.starts_at, o.expires_at, o.max_per_user,
       o.is_active, o.is_archived, o.created_at, o.updated_at
FROM offers_offer o JOIN offers_event e ON e.id = o.event_id
WHERE e.slug = %s AND e.is_public AND o.is_active AND NOT o.is_archived
  AND (o.starts_at IS NULL OR o.starts_at <= now())
  AND (o.expires_at IS NULL OR o.expires_at > now())
  AND (o.inventory_total IS NULL OR o.inventory_total > o.inventory_reserved + o.inventory_sold)
ORDER BY o.created_at DESC, o.id DESC
LIMIT 51
"""
PAGE_SIZE = 50
set_json_loads(orjson.Fragment)  # passed on as it comes


@lru_cache(maxsize=1)
def _pool() -> ConnectionPool:
    return ConnectionPool(
        os.environ["DATABASE_URL"],
        min_size=1,
        max_size=int(os.environ["DB_POOL_SIZE"]),
        kwargs={
            "application_name": "floor",
            "autocommit": True,
            "row_factory": dict_row,
            "options": "-c timezone=UTC",
        },
        open=True,
    )


def offers(request: HttpRequest, event: str) -> HttpResponse:
    """What anybody may see of the event."""
    with _pool().connection() as connection:
        rows = connection.execute(PAGE, [event], prepare=True).fetchall()
    found = {"next": len(rows) > PAGE_SIZE, "previous": None, "results": rows[:PAGE_SIZE]}
    text = orjson.dumps(found, option=orjson.OPT_UTC_Z)
    return HttpResponse(
        text, content_type="application/json", headers={"Content-Length": str(len(text))}
    )
