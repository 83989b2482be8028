"""What the words for an operation consist of, and those that several have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rest_framework.exceptions import (
    APIException,
    ErrorDetail,
    ParseError,
    PermissionDenied,
    ValidationError,
)

from offers import errors as offers
from offers_project.http_errors import ApiError, as_api_error
from offers_project.openapi.examples import Example
from purchases import errors as purchases

AUTH = "auth"
EVENTS = "events"
OFFERS = "offers"
PURCHASES = "purchases"
BOOKINGS = "bookings"
SELLING = "selling"
STRIPE = "stripe"


@dataclass(frozen=True)
class Operation:
    """The words for one operation.

    ``requests``: example bodies; ``answers``: example answers, by the status of a success;
    ``meanings``: what each success means; ``errors``: errors in words of its own, see ``errors``.
    """

    tag: str
    summary: str
    description: str
    meanings: Mapping[str, str]
    answers: Mapping[str, dict[str, Example]] = field(default_factory=dict)
    requests: dict[str, Example] = field(default_factory=dict)
    errors: tuple[APIException, ...] = ()


def wrong(attr: str, code: str, detail: str) -> ValidationError:
    """The 400 about one field."""
    return ValidationError({attr: [ErrorDetail(detail, code)]})


NOT_JSON = ParseError("JSON parse error - Expecting property name enclosed in double quotes")
REQUIRED = "This field is required."
NO_EVENT = as_api_error(offers.EventNotFound())
NO_OFFER = as_api_error(offers.OfferNotFound())
NO_PURCHASE = as_api_error(purchases.PurchaseNotFound())
NOT_THEIRS = PermissionDenied("Only members of the event's organization manage its offers.")
BAD_TOKEN = ApiError(
    "This token is not valid (any more): get a new one.", code="not_authenticated", status=401
)
