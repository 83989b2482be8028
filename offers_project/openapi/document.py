"""The OpenAPI document as a whole: its introduction, tags, enums; and a last hand on the rest."""

from email.utils import parseaddr
from typing import Any

from django.conf import settings

from offers_project.openapi import webhooks, words

DESCRIPTION = """\
Limited add-ons of an event (ticket upgrades, merchandise, recordings, services): an attendee holds
some units, pays for them on Stripe's page, and receives them.

**In short.** Log in (`POST /api/v1/auth/token/`), list an event's offers
(`GET /api/v1/offers/?event=…`), buy (`POST /api/v1/purchases/`), send the buyer to `checkout_url`,
and when they come back, look at the purchase (`GET /api/v1/purchases/{id}/`) until it is `paid`.

**Who calls.** Send `Authorization: Bearer …` with the access token. Pages of this server may use
the session cookie instead, and then send the CSRF token with what changes something. Operations
that show what is sold also answer without either.

**JSON.** Bodies and answers are JSON, ids are UUIDs, times are ISO 8601 in UTC
(`2026-11-23T12:00:00Z`). Fields may be added to answers at any time: ignore what you don't know.

**Money** is a decimal string with exactly the digits of the currency beside it: `"50.00"` USD,
`"500"` JPY, `"1.250"` KWD. Read it with a decimal type, never with a float.

**Lists** are pages: `results`, and in `next` the whole address of the following page, or null.
Follow `next` as it is; the cursor in it is nobody's business. `page_size` is 50, and at most 200.

**Errors** all have one shape: `type`, and in `errors` at least one `code` (for programs), `detail`
(for people) and `attr` (the field at fault, or null). Decide by the status and `code`. A 429 and a
503 say in `Retry-After` how many seconds to wait.

**Buying twice** can't happen by accident if each click on Buy has an `Idempotency-Key` of its own,
and every repetition of that click the same one.

**Limits.** One user may start 10 purchases a minute and have 3 unpaid ones open, unless this server
is set up otherwise.
"""

TAGS = [
    {"name": words.AUTH, "description": "Tokens for who calls."},
    {"name": words.EVENTS, "description": "Where things are sold."},
    {"name": words.OFFERS, "description": "What is sold, and how much of it is left."},
    {
        "name": words.PURCHASES,
        "description": "What the caller has bought: held, then paid, then delivered.",
    },
    {
        "name": words.BOOKINGS,
        "description": "The time at which a service that was bought is given.",
    },
    {
        "name": words.SELLING,
        "description": "For members of the organization: set up offers, send money back.",
    },
    {"name": words.STRIPE, "description": "Not for you, unless you are Stripe."},
]

ENUMS: dict[str, dict[str, str]] = {
    "PurchaseStatusEnum": {
        "reserved": "the units are held, and there is no page yet to pay on; ask again in a moment",
        "awaiting_payment": "the units are held until `reserved_until`: pay at `checkout_url`",
        "payment_processing": "paid by a method that takes days; the units stay held",
        "paid": "paid, or free of charge",
        "refund_due": "paid too late, and nothing was left: the money is on its way back",
        "refunding": "all of the money is on its way back",
        "refunded": "all of the money is back",
        "released": "not paid: the units went back on sale, `release_reason` says why",
    },
    "ReleaseReasonEnum": {
        "expired": "nobody paid in time",
        "cancelled": "the buyer gave it back",
        "payment_failed": "a method that takes days failed in the end",
        "provider_error": "Stripe could not open a page to pay on",
        "staff": "somebody of the organization ended it",
    },
    "FulfillmentStatusEnum": {
        "PENDING": "waits for a worker",
        "PROCESSING": "begun; the buyer or staff may have to do something",
        "FULFILLED": "the buyer has it",
        "FAILED": "staff have to look",
        "REVOKED": "taken back after a refund",
    },
    "OfferTypeEnum": {
        "TICKET_UPGRADE": "a better ticket tier",
        "MERCHANDISE": "something that is sent or collected",
        "EXCLUSIVE_CONTENT": "a download, an address, or codes",
        "SERVICE": "something that is given at a time",
    },
    "PlacementEnum": {
        "CHECKOUT": "while a ticket is bought",
        "POST_PURCHASE": "after something was bought",
        "IN_EVENT": "on the event's own pages",
        "EMAIL": "in e-mails",
    },
    "ReasonEnum": {
        "purchases_disabled": "nothing is sold at the moment",
        "not_registered": "the event is private, and the caller isn't registered",
        "not_eligible": "it is for other ticket tiers or sessions",
        "offer_archived": "it was withdrawn",
        "offer_expired": "its sale has ended",
        "offer_inactive": "it is not on sale",
        "offer_not_started": "its sale has not started yet",
        "sold_out": "nothing is left",
        "insufficient_inventory": "fewer are left than asked for",
        "too_many_open_holds": "the caller has as many unpaid purchases as they may",
        "purchase_limit_reached": "the caller would have more of it than they may",
    },
    "DeliveryMethodEnum": {
        "shipping": "sent to the address that is asked for when paying",
        "collection": "collected at the event",
    },
    "StateEnum": {
        "stored": "not yet acted on",
        "processed": "acted on",
        "ignored": "nothing to do",
        "failed": "will be tried again",
        "dead": "given up; staff have to look",
    },
    "ShippingCountriesEnum": {},
    "DigitalTypeEnum": {},
    "TicketTypeEnum": {},
    "PhysicalTypeEnum": {},
    "BookingTypeEnum": {},
    "BadRequestTypeEnum": {
        "validation_error": "a field is wrong",
        "client_error": "the request as a whole is",
    },
    "ClientErrorEnum": {"client_error": "the request can't be answered as it is"},
    "ServerErrorEnum": {"server_error": "not the caller's fault; it may work later"},
}
OTHER_ENUMS = {
    "ShippingCountriesEnum": "A country, by its two letters (ISO 3166).",
    "DigitalTypeEnum": "A download, an address, or codes.",
    "TicketTypeEnum": "A better ticket.",
    "PhysicalTypeEnum": "Something to be sent or collected.",
    "BookingTypeEnum": "Something that is given at a time.",
}

# What simplejwt's serializers don't say of their fields.
TOKEN_FIELDS = {
    "username": "The user's name.",
    "password": "The user's password.",
    "access": "For `Authorization: Bearer …`.",
    "refresh": "For `POST /api/v1/auth/token/refresh/`, when the access token has ended.",
}
TOKENS = {
    "TokenObtainPair": "Who has logged in.",
    "TokenObtainPairRequest": "Who wants to log in.",
    "TokenRefresh": "A new access token.",
    "TokenRefreshRequest": "What a new access token is made from.",
}
SECURITY_SCHEMES = {
    "jwtAuth": "The `access` token of `POST /api/v1/auth/token/`.",
    "cookieAuth": (
        "The session of somebody who is logged in on this server's pages. What changes something "
        "needs the CSRF token too (`X-CSRFToken`)."
    ),
}
FULFILLMENT = "What a purchase became: one of four kinds, by `type`."
NULL = "#/components/schemas/NullEnum"


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's last hook: put in what belongs to no single view or serializer."""
    schemas = result["components"]["schemas"]
    result["info"]["description"] = DESCRIPTION
    result["info"]["contact"] = _contact()
    result["tags"] = TAGS
    for component, meanings in ENUMS.items():
        schemas[component]["description"] = OTHER_ENUMS.get(component) or "\n".join(
            f"* `{value}`: {meaning}" for value, meaning in meanings.items()
        )
    for component, description in TOKENS.items():
        schemas[component]["description"] = description
        for name, schema in schemas[component]["properties"].items():
            schema["description"] = TOKEN_FIELDS[name]
    schemas["Fulfillment"] |= {"type": "object", "description": FULFILLMENT}
    fulfillment = schemas["Purchase"]["properties"]["fulfillment"]
    fulfillment["description"] = (
        "What became of it. Null until a worker has taken it on, a moment after the payment."
    )
    schemes = result["components"]["securitySchemes"]
    result["components"]["securitySchemes"] = {
        # In this order: a token is what most callers have.
        scheme: {**schemes[scheme], "description": description}
        for scheme, description in SECURITY_SCHEMES.items()
    }
    events = webhooks.EXAMPLES
    schemas |= {webhooks.name_of(event): webhooks.schema_of(event) for event in events}
    result["webhooks"] = {event: webhooks.path_item(event) for event in events}
    _null_by_itself(result)
    schemas.pop("NullEnum", None)
    _drop_unused(result)
    return result


def _contact() -> dict[str, str]:
    """Who answers the e-mails that this server sends."""
    name, address = parseaddr(settings.DEFAULT_FROM_EMAIL)
    return {"name": name or "the operator of this server", "email": address}


def _null_by_itself(part: Any) -> None:
    """Write null as the type that it is in OpenAPI 3.1, and not as an enum of its own."""
    if isinstance(part, dict):
        if part.get("$ref") == NULL:
            part.clear()
            part["type"] = "null"
        for value in part.values():
            _null_by_itself(value)
    elif isinstance(part, list):
        for value in part:
            _null_by_itself(value)


def _drop_unused(result: dict[str, Any]) -> None:
    """Leave out what only fields that no request has refer to."""
    schemas = result["components"]["schemas"]
    text = str({**result, "components": None})
    used: set[str] = set()
    found = [name for name in schemas if f"'#/components/schemas/{name}'" in text]
    while found:
        name = found.pop()
        if name not in used:
            used.add(name)
            inside = str(schemas[name])
            found += [other for other in schemas if f"'#/components/schemas/{other}'" in inside]
    for name in schemas.keys() - used:
        del schemas[name]
