"""The `webhooks` of the document: what organizations' own servers are sent (docs/webhooks.md)."""

from typing import Any

from offers_project.openapi.examples import OFFER_ID, PURCHASE_ID, example
from offers_project.openapi.words import SELLING
from purchases.subscribers.publishing import TEST, TYPES

Schema = dict[str, Any]

TIME: Schema = {"type": "string", "format": "date-time"}
ID: Schema = {"type": "string", "format": "uuid"}
TEXT: Schema = {"type": "string"}
AMOUNT: Schema = {"type": "string", "format": "decimal"}

OF_A_PURCHASE: dict[str, Schema] = {
    "purchase_id": {**ID, "description": "The purchase that it is about."},
    "event": {**TEXT, "description": "The slug of the event at which it was sold."},
    "offer_title": {**TEXT, "description": "What was bought, as it was called then."},
}
OF_MONEY: dict[str, Schema] = {
    **OF_A_PURCHASE,
    "offer_id": {**ID, "description": "The offer that was bought."},
    "quantity": {"type": "integer", "minimum": 1, "description": "How many units."},
    "currency": {**TEXT, "description": "Three capital letters (ISO 4217)."},
}
OF_A_DELIVERY: dict[str, Schema] = {
    **OF_A_PURCHASE,
    "fulfillment_type": {
        "type": "string",
        "enum": ["DIGITAL", "TICKET", "PHYSICAL", "SERVICE"],
        "description": "What kind of thing it is.",
    },
}
STATUS: Schema = {**TEXT, "description": "The status of the delivery."}

DATA: dict[str, dict[str, Schema]] = {
    "purchase.paid": {
        **OF_MONEY,
        "total_price": {**AMOUNT, "description": "What was paid, in `currency`."},
        "paid_at": {**TIME, "description": "When it was paid."},
    },
    "purchase.refunded": {
        **OF_MONEY,
        "refunded_amount": {**AMOUNT, "description": "What went back, in `currency`."},
        "refunded_at": {**TIME, "description": "When it was refunded."},
    },
    "fulfillment.fulfilled": {
        **OF_A_DELIVERY,
        "status": STATUS,
        "fulfilled_at": {**TIME, "description": "When the buyer had it."},
    },
    "fulfillment.failed": {**OF_A_DELIVERY, "status": STATUS},
    "fulfillment.revoked": {**OF_A_DELIVERY, "status": STATUS},
    "fulfillment.shipped": {
        **OF_A_DELIVERY,
        "carrier": {**TEXT, "description": "Who carries the parcel."},
        "tracking_number": {**TEXT, "description": "The carrier's number for it."},
    },
    "booking.changed": {
        **OF_A_PURCHASE,
        "scheduled_at": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "The time that is booked now; null: none any more.",
        },
    },
    TEST: {"message": {**TEXT, "description": "A sentence for who looks."}},
}

OF_THE_HOODIE = {
    "purchase_id": PURCHASE_ID,
    "event": "demo-conf",
    "offer_id": OFFER_ID,
    "offer_title": "Conference hoodie",
    "quantity": 2,
}
OF_THE_RECORDINGS = {
    "purchase_id": PURCHASE_ID,
    "event": "demo-conf",
    "offer_title": "All recordings",
    "fulfillment_type": "DIGITAL",
}
# When, and what is in `data`. The same as in docs/webhooks.md.
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "purchase.paid": (
        "2026-11-23T12:00:00Z",
        {
            **OF_THE_HOODIE,
            "total_price": "78.00",
            "currency": "USD",
            "paid_at": "2026-11-23T12:00:00Z",
        },
    ),
    "purchase.refunded": (
        "2026-11-24T09:30:00Z",
        {
            **OF_THE_HOODIE,
            "refunded_amount": "78.00",
            "currency": "USD",
            "refunded_at": "2026-11-24T09:30:00Z",
        },
    ),
    "fulfillment.fulfilled": (
        "2026-11-23T12:00:02Z",
        {**OF_THE_RECORDINGS, "status": "FULFILLED", "fulfilled_at": "2026-11-23T12:00:02Z"},
    ),
    "fulfillment.failed": ("2026-11-23T13:10:00Z", {**OF_THE_RECORDINGS, "status": "FAILED"}),
    "fulfillment.revoked": ("2026-11-24T09:30:01Z", {**OF_THE_RECORDINGS, "status": "REVOKED"}),
    "fulfillment.shipped": (
        "2026-11-25T16:00:00Z",
        {
            "purchase_id": PURCHASE_ID,
            "event": "demo-conf",
            "offer_title": "Conference hoodie",
            "fulfillment_type": "PHYSICAL",
            "carrier": "DHL",
            "tracking_number": "JJD000340434161094042",
        },
    ),
    "booking.changed": (
        "2026-11-23T12:05:00Z",
        {
            "purchase_id": PURCHASE_ID,
            "event": "demo-conf",
            "offer_title": "Career coaching, 30 minutes",
            "scheduled_at": "2026-12-01T10:00:00Z",
        },
    ),
    TEST: ("2026-11-23T12:00:00Z", {"message": "A test. Nothing has happened."}),
}

SUMMARIES = {**TYPES, TEST: "Somebody pressed “Send a test event”"}

DESCRIPTION = (
    "Sent to the addresses that the organization entered in admin under Webhook endpoints, by the "
    "rules of [Standard Webhooks](https://www.standardwebhooks.com). Check the signature over the "
    "body's bytes before you parse them, answer `2xx` within 10 seconds, and do the work "
    "afterwards. It may come twice, and late, and out of order."
)

HEADERS: list[dict[str, Any]] = [
    {
        "name": "webhook-id",
        "description": "Names the event: every attempt to send it to you has the same one.",
        "schema": {"type": "string"},
        "example": "msg_5f1c8e2b7c0d4a0e9f6f0f9f3b1f2a77",
    },
    {
        "name": "webhook-timestamp",
        "description": "When this attempt was made, in seconds since 1970; older than five "
        "minutes: refuse it.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "1795449600",
    },
    {
        "name": "webhook-signature",
        "description": "One signature, or several with spaces between them while a secret is "
        "replaced: one that fits is enough.",
        "schema": {"type": "string"},
        "example": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    },
]
ANSWERS = {
    "2XX": {"description": "It is yours now."},
    "410": {"description": "No more of it: the endpoint is made inactive at once."},
    "4XX": {"description": "It is sent again later."},
    "5XX": {"description": "It is sent again later."},
}


def schema_of(event: str) -> Schema:
    """The body of one event. What is in `data` may grow."""
    return {
        "type": "object",
        "description": f"{SUMMARIES[event]}.",
        "properties": {
            "type": {"type": "string", "const": event, "description": "What happened."},
            "timestamp": {**TIME, "description": "When it happened."},
            "data": {
                "type": "object",
                "description": "What it is about. Fields may be added: ignore unknown ones.",
                "properties": DATA[event],
                "required": sorted(DATA[event]),
            },
        },
        "required": ["type", "timestamp", "data"],
    }


def name_of(event: str) -> str:
    """The name of its schema: `PurchasePaidEvent`."""
    return "".join(part.capitalize() for part in event.split(".")) + "Event"


def path_item(event: str) -> dict[str, Any]:
    """The request that an organization's server gets, in OpenAPI's words."""
    at, data = EXAMPLES[event]
    return {
        "post": {
            "operationId": event.replace(".", "_"),
            "tags": [SELLING],
            "summary": SUMMARIES[event],
            "description": DESCRIPTION,
            "security": [],
            "parameters": [
                {**header, "in": "header", "required": True, "schema": header["schema"]}
                for header in HEADERS
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": f"#/components/schemas/{name_of(event)}"},
                        "examples": {
                            "sent": example(
                                SUMMARIES[event],
                                {"type": event, "timestamp": at, "data": data},
                            )
                        },
                    }
                },
            },
            "responses": ANSWERS,
        }
    }
