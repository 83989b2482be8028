"""The JSON of what a purchase became, as a part of the purchase's own."""

from typing import Any

from drf_spectacular.utils import (
    PolymorphicProxySerializer,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import serializers

from fulfillment import delivery
from fulfillment.models import Fulfillment
from fulfillment.states import Status, Type
from offers.times import written
from purchases.models import DeliveryMethod, Purchase
from purchases.serializers import PurchaseSerializer
from purchases.states import Status as PurchaseStatus

# A purchase at one of these may have a fulfilment; the others' isn't looked for.
PAID_ONCE = (
    PurchaseStatus.PAID,
    PurchaseStatus.REFUNDING,
    PurchaseStatus.REFUNDED,
    PurchaseStatus.REFUND_DUE,
)


class FulfillmentSerializer(serializers.Serializer):
    """What all types have. The subclasses say, for the schema, what their ``describe`` adds."""

    status = serializers.ChoiceField(Status.choices, help_text="How far the delivery is.")
    fulfilled_at = serializers.DateTimeField(
        allow_null=True, help_text="When the buyer had it (UTC); null: not yet."
    )


class DigitalSerializer(FulfillmentSerializer):
    """A download, an address, or codes. All is null until it is handed out, and once it is gone."""

    type = serializers.ChoiceField([Type.DIGITAL.value], help_text="What kind of thing it is.")
    content_url = serializers.URLField(
        allow_null=True,
        help_text="A secret address that works for some hours; each look at the purchase makes a "
        "new one.",
    )
    access_code = serializers.CharField(allow_null=True, help_text="The first of `access_codes`.")
    access_codes = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="One for each unit, if any."
    )
    downloads = serializers.IntegerField(
        allow_null=True, min_value=0, help_text="How often it was opened."
    )


class TicketSerializer(FulfillmentSerializer):
    """A better ticket. All is null until the buyer has it, and once it was taken back."""

    type = serializers.ChoiceField([Type.TICKET.value], help_text="What kind of thing it is.")
    ticket_tier = serializers.CharField(
        allow_null=True, help_text="The slug of the tier that the buyer was moved to."
    )
    previous_ticket_tier = serializers.CharField(
        allow_null=True, help_text="The slug of the tier that they had before."
    )
    ticket_code = serializers.CharField(
        allow_null=True, help_text="What staff scan at the door, as text."
    )
    ticket_code_url = serializers.URLField(
        allow_null=True, help_text="Its QR code, as a picture (SVG) for the buyer only."
    )


class PhysicalSerializer(FulfillmentSerializer):
    """Something that is sent, or collected at the event."""

    type = serializers.ChoiceField([Type.PHYSICAL.value], help_text="What kind of thing it is.")
    delivery_method = serializers.ChoiceField(
        DeliveryMethod.choices, allow_null=True, help_text="Whether it is sent or collected."
    )
    carrier = serializers.CharField(
        allow_null=True, help_text="Who carries the parcel; null: it isn't shipped (yet)."
    )
    tracking_number = serializers.CharField(
        allow_null=True, help_text="The carrier's number for the parcel."
    )
    tracking_url = serializers.URLField(
        allow_null=True, help_text="The carrier's page about it, if there is one."
    )
    shipped_at = serializers.DateTimeField(allow_null=True, help_text="When it was shipped (UTC).")
    delivered_at = serializers.DateTimeField(
        allow_null=True, help_text="When it arrived, or was collected (UTC)."
    )
    pickup_code = serializers.CharField(
        allow_null=True, help_text="What the buyer shows to collect it; null once it is collected."
    )


class BookingSerializer(FulfillmentSerializer):
    """Something that is given at a time. All is null until there is a time."""

    type = serializers.ChoiceField([Type.SERVICE.value], help_text="What kind of thing it is.")
    scheduled_at = serializers.DateTimeField(allow_null=True, help_text="When it starts (UTC).")
    ends_at = serializers.DateTimeField(allow_null=True, help_text="When it ends (UTC).")
    location = serializers.CharField(allow_null=True, help_text="Where.")
    can_change_until = serializers.DateTimeField(
        allow_null=True, help_text="When its buyer can no longer move or cancel it."
    )


def described(fulfillment: Fulfillment, absolute: Any) -> dict[str, Any]:
    """What the buyer is told of a fulfilment; ``absolute`` makes a whole URL of a path."""
    at = fulfillment.fulfilled_at
    return {
        "type": fulfillment.type,
        "status": fulfillment.status,
        "fulfilled_at": at and written(at),
        **delivery.DELIVERERS[fulfillment.type].describe(fulfillment, absolute=absolute),
    }


@extend_schema_serializer(component_name="Purchase")
class DeliveredPurchaseSerializer(PurchaseSerializer):
    """A purchase with what became of it."""

    fulfillment = serializers.SerializerMethodField()

    class Meta(PurchaseSerializer.Meta):
        fields = (*PurchaseSerializer.Meta.fields, "fulfillment")
        read_only_fields = fields

    def to_representation(self, purchase: Purchase) -> dict[str, Any]:
        """The purchase, and what became of it last."""
        shown = super().to_representation(purchase)
        return {**shown, "fulfillment": self.get_fulfillment(purchase)}

    @extend_schema_field(
        PolymorphicProxySerializer(
            component_name="Fulfillment",
            serializers={
                Type.DIGITAL.value: DigitalSerializer,
                Type.TICKET.value: TicketSerializer,
                Type.PHYSICAL.value: PhysicalSerializer,
                Type.SERVICE.value: BookingSerializer,
            },
            resource_type_field_name="type",
            allow_null=True,
        )
    )
    def get_fulfillment(self, purchase: Purchase) -> dict[str, Any] | None:
        """Null until the worker has taken it on, a moment after the payment."""
        if purchase.status not in PAID_ONCE:
            return None
        fulfillment = getattr(purchase, "fulfillment", None)
        if fulfillment is None:
            return None
        return described(fulfillment, self.context["request"].build_absolute_uri)
