"""The API of bookings: actions on the buyer's own purchase."""

from typing import Any, ClassVar

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fulfillment.bookings import booking as bookings
from fulfillment.bookings.models import TimeSlot
from fulfillment.serializers import DeliveredPurchaseSerializer
from offers.pagination import NewestFirst
from purchases.serializers import UUIDText
from purchases.viewsets import buyer


class Earliest(NewestFirst):
    """For slots: what comes first comes first."""

    ordering = ("starts_at", "id")


class SlotSerializer(serializers.ModelSerializer):
    """A time that can be chosen."""

    seats_left = serializers.IntegerField(min_value=1, help_text="How many can still be booked.")
    location = serializers.CharField(help_text="Where; may be empty.")

    class Meta:
        model = TimeSlot
        fields = ("id", "starts_at", "ends_at", "seats_left", "location")
        read_only_fields = fields
        extra_kwargs: ClassVar = {
            "id": {"help_text": "To be sent to book it."},
            "starts_at": {"help_text": "When it starts (UTC)."},
            "ends_at": {"help_text": "When it ends (UTC)."},
        }


@extend_schema_serializer(component_name="Booking")  # BookingRequest, as a request
class BookingRequestSerializer(serializers.Serializer):
    """The time that an attendee chose."""

    slot = UUIDText(help_text="The id of one of the listed times.")


class BookingActions(viewsets.GenericViewSet):
    """Mixed into the viewset of purchases, whose serializer answers."""

    @extend_schema(responses=SlotSerializer(many=True), parameters=[])
    @action(detail=True, pagination_class=Earliest, filter_backends=[])
    def slots(self, request: Request, pk: Any) -> Response:
        """The coming times that have room for all units of this purchase, earliest first."""
        found = bookings.choices(purchase_id=pk, user=buyer(request), now=timezone.now())
        listed = self.paginate_queryset(found)
        return self.get_paginated_response(SlotSerializer(listed, many=True).data)

    @extend_schema(request=BookingRequestSerializer, responses=DeliveredPurchaseSerializer)
    @action(detail=True, methods=["post"])
    def booking(self, request: Request, pk: Any) -> Response:
        """Book a time, or move the booking there: as many seats of it as units were bought.

        Until `can_change_until` it can be moved again. An invitation for the calendar comes by
        e-mail. The time that is booked already stays booked: the same request again is harmless.
        """
        wanted = BookingRequestSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        booked = bookings.pick(
            purchase_id=pk,
            user=buyer(request),
            slot_id=wanted.validated_data["slot"],
            now=timezone.now(),
        )
        return Response(self.get_serializer(booked.fulfillment.purchase).data)

    @extend_schema(request=None, responses={200: DeliveredPurchaseSerializer})
    @booking.mapping.delete
    def cancel_booking(self, request: Request, pk: Any) -> Response:
        """Give the booked time back, until `can_change_until`; another can be booked then."""
        cancelled = bookings.cancel(purchase_id=pk, user=buyer(request), now=timezone.now())
        return Response(self.get_serializer(cancelled.fulfillment.purchase).data)
