"""What the API's list asks the database, and its rows as the list shows them.

The statement of a page is written out, because the ORM takes four times as long to put it together
as PostgreSQL takes to answer, and planned anew for each event. It says once more what
``catalog.showable`` and ``targeting`` say, and ``shown`` what ``OfferSerializer`` says:
tests/test_listing.py holds them against each other.
"""

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connections
from django.db.models import IntegerField, OuterRef, TextField

from offers import replica
from offers.models import Registration
from offers.money import format_amount
from offers.prepared import Given, Row
from offers.targeting import Place

# What an offer targets is looked up offer by offer on the way through `offer_newest_on_sale`, which
# ends when the page is full: it costs the same however many offers and targets there are.
OFFERS = """
SELECT offer.id, offer.title, offer.description, offer.offer_type, offer.price,
       offer.original_price, offer.currency, offer.image_url, offer.inventory_total,
       offer.inventory_reserved, offer.inventory_sold, offer.placement, offer.shipping_countries,
       offer.allows_collection, offer.starts_at, offer.expires_at, offer.max_per_user,
       offer.is_active, offer.is_archived, offer.created_at, offer.updated_at,
       upgrade.slug AS upgrade, sessions.slugs AS sessions, tiers.slugs AS tiers
FROM offers_offer AS offer
LEFT JOIN offers_tickettier AS upgrade ON upgrade.id = offer.ticket_tier_id
CROSS JOIN LATERAL (
    SELECT array_agg(session.id) AS ids, array_agg(session.slug) AS slugs
    FROM offers_offer_target_sessions AS target
    JOIN offers_eventsession AS session ON session.id = target.eventsession_id
    WHERE target.offer_id = offer.id
) AS sessions
CROSS JOIN LATERAL (
    SELECT array_agg(tier.id) AS ids, array_agg(tier.slug) AS slugs
    FROM offers_offer_target_ticket_tiers AS target
    JOIN offers_tickettier AS tier ON tier.id = target.tickettier_id
    WHERE target.offer_id = offer.id
) AS tiers
WHERE offer.event_id = %(event)s
  AND offer.is_active AND NOT offer.is_archived
  AND (offer.starts_at IS NULL OR offer.starts_at <= %(now)s)
  AND (offer.expires_at IS NULL OR offer.expires_at > %(now)s)
  AND (offer.inventory_total IS NULL
       OR offer.inventory_total > offer.inventory_reserved + offer.inventory_sold)
  AND (tiers.ids IS NULL OR %(ticket_tier)s = ANY (tiers.ids))
  AND (sessions.ids IS NULL OR %(every_session)s OR sessions.ids && %(attended)s::bigint[])
  AND (sessions.ids IS NULL OR %(session)s::text IS NULL OR %(session)s = ANY (sessions.slugs))
  AND (%(placement)s::text IS NULL OR offer.placement = %(placement)s)
"""
NEWEST_FIRST = "ORDER BY offer.created_at DESC, offer.id DESC"
OLDEST_FIRST = "ORDER BY offer.created_at, offer.id"
BEFORE = "AND offer.created_at < %(position)s"
AFTER = "AND offer.created_at > %(position)s"

_REGISTRATION = Row(
    lambda: Registration.objects.filter(
        event__slug=Given("event", TextField()), user=Given("user", IntegerField())
    ).values_list(
        "event_id",
        "ticket_tier_id",
        ArraySubquery(
            Registration.sessions.through.objects.filter(registration=OuterRef("pk")).values(
                "eventsession_id"
            )
        ),
    )
)


def registered_at(slug: str, user_id: int) -> tuple[uuid.UUID, Place] | None:
    """The event's id and the user's place there, for who is registered and so may see it."""
    found = _REGISTRATION.get(event=slug, user=user_id)
    if found is None:
        return None
    event_id, ticket_tier, sessions = found
    return event_id, Place(ticket_tier, frozenset(sessions))


@dataclass(frozen=True)
class ListedOffers:
    """What can be bought at an event now by everybody with that place, or by anybody.

    To ``NewestFirst`` it is a queryset that yields rows: it can be ordered, begun at a position,
    and sliced. Only the last asks the database, once.
    """

    event_id: uuid.UUID
    place: Place | None
    now: datetime
    session: str | None = None
    placement: str | None = None
    order: str = NEWEST_FIRST
    beginning: str = ""
    position: str | None = None

    def order_by(self, first: str, then: str) -> "ListedOffers":
        """For ``NewestFirst.ordering``, or its reverse."""
        order = {("-created_at", "-id"): NEWEST_FIRST, ("created_at", "id"): OLDEST_FIRST}
        return replace(self, order=order[first, then])

    def filter(self, **position: str) -> "ListedOffers":
        """For the position of a cursor, which isn't on the page itself."""
        [(lookup, value)] = position.items()
        beginning = {"created_at__lt": BEFORE, "created_at__gt": AFTER}
        return replace(self, beginning=beginning[lookup], position=value)

    def __getitem__(self, part: slice) -> list[dict[str, Any]]:
        return replica.read(lambda database: self._rows(part, database))

    def _rows(self, part: slice, database: str) -> list[dict[str, Any]]:
        place = self.place
        with connections[database].cursor() as cursor:
            cursor.execute(
                f"{OFFERS} {self.beginning} {self.order} LIMIT %(limit)s OFFSET %(offset)s",
                {
                    "event": self.event_id,
                    "now": self.now,
                    "ticket_tier": None if place is None else place.ticket_tier,
                    "every_session": place is not None and not place.sessions,
                    "attended": [] if place is None else list(place.sessions),
                    "session": self.session,
                    "placement": self.placement,
                    "position": self.position,
                    "limit": part.stop - part.start,
                    "offset": part.start,
                },
            )
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]


def shown(row: dict[str, Any], event: str) -> dict[str, Any]:
    """An offer of the list of the event with that slug, as ``OfferSerializer`` has it."""
    currency, original_price = row["currency"], row["original_price"]
    total, reserved, sold = (
        row["inventory_total"], row["inventory_reserved"], row["inventory_sold"],
    )  # fmt: skip
    return {
        "id": row["id"],
        "event": event,
        "title": row["title"],
        "description": row["description"],
        "offer_type": row["offer_type"],
        "price": format_amount(row["price"], currency),
        "original_price": (
            None if original_price is None else format_amount(original_price, currency)
        ),
        "currency": currency,
        "image_url": row["image_url"],
        "inventory": {
            "total": total,
            "available": None if total is None else total - reserved - sold,
            "reserved": reserved,
            "sold": sold,
        },
        "is_available": True,  # what can't be bought now is not in the list
        "placement": row["placement"],
        "target_sessions": sorted(row["sessions"] or ()),
        "target_ticket_tiers": sorted(row["tiers"] or ()),
        "ticket_tier": row["upgrade"],
        "shipping_countries": row["shipping_countries"],
        "allows_collection": row["allows_collection"],
        "starts_at": row["starts_at"],
        "expires_at": row["expires_at"],
        "max_per_user": row["max_per_user"],
        "is_active": row["is_active"],
        "is_archived": row["is_archived"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
