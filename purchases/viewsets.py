"""The API of purchases, and the door through which Stripe's webhooks come."""

from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone, translation
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_view,
)
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from offers import viewsets as offers
from offers.errors import DomainError
from offers.http_caching import not_modified
from offers.models import Offer
from offers.throttling import PurchasesPerAddress, PurchasesPerUser
from purchases import admission, checkout, holds, refund_requests, webhooks
from purchases.models import Purchase
from purchases.serializers import (
    AvailabilitySerializer,
    PurchaseQuery,
    PurchaseRequestSerializer,
    PurchaseSerializer,
    RefundRequestSerializer,
    StripeEventSerializer,
)

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
    OpenApiParameter.HEADER,
    description="1 to 255 printable ASCII characters, a new UUID for each intention. The same key "
    "and body are the same request, and are answered so; another body is refused with 422.",
)
IDEMPOTENT_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    str,
    OpenApiParameter.HEADER,
    enum=["true"],
    required=True,
    response=[200],
    description="The answer to a repetition: nothing was done now.",
)
MAYBE_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    str,
    OpenApiParameter.HEADER,
    enum=["true"],
    response=[202],
    description="There only in the answer to a repetition: no other refund was made.",
)


@extend_schema_view(availability=extend_schema(responses=not_modified(AvailabilitySerializer)))
class OfferViewSet(offers.OfferViewSet):
    """What can be bought at an event; members of its organization manage it here."""

    def refusal(self, offer: Offer, *, quantity: int) -> DomainError | None:
        """That of the offer, or else what the caller's own purchases leave no room for."""
        return super().refusal(offer, quantity=quantity) or admission.refusal(
            self.request.user, offer, quantity
        )


# Made once: that takes longer than to ask it, and nothing of what it is asked stays.
PURCHASE_REQUEST = PurchaseRequestSerializer()


@extend_schema_view(list=extend_schema(parameters=[PurchaseQuery]))
class PurchaseViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """A buyer's purchases: hold, pay at ``checkout_url``, or cancel.

    The API's own is ``fulfillment.viewsets``', whose answers also say what became of them.
    """

    serializer_class = PurchaseSerializer
    permission_classes = (IsAuthenticated,)
    lookup_value_converter = "uuid"
    queryset = Purchase.objects.none()

    def get_queryset(self) -> QuerySet[Purchase]:
        purchases = Purchase.objects.filter(user=buyer(self.request)).select_related("event")
        query = PurchaseQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        if event := query.validated_data.get("event"):
            purchases = purchases.filter(event__slug=event)
        if status := query.validated_data.get("status"):
            purchases = purchases.filter(status=status)
        return purchases

    def get_throttles(self) -> list[Any]:
        if self.action == "create":
            return [PurchasesPerUser(), PurchasesPerAddress()]
        return []

    @extend_schema(
        request=PurchaseRequestSerializer,
        parameters=[IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED],
    )
    def create(self, request: Request) -> Response:
        """Hold the units for some minutes and open the page on which they are paid.

        That page, and the e-mails about the purchase, are in the language of `Accept-Language`.
        """
        # Who sends `null` hears what is missing.
        wanted = PURCHASE_REQUEST.run_validation({} if request.data is None else request.data)
        started = checkout.start(
            user=buyer(request),
            offer_id=wanted["offer"],
            quantity=wanted["quantity"],
            delivery_method=wanted.get("delivery_method"),
            idempotency_key=idempotency_key(request),
            site_url=site_url(request),
            language=translation.get_language_from_request(request),
            now=timezone.now(),
        )
        return Response(
            self.represent(started),
            status=200 if started.replayed else 201,
            headers={"Idempotent-Replayed": "true"} if started.replayed else None,
        )

    def represent(self, started: checkout.Started) -> dict[str, Any]:
        """The purchase, as the answer has it."""
        shown: dict[str, Any] = self.get_serializer(started.purchase).data
        return shown

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any) -> Response:
        """Give an unpaid hold back at once."""
        purchase = holds.cancel(purchase_id=pk, user=buyer(request), now=timezone.now())
        return Response(self.get_serializer(purchase).data)

    @extend_schema(
        request=RefundRequestSerializer,
        parameters=[IDEMPOTENCY_KEY, MAYBE_REPLAYED],
    )
    @action(detail=True, methods=["post"])
    def refund(self, request: Request, pk: Any) -> Response:
        """Send the money back, or a part of it; for owners and managers of the organization.

        Without `amount`, all that is left: the purchase is `refunding`, then `refunded`, and its
        units go back on sale, unless `restock` is false. A part leaves it `paid` with its units.
        The same request again is the same refund: give it an `Idempotency-Key`, or another reason,
        to send the same part a second time within five minutes. A repetition is answered with
        `Idempotent-Replayed: true`.
        """
        wanted = RefundRequestSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        requested = refund_requests.request(
            purchase_id=pk,
            actor=buyer(request),
            source="api",
            now=timezone.now(),
            idempotency_key=idempotency_key(request),
            **wanted.validated_data,
        )
        return Response(
            self.get_serializer(requested.purchase).data,
            status=202,
            headers={"Idempotent-Replayed": "true"} if requested.repeated else None,
        )


def idempotency_key(request: Request) -> str | None:
    """The request's key, if it has one; refuses one that can't be stored."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise serializers.ValidationError(
            {"Idempotency-Key": "Use 1 to 255 printable ASCII characters, for example a UUID."}
        )
    return key


def site_url(request: HttpRequest | Request) -> str:
    """Where Stripe sends the buyer back to: ``FRONTEND_URL``, or this server."""
    return str(settings.FRONTEND_URL or request.build_absolute_uri("/").rstrip("/"))


def buyer(request: HttpRequest | Request) -> User:
    """The caller, whom ``IsAuthenticated`` or ``login_required`` has let in."""
    return cast("User", request.user)


class StripeWebhookView(APIView):
    """Stripe's events; their signature is all the authentication there is."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(request={"application/json": dict}, responses=StripeEventSerializer, auth=[])
    def post(self, request: Request) -> Response:
        """Store the event, then act on it; 2xx once it is stored."""
        # The raw bytes are what Stripe signed: nothing may parse them before they are verified.
        event = webhooks.receive(
            request._request.body,
            request.headers.get("Stripe-Signature", ""),
            now=timezone.now(),
        )
        return Response(StripeEventSerializer(event).data)
