"""The API of purchases, with what became of them."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view

from fulfillment import delivery
from fulfillment.bookings.viewsets import BookingActions
from fulfillment.serializers import DeliveredPurchaseSerializer
from purchases import viewsets as purchases
from purchases.checkout import Started
from purchases.models import Purchase
from purchases.viewsets import IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED

# What the answers show of a fulfilment, read with a query each for the whole page.
PREFETCH = [
    f"fulfillment__{related}"
    for deliverer in delivery.DELIVERERS.values()
    for related in deliverer.PREFETCH
]


@extend_schema_view(
    create=extend_schema(
        parameters=[IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED],
        responses={
            201: DeliveredPurchaseSerializer,
            200: OpenApiResponse(
                DeliveredPurchaseSerializer, description="Replayed: see `Idempotent-Replayed`."
            ),
        },
    ),
    refund=extend_schema(responses={202: DeliveredPurchaseSerializer}),
)
class PurchaseViewSet(BookingActions, purchases.PurchaseViewSet):
    """A buyer's purchases: hold, pay at ``checkout_url``, or cancel; and what they became."""

    serializer_class = DeliveredPurchaseSerializer

    def get_queryset(self) -> QuerySet[Purchase]:
        return super().get_queryset().select_related("fulfillment").prefetch_related(*PREFETCH)

    def represent(self, started: Started) -> dict[str, Any]:
        """What was bought this moment is nowhere yet: a question less for the database."""
        if not started.replayed:
            fulfillment = Purchase._meta.get_field("fulfillment")
            fulfillment.set_cached_value(started.purchase, None)
        return super().represent(started)
