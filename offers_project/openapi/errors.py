"""What the OpenAPI document says of errors: for each operation its statuses, codes and examples.

The statuses of domain errors come from ``http_errors.HTTP_STATUS``, the codes of field errors from
the serializers, and the examples from what writes the real answers.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from drf_spectacular.utils import extend_schema_field
from drf_standardized_errors.formatter import ExceptionFormatter
from drf_standardized_errors.openapi_serializers import (
    ClientErrorEnum,
    ServerErrorEnum,
    ValidationErrorEnum,
)
from rest_framework import exceptions, serializers

from fulfillment import errors as fulfillment
from fulfillment.bookings import errors as bookings
from offers import errors as offers
from offers_project.http_errors import HTTP_STATUS, ApiError, as_api_error
from purchases import errors as purchases

# What an operation may refuse, by its operationId. 404 and `busy` go without saying.
REFUSALS: dict[str, tuple[type[offers.DomainError], ...]] = {
    "offers_partial_update": (
        offers.TotalBelowCommitted,
        offers.PriceLocked,
        offers.TypeLocked,
    ),
    "purchases_create": (
        offers.NotRegistered,
        offers.NotEligible,
        offers.OfferArchived,
        offers.OfferExpired,
        offers.OfferInactive,
        offers.OfferNotStarted,
        offers.SoldOut,
        offers.InsufficientInventory,
        purchases.PurchaseLimitReached,
        purchases.TooManyOpenHolds,
        purchases.IdempotencyKeyInUse,
        purchases.IdempotencyKeyReused,
        purchases.QuantityTooExpensive,
        purchases.DeliveryMethodNotOffered,
        offers.PurchasesDisabled,
        purchases.PaymentProviderUnavailable,
    ),
    "purchases_cancel_create": (
        purchases.NotCancellable,
        purchases.PaymentProviderUnavailable,
    ),
    "purchases_refund_create": (
        purchases.RefundNotAllowed,
        purchases.NotRefundable,
        purchases.InvalidRefundAmount,
        purchases.IdempotencyKeyReused,
    ),
    "purchases_slots_list": (fulfillment.NotPaidFor, bookings.NoBooking),
    "purchases_booking_create": (
        fulfillment.NotPaidFor,
        fulfillment.FulfillmentAlreadyResolved,
        bookings.NoBooking,
        bookings.SlotNotFound,
        bookings.SlotTaken,
        bookings.SlotPast,
        bookings.TooLateToChange,
    ),
    "purchases_booking_destroy": (
        fulfillment.NotPaidFor,
        bookings.NoBooking,
        bookings.TooLateToChange,
    ),
    "webhooks_stripe_create": (purchases.InvalidWebhook,),
}

# What DRF and Django refuse themselves, by status.
FRAMEWORK_CODES = {
    401: {"authentication_failed", "not_authenticated"},
    403: {"permission_denied"},
    404: {"not_found"},
    406: {"not_acceptable"},
    413: {"request_too_large"},
    415: {"unsupported_media_type"},
    429: {"throttled"},
    503: {offers.Busy.code},
}
# simplejwt's own refusal, on the one operation that takes a password.
LOGIN = "auth_token_create"
LOGIN_CODES = {"no_active_account"}

# The field's fault, or that of the request as a whole.
BAD_REQUEST_TYPES = [*ValidationErrorEnum.choices, *ClientErrorEnum.choices]
TYPES = {400: BAD_REQUEST_TYPES, 503: ServerErrorEnum.choices}

MEANINGS = {
    400: "A field, or the body as a whole, is not as it has to be; `attr` names the field.",
    401: "Who calls is not known: there is no token, or it is not valid (any more).",
    403: "Who calls is known, and may not do this.",
    404: "There is no such thing, or none that the caller may know of.",
    406: "The answer is JSON, and `Accept` does not allow that.",
    409: "It can't be done as things are; `code` says why, and `detail` says it to a person.",
    413: "The body is too large.",
    415: "The body is not sent as `application/json`.",
    422: "The `Idempotency-Key` was used for another request.",
    429: "Too many requests: come back after `Retry-After` seconds.",
    503: "Not just now, and nothing was done: the same request may succeed after `Retry-After` "
    "seconds.",
}

# Errors whose message depends on what happened.
SAMPLES: dict[type[offers.DomainError], offers.DomainError] = {
    offers.InsufficientInventory: offers.InsufficientInventory(available=3),
    offers.TotalBelowCommitted: offers.TotalBelowCommitted(committed=42),
    purchases.PurchaseLimitReached: purchases.PurchaseLimitReached(limit=2, have=2),
    purchases.TooManyOpenHolds: purchases.TooManyOpenHolds(limit=3),
    purchases.DeliveryMethodNotOffered: purchases.DeliveryMethodNotOffered(possible=["collection"]),
    purchases.InvalidRefundAmount: purchases.InvalidRefundAmount(
        "Send back more than 0 and at most 78.00 USD: that is left."
    ),
    fulfillment.FulfillmentAlreadyResolved: fulfillment.FulfillmentAlreadyResolved(
        status="REVOKED", transition="fulfil"
    ),
    bookings.SlotTaken: bookings.SlotTaken(left=1),
    bookings.TooLateToChange: bookings.TooLateToChange(
        deadline=datetime(2026, 12, 21, 10, tzinfo=UTC)
    ),
}

# What goes without saying; an operation that says it in other words has them in its own row.
USUAL: tuple[exceptions.APIException, ...] = (
    exceptions.NotAuthenticated(),
    exceptions.PermissionDenied(),
    exceptions.NotFound(),
    exceptions.NotAcceptable(),
    ApiError("This request is too large.", code="request_too_large", status=413),
    exceptions.UnsupportedMediaType("text/plain"),
    exceptions.Throttled(wait=12),
    as_api_error(offers.Busy()),
)


def refusals_of(operation: str, status: int) -> list[type[offers.DomainError]]:
    """The domain's errors that this operation answers with ``status``."""
    return [error for error in REFUSALS.get(operation, ()) if HTTP_STATUS[error] == status]


def examples(
    operation: str, status: int, codes: Iterable[str], own: Iterable[exceptions.APIException]
) -> dict[str, Any]:
    """One example for each code of ``codes`` that somebody will meet, as an answer has it.

    ``own`` are the operation's own words; they come first, and before the usual ones.
    """
    refused = [
        as_api_error(SAMPLES.get(error) or error()) for error in refusals_of(operation, status)
    ]
    found: dict[str, Any] = {}
    for error in (*own, *refused, *USUAL):
        answer = written(error)
        code = answer["errors"][0]["code"]
        if error.status_code == status and code in codes and code not in found:
            found[code] = {"summary": answer["errors"][0]["detail"], "value": answer}
    return found


def written(error: exceptions.APIException) -> Any:
    """The JSON of an error, made by what makes it of a real one."""
    return json.loads(json.dumps(ExceptionFormatter(error, {}, error).run()))  # type: ignore[typeddict-item]  # no request here


@cache
def error_response(name: str, status: int, codes: tuple[str, ...]) -> type[serializers.Serializer]:
    """The error shape with exactly these codes; ``name`` tells it from others of this status."""
    # A class of its own: DRF copies fields, and what an instance is told about the schema is lost.
    code = type("Code", (serializers.CharField,), {})
    extend_schema_field({"type": "string", "enum": list(codes)})(code)
    error = type(
        # This ending keeps the enum in its place: it is nobody else's.
        f"{name}{status}ErrorComponent",
        (serializers.Serializer,),
        {
            "__doc__": "What is wrong, and with which field.",
            "code": code(help_text="For programs: stays as it is."),
            "detail": serializers.CharField(help_text="For people, in English; may be reworded."),
            "attr": serializers.CharField(
                allow_null=True, help_text="The field, parameter or header at fault, if one is."
            ),
        },
    )
    types = TYPES.get(status, ClientErrorEnum.choices)
    return type(
        f"{name}ErrorResponse{status}",
        (serializers.Serializer,),
        {
            "__doc__": MEANINGS[status],
            "type": serializers.ChoiceField(choices=types),
            "errors": error(
                many=True,
                help_text="At least one; several where several fields are wrong.",
            ),
        },
    )
