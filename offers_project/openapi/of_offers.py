"""The words for what shows what is sold, sets it up, and for logging in."""

from rest_framework.exceptions import NotFound, Throttled

from offers_project.http_errors import ApiError
from offers_project.openapi import examples
from offers_project.openapi.examples import example, page
from offers_project.openapi.words import (
    AUTH,
    BAD_TOKEN,
    EVENTS,
    NO_EVENT,
    NO_OFFER,
    NOT_JSON,
    NOT_THEIRS,
    OFFERS,
    REQUIRED,
    SELLING,
    Operation,
    wrong,
)

OPERATIONS: dict[str, Operation] = {
    # -- auth -------------------------------------------------------------------------------------
    "auth_token_create": Operation(
        tag=AUTH,
        summary="Log in",
        description=(
            "Exchanges a user name and a password for two tokens. Send `access` with each request "
            "(`Authorization: Bearer …`); it works for an hour, unless this server is set up "
            "otherwise. `refresh` gets new ones for seven days. A new password ends both."
        ),
        requests={"attendee": example("An attendee of the demo", examples.LOGIN)},
        meanings={"200": "The tokens."},
        answers={
            "200": {
                "tokens": example(
                    "Both tokens", {"refresh": examples.REFRESH, "access": examples.ACCESS}
                )
            }
        },
        errors=(
            wrong("password", "required", REQUIRED),
            NOT_JSON,
            ApiError(
                "No active account found with the given credentials",
                code="no_active_account",
                status=401,
            ),
            BAD_TOKEN,
            Throttled(wait=42),
        ),
    ),
    "auth_token_refresh_create": Operation(
        tag=AUTH,
        summary="Renew the access token",
        description=(
            "Exchanges the refresh token for a new access token: when the old one is about to end, "
            "or once, when a request is answered with 401. If this answers 401 too, log in again."
        ),
        requests={"refresh": example("The token from the login", {"refresh": examples.REFRESH})},
        meanings={"200": "The new access token. The refresh token stays as it is."},
        answers={"200": {"token": example("A new access token", {"access": examples.ACCESS})}},
        errors=(wrong("refresh", "required", REQUIRED), NOT_JSON, BAD_TOKEN),
    ),
    # -- events -----------------------------------------------------------------------------------
    "events_list": Operation(
        tag=EVENTS,
        summary="List events",
        description=(
            "Public events and, with a token, the private ones that the caller is registered for. "
            "Sorted by `slug`."
        ),
        meanings={"200": "A page of events."},
        answers={"200": {"events": example("One public event", page(examples.EVENT))}},
        errors=(BAD_TOKEN, NotFound("Invalid cursor")),
    ),
    "events_retrieve": Operation(
        tag=EVENTS,
        summary="Show an event",
        description=(
            "One event with its sessions and ticket tiers, by its slug. A private event that the "
            "caller is not registered for is answered with 404, as if it did not exist."
        ),
        meanings={"200": "The event."},
        answers={"200": {"event": example("The demo conference", examples.EVENT)}},
        errors=(BAD_TOKEN, NotFound()),
    ),
    # -- offers -----------------------------------------------------------------------------------
    "offers_list": Operation(
        tag=OFFERS,
        summary="List what can be bought",
        description=(
            "The offers of one event that can be shown now: active, inside their window, not sold "
            "out, and meant for the caller's ticket tier and sessions. Without a token: those that "
            "are meant for everyone. Newest first.\n\n"
            "What is listed may be gone a moment later: `POST /api/v1/purchases/` decides."
        ),
        meanings={"200": "A page of offers."},
        answers={
            "200": {
                "offers": example(
                    "One limited offer, and one without a limit in a currency without cents",
                    page(examples.OFFER, examples.UNLIMITED),
                ),
                "nothing": example("Nothing to show", page()),
            }
        },
        errors=(
            wrong("event", "required", REQUIRED),
            wrong("session", "invalid", "The event demo-conf has no session closing."),
            wrong("placement", "invalid_choice", '"TOP" is not a valid choice.'),
            BAD_TOKEN,
            NO_EVENT,
        ),
    ),
    "offers_retrieve": Operation(
        tag=OFFERS,
        summary="Show an offer",
        description=(
            "One offer, whether or not it can be bought now: `is_available` says so, "
            "`GET /api/v1/offers/{id}/availability/` says why not. Whoever may see the event may "
            "see its offers."
        ),
        meanings={"200": "The offer."},
        answers={"200": {"offer": example("A limited offer", examples.OFFER)}},
        errors=(BAD_TOKEN, NO_OFFER),
    ),
    "offers_availability_retrieve": Operation(
        tag=OFFERS,
        summary="Ask whether it can be bought",
        description=(
            "Whether the caller could buy `quantity` units now. A refusal is no error here: "
            "`available` is false then, and `reason` is the code that a purchase would be refused "
            "with. Nothing is held."
        ),
        meanings={"200": "Yes, or no and why."},
        answers={
            "200": {
                "yes": example(
                    "It can be bought",
                    {"available": True, "reason": None, "inventory_available": 120},
                ),
                "too_many": example(
                    "Fewer are left than asked for",
                    {
                        "available": False,
                        "reason": "insufficient_inventory",
                        "inventory_available": 1,
                    },
                ),
                "sold_out": example(
                    "Nothing is left",
                    {"available": False, "reason": "sold_out", "inventory_available": 0},
                ),
            }
        },
        errors=(
            wrong("quantity", "min_value", "Ensure this value is greater than or equal to 1."),
            wrong("quantity", "invalid", "A valid integer is required."),
            BAD_TOKEN,
            NO_OFFER,
        ),
    ),
    # -- selling ----------------------------------------------------------------------------------
    "offers_create": Operation(
        tag=SELLING,
        summary="Create an offer",
        description=(
            "For members of the event's organization. It is on sale at once, unless "
            "`is_active` is false or `starts_at` is later. `inventory_total` is the stock; null or "
            "left out, it is unlimited."
        ),
        requests={"hoodie": example("A limited piece of merchandise", examples.NEW_OFFER)},
        meanings={"201": "The new offer."},
        answers={"201": {"created": example("On sale", examples.CREATED)}},
        errors=(
            wrong("title", "required", REQUIRED),
            wrong(
                "offer_type",
                "invalid_choice",
                "Use one of TICKET_UPGRADE, MERCHANDISE, EXCLUSIVE_CONTENT, SERVICE.",
            ),
            wrong("expires_at", "invalid", "The sale must end after it starts."),
            NOT_JSON,
            NOT_THEIRS,
        ),
    ),
    "offers_partial_update": Operation(
        tag=SELLING,
        summary="Change an offer",
        description=(
            "For members of the event's organization: changes the fields that are "
            "sent, and no others. The price can't change once anything is sold, the type not once "
            "anything is sold or held, and the total can't go below what is sold and held."
        ),
        requests={
            "restock": example("More stock", {"inventory_total": 250}),
            "pause": example("Stop selling for now", {"is_active": False}),
        },
        meanings={"200": "The offer as it is now."},
        answers={
            "200": {
                "restocked": example(
                    "With more stock",
                    {
                        **examples.OFFER,
                        "inventory": {"total": 250, "available": 170, "reserved": 6, "sold": 74},
                    },
                )
            }
        },
        errors=(NOT_JSON, NOT_THEIRS, NO_OFFER),
    ),
    "offers_destroy": Operation(
        tag=SELLING,
        summary="Archive an offer",
        description=(
            "For members of the event's organization: takes the offer off sale for "
            "good. What was sold keeps its record, and unpaid holds can still be paid."
        ),
        meanings={"204": "It is archived."},
        errors=(NOT_THEIRS, NO_OFFER),
    ),
}
