"""Requests and answers as they are, all of one story: the demo conference and its hoodie.

``tests/test_openapi.py`` holds them against the schema and against real answers.
"""

from typing import Any

from offers import money

EVENT_ID = "5e1f4c0a-93f4-4a52-8f0e-2b1c7a6d9e30"
OFFER_ID = "7b1c4c3e-58f5-4b6e-9a38-3a8f1d0c2e55"
PURCHASE_ID = "0d3f5a52-6d0c-4a3a-8a3e-0c8f3a9d7b11"
SLOT_ID = "c4b1f7de-2f59-4a55-b2f2-6a0a5f0d9c21"
SESSION_ID = "cs_test_a1B2c3D4e5F6"
HERE = "https://offers.example.com"

Example = dict[str, Any]


def example(summary: str, value: Any) -> Example:
    """An Example Object: https://spec.openapis.org/oas/v3.1.1.html#example-object."""
    return {"summary": summary, "value": value}


def page(*results: Any, following: str | None = None) -> dict[str, Any]:
    """One page of a list, with the address of the following one if there is one."""
    return {"next": following, "previous": None, "results": list(results)}


# -- Who calls ------------------------------------------------------------------------------------

LOGIN = {"username": "attendee1", "password": "attendee1"}
ACCESS = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIn0.c2lnbmF0dXJl"
REFRESH = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"

# -- What is sold ---------------------------------------------------------------------------------

EVENT = {
    "id": EVENT_ID,
    "slug": "demo-conf",
    "title": "Demo Conf",
    "description": "Two days about selling things fairly.",
    "organization": "demo",
    "is_public": True,
    "starts_at": "2026-12-22T09:00:00Z",
    "ends_at": "2026-12-23T17:00:00Z",
    "sessions": [
        {
            "slug": "keynote",
            "title": "Keynote",
            "starts_at": "2026-12-22T09:00:00Z",
            "ends_at": "2026-12-22T10:00:00Z",
        }
    ],
    "ticket_tiers": [
        {"slug": "standard", "title": "Standard"},
        {"slug": "vip", "title": "VIP"},
    ],
}

OFFER = {
    "id": OFFER_ID,
    "event": "demo-conf",
    "title": "Conference hoodie",
    "description": "Organic cotton, in the colours of this year.",
    "offer_type": "MERCHANDISE",
    "price": "39.00",
    "original_price": "49.00",
    "currency": "USD",
    "image_url": "https://pictures.example.com/hoodie.jpg",
    "inventory": {"total": 200, "available": 120, "reserved": 6, "sold": 74},
    "is_available": True,
    "placement": "IN_EVENT",
    "target_sessions": [],
    "target_ticket_tiers": [],
    "ticket_tier": None,
    "shipping_countries": ["AT", "CH", "DE"],
    "allows_collection": True,
    "starts_at": None,
    "expires_at": "2026-12-23T17:00:00Z",
    "max_per_user": 2,
    "is_active": True,
    "is_archived": False,
    "created_at": "2026-11-01T08:00:00Z",
    "updated_at": "2026-11-20T14:12:00Z",
}
UNLIMITED = {
    **OFFER,
    "id": "2a4d5b66-0d9b-4c31-9d0f-7d7c0c1e8f42",
    "title": "All recordings",
    "description": "Every talk and workshop, to watch for a year.",
    "offer_type": "EXCLUSIVE_CONTENT",
    "price": "2900",
    "original_price": None,
    "currency": "JPY",
    "image_url": "",
    "inventory": {"total": None, "available": None, "reserved": 0, "sold": 310},
    "shipping_countries": [],
    "max_per_user": None,
}
NEW_OFFER = {
    "event": "demo-conf",
    "title": "Conference hoodie",
    "description": "Organic cotton, in the colours of this year.",
    "offer_type": "MERCHANDISE",
    "price": "39.00",
    "original_price": "49.00",
    "currency": "USD",
    "image_url": "https://pictures.example.com/hoodie.jpg",
    "inventory_total": 200,
    "placement": "IN_EVENT",
    "shipping_countries": ["AT", "CH", "DE"],
    "expires_at": "2026-12-23T17:00:00Z",
    "max_per_user": 2,
}
CREATED = {**OFFER, "inventory": {"total": 200, "available": 200, "reserved": 0, "sold": 0}}

# -- What was bought ------------------------------------------------------------------------------

HELD = {
    "id": PURCHASE_ID,
    "offer": OFFER_ID,
    "offer_title": "Conference hoodie",
    "event": "demo-conf",
    "quantity": 2,
    "unit_price": "39.00",
    "total_price": "78.00",
    "currency": "USD",
    "status": "awaiting_payment",
    "release_reason": None,
    "reserved_until": "2026-11-23T12:15:00Z",
    "checkout_session_id": SESSION_ID,
    "checkout_url": f"https://checkout.stripe.com/c/pay/{SESSION_ID}",
    "delivery_method": "collection",
    "refunded_amount": "0.00",
    "created_at": "2026-11-23T11:59:58Z",
    "paid_at": None,
    "refunded_at": None,
    "fulfillment": None,
}
CANCELLED = {**HELD, "status": "released", "release_reason": "cancelled", "checkout_url": None}
JUST_PAID = {
    **HELD,
    "status": "paid",
    "checkout_url": None,
    "paid_at": "2026-11-23T12:00:00Z",
}
PARCEL = {
    "type": "PHYSICAL",
    "status": "PROCESSING",
    "fulfilled_at": None,
    "delivery_method": "collection",
    "carrier": None,
    "tracking_number": None,
    "tracking_url": None,
    "shipped_at": None,
    "delivered_at": None,
    "pickup_code": "PCK7Q2MX9",
}
PAID = {**JUST_PAID, "fulfillment": PARCEL}
REFUNDING = {**PAID, "status": "refunding"}


def bought(title: str, price: str, fulfillment: dict[str, Any]) -> dict[str, Any]:
    """A paid purchase of one unit of something that is neither sent nor collected."""
    return {
        **JUST_PAID,
        "offer_title": title,
        "quantity": 1,
        "unit_price": price,
        "total_price": price,
        "delivery_method": None,
        "fulfillment": fulfillment,
    }


RECORDINGS = bought(
    "All recordings",
    "19.00",
    {
        "type": "DIGITAL",
        "status": "FULFILLED",
        "fulfilled_at": "2026-11-23T12:00:02Z",
        "content_url": f"{HERE}/content/MTIzNDU2:1vN8Qk:s1gN4tUr3",
        "access_code": "WATCH-4F7K-29",
        "access_codes": ["WATCH-4F7K-29"],
        "downloads": 0,
    },
)
UPGRADE = bought(
    "VIP upgrade",
    "50.00",
    {
        "type": "TICKET",
        "status": "FULFILLED",
        "fulfilled_at": "2026-11-23T12:00:02Z",
        "ticket_tier": "vip",
        "previous_ticket_tier": "standard",
        "ticket_code": "TKT8H3WQ5Z",
        "ticket_code_url": f"{HERE}/purchases/{PURCHASE_ID}/code.svg",
    },
)
TO_BOOK = bought(
    "Career coaching, 30 minutes",
    "25.00",
    {
        "type": "SERVICE",
        "status": "PROCESSING",
        "fulfilled_at": None,
        "scheduled_at": None,
        "ends_at": None,
        "location": None,
        "can_change_until": None,
    },
)
BOOKED = {
    **TO_BOOK,
    "fulfillment": {
        **TO_BOOK["fulfillment"],
        "status": "FULFILLED",
        "fulfilled_at": "2026-11-23T12:05:00Z",
        "scheduled_at": "2026-12-22T10:00:00Z",
        "ends_at": "2026-12-22T10:30:00Z",
        "location": "Room 3, first floor",
        "can_change_until": "2026-12-21T10:00:00Z",
    },
}
SLOT = {
    "id": SLOT_ID,
    "starts_at": "2026-12-22T10:00:00Z",
    "ends_at": "2026-12-22T10:30:00Z",
    "seats_left": 2,
    "location": "Room 3, first floor",
}

# -- What Stripe says -----------------------------------------------------------------------------

STRIPE_EVENT = {
    "id": "evt_1QabcD2eZvKYlo2C",
    "object": "event",
    "type": "checkout.session.completed",
    "created": 1795435200,
    "data": {
        "object": {
            "id": SESSION_ID,
            "object": "checkout.session",
            "payment_status": "paid",
            "amount_total": 7800,
            "currency": "usd",
        }
    },
}

MONEY = (
    "A decimal string with exactly the digits of the currency beside it: `50.00` USD, `500` JPY, "
    "`1.250` KWD. Read it with a decimal type, never with a float."
)
CURRENCIES = sorted(money.CURRENCIES)
