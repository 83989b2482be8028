"""The API of events and offers."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpResponse, QueryDict
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from offers import catalog, impressions, lifecycle, listing, targeting
from offers.errors import DomainError
from offers.http_caching import CONDITIONAL_HEADERS, ConditionalAnswers, not_modified
from offers.models import Event, Offer
from offers.number_fields import WholeNumber
from offers.pagination import BySlug
from offers.serializers import AvailabilitySerializer, EventSerializer, OfferSerializer


@extend_schema_view(
    list=extend_schema(
        parameters=CONDITIONAL_HEADERS, responses=not_modified(EventSerializer(many=True))
    ),
    retrieve=extend_schema(parameters=CONDITIONAL_HEADERS, responses=not_modified(EventSerializer)),
)
class EventViewSet(
    ConditionalAnswers, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet
):
    """Public events, and private ones the caller is registered for."""

    serializer_class = EventSerializer
    permission_classes = (AllowAny,)
    pagination_class = BySlug
    lookup_field = "slug"
    lookup_value_converter = "slug"
    conditional_actions: ClassVar = {"list": True, "retrieve": True}
    queryset = Event.objects.none()

    def get_queryset(self) -> QuerySet[Event]:
        return (
            targeting.visible_events(self.request.user)
            .select_related("organization")
            .prefetch_related("sessions", "ticket_tiers")
        )


class OfferQuery(serializers.Serializer):
    """The query string of the offer list."""

    event = serializers.SlugField(help_text="The event's slug.")
    placement = serializers.ChoiceField(
        Offer.Placement.choices,
        required=False,
        allow_blank=True,
        help_text="Only offers that are to be shown there.",
    )
    session = serializers.SlugField(
        required=False,
        allow_blank=True,
        help_text="The slug of a session of the event: offers for everyone, and for this session.",
    )


# Made once: that takes ten times as long as to ask it, and nothing of what it is asked stays.
OFFER_QUERY = OfferQuery()


def wanted_offers(query: str) -> Mapping[str, Any]:
    """What a query string asks for; thousands ask for the same. Raises ValidationError."""
    # None that is longer is remembered, so that nobody fills the memory with theirs.
    return (_usual if len(query) <= 200 else _usual.__wrapped__)(query)


@lru_cache(maxsize=1_000)
def _usual(query: str) -> Mapping[str, Any]:
    return MappingProxyType(OFFER_QUERY.run_validation(QueryDict(query.encode("iso-8859-1"))))


class AvailabilityQuery(serializers.Serializer):
    """The query string of the question whether an offer can be bought."""

    quantity = WholeNumber(
        min_value=1,
        max_value=settings.MAX_QUANTITY_PER_PURCHASE,
        default=1,
        help_text="How many units the caller would like.",
    )


@extend_schema_view(
    list=extend_schema(
        parameters=[OfferQuery, *CONDITIONAL_HEADERS],
        responses=not_modified(OfferSerializer(many=True)),
    ),
    retrieve=extend_schema(parameters=CONDITIONAL_HEADERS, responses=not_modified(OfferSerializer)),
)
class OfferViewSet(
    ConditionalAnswers,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet,
):
    """What can be bought at an event; members of its organization manage it here."""

    serializer_class = OfferSerializer
    http_method_names = ("get", "post", "patch", "delete", "head", "options")
    lookup_value_converter = "uuid"
    # Whoever asks for availability is about to buy: nobody keeps that for them.
    conditional_actions: ClassVar = {"list": True, "retrieve": True, "availability": False}
    queryset = Offer.objects.none()

    def get_permissions(self) -> list[Any]:
        if self.action in ("list", "retrieve", "availability"):
            return [AllowAny()]
        return [IsAuthenticated()]

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": timezone.now()}

    def list(self, request: Request) -> HttpResponse:
        page = listing.page(request, wanted_offers(request.META.get("QUERY_STRING", "")))
        impressions.note(request, page.shown, now=timezone.now())
        return page.response()

    def get_object(self) -> Offer:
        offer = targeting.visible_offer(self.request.user, self.kwargs["pk"])
        if self.action in ("partial_update", "destroy") and not targeting.is_member(
            self.request.user, offer.event
        ):
            raise PermissionDenied("Only members of the event's organization manage its offers.")
        return offer

    def perform_destroy(self, instance: Offer) -> None:
        actor = cast("User", self.request.user)
        lifecycle.archive(instance.pk, now=timezone.now(), source="API", actor=actor)

    def refusal(self, offer: Offer, *, quantity: int) -> DomainError | None:
        """Why the caller can't buy so many now, apart from what they have already."""
        return catalog.refusal(self.request.user, offer, quantity=quantity, now=timezone.now())

    @extend_schema(
        parameters=[AvailabilityQuery, *CONDITIONAL_HEADERS],
        responses=not_modified(AvailabilitySerializer),
    )
    @action(detail=True)
    def availability(self, request: Request, pk: Any) -> Response:
        """Say whether the caller could buy that many now, and if not, why."""
        query = AvailabilityQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        offer = self.get_object()
        refusal = self.refusal(offer, quantity=query.validated_data["quantity"])
        return Response(
            AvailabilitySerializer(
                {
                    "available": refusal is None,
                    "reason": refusal and refusal.code,
                    "inventory_available": offer.inventory_available,
                }
            ).data
        )
