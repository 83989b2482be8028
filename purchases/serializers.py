"""The JSON of purchases."""

import uuid
from typing import Any

from django.conf import settings
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from offers.serializers import Amount, with_currency_digits
from purchases.models import DeliveryMethod, Purchase, StripeEvent
from purchases.states import Status


class UUIDText(serializers.UUIDField):
    """A UUID as text; DRF's own field takes any number for one."""

    def to_internal_value(self, data: Any) -> uuid.UUID:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class PurchaseRequestSerializer(serializers.Serializer):
    """What an attendee asks for."""

    offer = UUIDText()
    quantity = serializers.IntegerField(min_value=1, default=1)
    delivery_method = serializers.ChoiceField(
        DeliveryMethod.choices,
        required=False,
        help_text="Of merchandise; left out: it is sent if the offer is, and collected if not.",
        error_messages={
            "invalid_choice": format_lazy(
                _("Use one of {choices}."), choices=", ".join(DeliveryMethod.values)
            )
        },
    )

    def validate_quantity(self, quantity: int) -> int:
        if quantity > settings.MAX_QUANTITY_PER_PURCHASE:
            raise serializers.ValidationError(
                ngettext(
                    "At most %(most)d unit can be bought at once.",
                    "At most %(most)d units can be bought at once.",
                    settings.MAX_QUANTITY_PER_PURCHASE,
                )
                % {"most": settings.MAX_QUANTITY_PER_PURCHASE},
                code="max_value",
            )
        return quantity


class PartOfAmount(serializers.DecimalField):
    """An amount that may be left out, but not left empty: that would be all of it."""

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        if isinstance(data, str) and not data.strip():
            self.fail("invalid")
        return super().validate_empty_values(data)


class RefundRequestSerializer(serializers.Serializer):
    """What an organizer asks to be sent back; without an amount, all that is left."""

    amount = PartOfAmount(max_digits=15, decimal_places=3, required=False)
    restock = serializers.BooleanField(default=True)
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")

    def to_internal_value(self, data: Any) -> Any:
        """Refuse unknown fields: a misspelled `amount` would send everything back."""
        unknown = set(data) - set(self.fields) if isinstance(data, dict) else set()
        if unknown:
            raise serializers.ValidationError(dict.fromkeys(unknown, "There is no such field."))
        return super().to_internal_value(data)


class PurchaseSerializer(serializers.ModelSerializer):
    """A purchase without its fulfilment, which ``fulfillment.serializers`` adds."""

    offer = serializers.UUIDField(source="offer_id")
    event: Any = serializers.SlugRelatedField("slug", read_only=True)
    unit_price = Amount()
    total_price = Amount()
    refunded_amount = Amount()
    release_reason = serializers.SerializerMethodField()
    delivery_method = serializers.SerializerMethodField()
    checkout_url = serializers.SerializerMethodField()

    class Meta:
        model = Purchase
        fields: tuple[str, ...] = (
            "id", "offer", "offer_title", "event", "quantity", "unit_price", "total_price",
            "currency", "status", "release_reason", "reserved_until", "checkout_session_id",
            "checkout_url", "delivery_method", "refunded_amount", "created_at", "paid_at",
            "refunded_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields

    def get_release_reason(self, purchase: Purchase) -> str | None:
        return purchase.release_reason or None

    @extend_schema_field(serializers.ChoiceField(DeliveryMethod.choices, allow_null=True))
    def get_delivery_method(self, purchase: Purchase) -> str | None:
        return purchase.delivery_method or None

    def get_checkout_url(self, purchase: Purchase) -> str | None:
        """Stripe's page, as long as it is worth sending the buyer there."""
        return purchase.checkout_url if purchase.status == Status.AWAITING_PAYMENT else None

    def to_representation(self, purchase: Purchase) -> dict[str, Any]:
        data = super().to_representation(purchase)
        return with_currency_digits(data, purchase, "unit_price", "total_price", "refunded_amount")


class PurchaseQuery(serializers.Serializer):
    """The query string of the purchase list."""

    event = serializers.SlugField(required=False, allow_blank=True, help_text="The event's slug.")
    status = serializers.ChoiceField(Status.choices, required=False, allow_blank=True)


class StripeEventSerializer(serializers.ModelSerializer):
    """What Stripe is answered; it looks at the status only, a person at the rest."""

    event = serializers.CharField(source="id")

    class Meta:
        model = StripeEvent
        fields = ("event", "state")
