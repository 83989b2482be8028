"""What the OpenAPI schema says of errors: for each operation its statuses, and their codes.

The statuses of domain errors come from ``http_errors.HTTP_STATUS``, the codes of field errors from
the serializers. ``tests/test_api_fuzzing.py`` holds each answer against the result.
"""

from functools import cache
from typing import Any

from drf_spectacular.utils import Direction, extend_schema_field
from drf_standardized_errors.openapi import AutoSchema
from drf_standardized_errors.openapi_serializers import (
    ClientErrorEnum,
    ServerErrorEnum,
    ValidationErrorEnum,
)
from drf_standardized_errors.openapi_utils import (
    get_flat_serializer_fields,
    get_serializer_fields_with_error_codes,
)
from inflection import camelize
from rest_framework import serializers

from fulfillment import errors as fulfillment
from fulfillment.bookings import errors as bookings
from offers import errors as offers
from offers_project.http_errors import HTTP_STATUS
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

WAIT = {
    "description": "Seconds to wait before the same request may succeed.",
    "schema": {"type": "integer", "minimum": 1},
}
CHALLENGE = {"description": "How to authenticate.", "schema": {"type": "string"}}


@cache
def _error_response(name: str, status: int, codes: tuple[str, ...]) -> type[serializers.Serializer]:
    """The error shape with exactly these codes."""
    error = type(
        # This ending keeps the enum in its place: it is nobody else's.
        f"{name}{status}ErrorComponent",
        (serializers.Serializer,),
        {
            "code": extend_schema_field({"type": "string", "enum": list(codes)})(
                serializers.CharField()
            ),
            "detail": serializers.CharField(),
            "attr": serializers.CharField(allow_null=True),
        },
    )
    types = TYPES.get(status, ClientErrorEnum.choices)
    return type(
        f"{name}ErrorResponse{status}",
        (serializers.Serializer,),
        {"type": serializers.ChoiceField(choices=types), "errors": error(many=True)},
    )


class OperationSchema(AutoSchema):
    """drf-standardized-errors' schema, with one flat error shape and the codes of our domain."""

    def _refusals(self, status: int) -> set[str]:
        refusals = REFUSALS.get(self.get_operation_id(), ())
        return {error.code for error in refusals if HTTP_STATUS[error] == status}

    def _reads_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH") and self.get_request_serializer() is not None

    def _should_add_error_response(self, responses: dict, status_code: str) -> bool:
        if status_code in responses:
            return False
        if status_code in ("409", "422"):
            return bool(self._refusals(int(status_code)))
        if status_code == "413":
            return self._reads_body()
        return super()._should_add_error_response(responses, status_code)

    def _should_add_parse_error_response(self) -> bool:
        return self._reads_body() and super()._should_add_parse_error_response()

    def _should_add_validation_error_response(self) -> bool:
        return bool(self._query_serializers()) or super()._should_add_validation_error_response()

    def _should_add_http401_error_response(self) -> bool:
        return (
            self.get_operation_id().startswith("auth_token")
            or super()._should_add_http401_error_response()
        )

    def _should_add_http403_error_response(self) -> bool:
        # A session's unsafe request without its CSRF token is refused too.
        by_session = self.method != "GET" and {"cookieAuth": []} in self.get_auth()
        refused = bool(self._refusals(403))
        return by_session or refused or super()._should_add_http403_error_response()

    def _should_add_http415_error_response(self) -> bool:
        return self._reads_body() and super()._should_add_http415_error_response()

    def _query_serializers(self) -> list[Any]:
        return [
            parameter
            for parameter in self.get_override_parameters()
            if isinstance(parameter, type) and issubclass(parameter, serializers.Serializer)
        ]

    def _determine_fields_with_error_codes(self) -> list[Any]:
        fields = get_flat_serializer_fields(self._query_serializers())
        return [
            *super()._determine_fields_with_error_codes(),
            *get_serializer_fields_with_error_codes(fields),
        ]

    def _get_error_response_serializer(self, status_code: str) -> type[serializers.Serializer]:
        status = int(status_code)
        own = self._refusals(status)
        if status == 400:
            own |= self._bad_request_codes()
        if status == 401 and self.get_operation_id() == LOGIN:
            own |= LOGIN_CODES
        codes = FRAMEWORK_CODES.get(status, set()) | own
        name = camelize(self.get_operation_id()) if own else ""
        return _error_response(name, status, tuple(sorted(codes)))

    def _bad_request_codes(self) -> set[str]:
        codes: set[str] = set()
        if self._should_add_parse_error_response():
            codes.add("parse_error")
        if self._should_add_validation_error_response():
            # What a field's own rules don't say, our rules for several fields say as `invalid`.
            fields = self._determine_fields_with_error_codes()
            by_field = self._get_validation_error_codes_by_field(fields)
            codes |= {"invalid"}.union(*by_field.values())
        return codes

    def _get_response_headers_for_code(
        self, status_code: str, direction: Direction = "response"
    ) -> dict[str, Any]:
        headers = super()._get_response_headers_for_code(status_code, direction)
        if status_code in ("429", "503"):
            headers["Retry-After"] = {**WAIT, "required": True}
        if status_code == "409":
            headers["Retry-After"] = WAIT
        if status_code == "401":
            headers["WWW-Authenticate"] = {**CHALLENGE, "required": True}
        return headers
