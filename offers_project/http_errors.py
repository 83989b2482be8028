"""The only table from domain error to HTTP status, and the handler that applies it."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.defaults import page_not_found, server_error
from drf_standardized_errors.handler import ExceptionHandler
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import DetailDictMixin

from fulfillment import errors as fulfillment
from fulfillment.bookings import errors as bookings
from fulfillment.codes import errors as codes
from fulfillment.digital import errors as digital
from fulfillment.shipping import errors as shipping
from offers import errors as offers
from offers.errors import database_is_busy
from purchases import errors as purchases
from purchases.bulk import errors as bulk

logger = structlog.get_logger(__name__)

HTTP_STATUS: dict[type[offers.DomainError], int] = {
    offers.OfferNotFound: 404,
    offers.EventNotFound: 404,
    offers.NotRegistered: 403,
    offers.NotEligible: 403,
    offers.OfferArchived: 409,
    offers.OfferExpired: 409,
    offers.OfferInactive: 409,
    offers.OfferNotStarted: 409,
    offers.SoldOut: 409,
    offers.InsufficientInventory: 409,
    offers.NotEnoughReserved: 409,
    offers.NotEnoughSold: 409,
    offers.TotalBelowCommitted: 400,
    offers.PriceLocked: 400,
    offers.TypeLocked: 400,
    offers.LastOwner: 400,
    offers.PurchasesDisabled: 503,
    offers.Busy: 503,
    purchases.PurchaseNotFound: 404,
    purchases.PurchaseLimitReached: 409,
    purchases.TooManyOpenHolds: 409,
    purchases.IdempotencyKeyInUse: 409,
    purchases.IdempotencyKeyReused: 422,
    purchases.HoldAlreadyResolved: 409,
    purchases.HoldIsEnding: 409,
    purchases.HoldWasPaid: 409,
    purchases.NotCancellable: 409,
    purchases.NotEnded: 409,
    purchases.PaymentProviderUnavailable: 503,
    purchases.ProviderRefused: 503,
    purchases.ProviderFailed: 503,
    purchases.ProviderTurnedAway: 503,
    purchases.ProviderUnreachable: 503,
    purchases.ProviderNotReached: 503,
    purchases.ProviderStillRunning: 503,
    purchases.ProviderNotConfigured: 503,
    purchases.ProviderSaturated: 503,
    purchases.QuantityTooExpensive: 400,
    purchases.DeliveryMethodNotOffered: 400,
    purchases.PaymentMismatch: 409,
    purchases.NotRefundable: 409,
    purchases.RefundNotAllowed: 403,
    purchases.InvalidRefundAmount: 400,
    purchases.InvalidWebhook: 400,
    fulfillment.FulfillmentNotFound: 404,
    fulfillment.FulfillmentAlreadyResolved: 409,
    fulfillment.NotPaidFor: 409,
    fulfillment.CannotDeliver: 409,
    fulfillment.NothingToConfirm: 409,
    fulfillment.SentJustNow: 409,
    purchases.AddressRefused: 400,
    purchases.EndpointInactive: 409,
    purchases.SecretJustRotated: 409,
    bulk.TooManyChosen: 400,
    bulk.SeveralOrganizations: 400,
    bulk.AskedForAlready: 409,
    bulk.UnknownKind: 404,
    digital.LinkUnknown: 404,
    digital.LinkExpired: 403,
    digital.ContentWithdrawn: 403,
    digital.NothingToOpen: 404,
    digital.ContentOutOfReach: 503,
    digital.ContentNotStored: 503,
    digital.CodesRefused: 400,
    codes.CodeNotFound: 404,
    codes.NoCodeToShow: 404,
    shipping.OrderNotFound: 404,
    shipping.InvalidShipment: 400,
    shipping.WrongMethod: 409,
    shipping.AlreadyHandedOver: 409,
    shipping.AlreadyShipped: 409,
    shipping.NotShippedYet: 409,
    shipping.NothingToComeBack: 409,
    bookings.NoBooking: 409,
    bookings.SlotNotFound: 404,
    bookings.SlotTaken: 409,
    bookings.SlotPast: 409,
    bookings.TooLateToChange: 409,
    bookings.InvalidTime: 400,
    bookings.InvalidSeries: 400,
}

BUSY_PAGE = (
    '<!doctype html><html lang="{language}"><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width"><h1>{title}</h1><p>{text}</p></html>'
)


class ApiError(exceptions.APIException):
    """An answer as the table has it; ``wait`` (seconds) and ``auth_header`` become headers."""

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int,
        wait: int | None = None,
        auth_header: str | None = None,
    ) -> None:
        super().__init__(detail, code)
        self.status_code = status
        self.wait = wait
        self.auth_header = auth_header


class DomainErrorHandler(ExceptionHandler):
    """drf-standardized-errors' handler, which also speaks our domain's errors."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        """Turn a domain error into the API's, looked up by its exact class."""
        if database_is_busy(exc):
            logger.warning("database busy", error=str(exc))
            exc = offers.Busy()
        if isinstance(exc, offers.DomainError):
            return as_api_error(exc)
        if isinstance(exc, RequestDataTooBig):
            return ApiError("This request is too large.", code="request_too_large", status=413)
        if isinstance(exc, DetailDictMixin):
            # simplejwt lists what each of its token classes thinks; the caller needs one sentence.
            return ApiError(
                "This token is not valid (any more): get a new one.",
                code=exceptions.NotAuthenticated.default_code,
                status=401,
                auth_header=getattr(exc, "auth_header", None),
            )
        return super().convert_known_exceptions(exc)

    def report_exception(self, exc: exceptions.APIException, response: Response) -> None:
        """Report what nobody foresaw; a 503 of ours was logged with its cause where it arose."""
        if not isinstance(self.exc, offers.DomainError) and not database_is_busy(self.exc):
            super().report_exception(exc, response)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's ``handler404``: an address of the API that leads nowhere is answered in JSON too."""
    if not request.path.startswith("/api/"):
        return page_not_found(request, exception)
    error = {"code": "not_found", "detail": "There is nothing at this address.", "attr": None}
    return JsonResponse({"type": "client_error", "errors": [error]}, status=404)


def server_failed(request: HttpRequest) -> HttpResponse:
    """Django's ``handler500``: for what middleware raises, sessions above all, outside any view."""
    error = sys.exc_info()[1]
    if isinstance(error, Exception) and database_is_busy(error):
        return busy(request, error)
    return server_error(request)


def refusing_with_a_page(
    view: Callable[..., HttpResponseBase], *, template: str
) -> Callable[..., HttpResponseBase]:
    """``view``, whose refusals are a page of their own with the table's status.

    For addresses that are secrets themselves, so nothing keeps the page or passes its address on.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except offers.DomainError as refusal:
            status = HTTP_STATUS[type(refusal)]
            answer = render(request, template, {"refusal": refusal}, status=status)
            answer["Cache-Control"] = "private, no-store"
            answer["Referrer-Policy"] = "no-referrer"
            if refusal.retry_after:
                answer["Retry-After"] = str(refusal.retry_after)
            return answer

    return guarded


def busy(request: HttpRequest, error: Exception) -> HttpResponse:
    """The 503 for a request that the database could not serve; in JSON for the API.

    Renders no template: their context asks the database who is logged in.
    """
    logger.warning("database busy", error=str(error))
    refusal = offers.Busy()
    answer: HttpResponse
    if request.path.startswith("/api/"):
        said = {"code": refusal.code, "detail": str(refusal), "attr": None}
        answer = JsonResponse({"type": "server_error", "errors": [said]})
    else:
        answer = HttpResponse(
            BUSY_PAGE.format(language=get_language(), title=_("One moment…"), text=refusal)
        )
    answer.status_code = HTTP_STATUS[offers.Busy]
    answer["Retry-After"] = str(refusal.retry_after)
    answer["Cache-Control"] = "no-store"
    return answer


def as_api_error(error: offers.DomainError) -> exceptions.APIException:
    """The API exception for ``error``: code, detail, status, and ``Retry-After`` where it helps."""
    status = HTTP_STATUS[type(error)]
    if status == 400 and error.attr is not None:
        return exceptions.ValidationError({error.attr: str(error)}, code=error.code)
    return ApiError(str(error), code=error.code, status=status, wait=error.retry_after)
