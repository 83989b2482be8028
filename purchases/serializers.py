"""The JSON of purchases."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from offers import money
from offers.number_fields import DecimalNumber, WholeNumber
from offers.serializers import AMOUNT, REASONS, Amount
from offers.serializers import AvailabilitySerializer as OfferAvailability
from offers.times import written
from purchases.errors import PurchaseLimitReached, TooManyOpenHolds
from purchases.models import DeliveryMethod, Purchase, StripeEvent
from purchases.states import ReleaseReason, Status


class UUIDText(serializers.UUIDField):
    """A UUID as text; DRF's own field takes any number for one."""

    def to_internal_value(self, data: Any) -> uuid.UUID:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class AvailabilitySerializer(OfferAvailability):
    """Whether the caller could buy now, and if not, why."""

    reason = serializers.ChoiceField(
        [*REASONS, TooManyOpenHolds.code, PurchaseLimitReached.code],
        allow_null=True,
        help_text="What it would be refused with; null: nothing.",
    )


@extend_schema_serializer(component_name="Purchase")  # PurchaseRequest, as a request
class PurchaseRequestSerializer(serializers.Serializer):
    """What an attendee asks for."""

    offer = UUIDText(help_text="The offer's id.")
    quantity = WholeNumber(
        min_value=1,
        default=1,
        help_text=f"How many units, at most {settings.MAX_QUANTITY_PER_PURCHASE}.",
    )
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


class PartOfAmount(DecimalNumber):
    """An amount that may be left out, but not left empty: that would be all of it."""

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        if isinstance(data, str) and not data.strip():
            self.fail("invalid")
        return super().validate_empty_values(data)


@extend_schema_serializer(component_name="Refund")  # RefundRequest, as a request
class RefundRequestSerializer(serializers.Serializer):
    """What an organizer asks to be sent back; without an amount, all that is left."""

    amount = PartOfAmount(
        max_digits=15,
        decimal_places=3,
        required=False,
        help_text=f"In the purchase's currency; left out: all that is left. {AMOUNT}",
    )
    restock = serializers.BooleanField(
        default=True, help_text="Of a full refund: whether the units go back on sale."
    )
    reason = serializers.CharField(
        max_length=500,
        required=False,
        allow_blank=True,
        default="",
        help_text="For the record; the buyer isn't told.",
    )

    def to_internal_value(self, data: Any) -> Any:
        """Refuse unknown fields: a misspelled `amount` would send everything back."""
        unknown = set(data) - set(self.fields) if isinstance(data, dict) else set()
        if unknown:
            raise serializers.ValidationError(dict.fromkeys(unknown, "There is no such field."))
        return super().to_internal_value(data)


class PurchaseSerializer(serializers.ModelSerializer):
    """A purchase without its fulfilment, which ``fulfillment.serializers`` adds."""

    offer = serializers.UUIDField(source="offer_id", help_text="The id of what was bought.")
    event: Any = serializers.SlugRelatedField("slug", read_only=True, help_text="The event's slug.")
    unit_price = Amount()
    total_price = Amount()
    refunded_amount = Amount(help_text=f"What has gone back so far, in `currency`. {AMOUNT}")
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
        extra_kwargs: ClassVar = {
            "id": {"help_text": "Names it for good."},
            "offer_title": {"help_text": "What was bought, as it was called then."},
            "quantity": {"help_text": "How many units."},
            "currency": {"help_text": "Three capital letters (ISO 4217)."},
            "status": {"help_text": "How far it is; says alone which stock its units are in."},
            "reserved_until": {"help_text": "Until when its units are held unpaid (UTC)."},
            "checkout_session_id": {
                "help_text": "Of Stripe's Checkout Session; null: there is none (yet)."
            },
            "created_at": {"help_text": "When it was begun (UTC)."},
            "paid_at": {"help_text": "When it was paid (UTC); null: it isn't."},
            "refunded_at": {"help_text": "When all of its money was back (UTC); null: it isn't."},
        }

    @extend_schema_field(
        serializers.ChoiceField(
            ReleaseReason.choices,
            allow_null=True,
            help_text="Why it is `released`; null: it isn't.",
        )
    )
    def get_release_reason(self, purchase: Purchase) -> str | None:
        return purchase.release_reason or None

    @extend_schema_field(
        serializers.ChoiceField(
            DeliveryMethod.choices,
            allow_null=True,
            help_text="How the buyer gets merchandise; null: it is none.",
        )
    )
    def get_delivery_method(self, purchase: Purchase) -> str | None:
        return purchase.delivery_method or None

    def get_checkout_url(self, purchase: Purchase) -> str | None:
        """Stripe's page to pay on, as long as it is worth sending the buyer there."""
        return purchase.checkout_url if purchase.status == Status.AWAITING_PAYMENT else None

    def to_representation(self, purchase: Purchase) -> dict[str, Any]:
        """What the fields above would say, by hand: every purchase is answered with it.

        To make the fields alone takes DRF longer than all of this; tests/test_purchase_json.py
        holds the two against each other.
        """
        currency = purchase.currency
        return {
            "id": str(purchase.pk),
            "offer": str(purchase.offer_id),
            "offer_title": purchase.offer_title,
            "event": purchase.event.slug,
            "quantity": purchase.quantity,
            "unit_price": money.format_amount(purchase.unit_price, currency),
            "total_price": money.format_amount(purchase.total_price, currency),
            "currency": currency,
            "status": purchase.status,
            "release_reason": purchase.release_reason or None,
            "reserved_until": written(purchase.reserved_until),
            "checkout_session_id": purchase.checkout_session_id,
            "checkout_url": self.get_checkout_url(purchase),
            "delivery_method": purchase.delivery_method or None,
            "refunded_amount": money.format_amount(purchase.refunded_amount, currency),
            "created_at": written(purchase.created_at),
            "paid_at": written(purchase.paid_at),
            "refunded_at": written(purchase.refunded_at),
        }


class PurchaseQuery(serializers.Serializer):
    """The query string of the purchase list."""

    event = serializers.SlugField(required=False, allow_blank=True, help_text="The event's slug.")
    status = serializers.ChoiceField(
        Status.choices, required=False, allow_blank=True, help_text="Only purchases so far."
    )


class StripeEventSerializer(serializers.ModelSerializer):
    """What Stripe is answered; it looks at the status only, a person at the rest."""

    event = serializers.CharField(source="id", help_text="The event's id at Stripe.")

    class Meta:
        model = StripeEvent
        fields = ("event", "state")
        extra_kwargs: ClassVar = {"state": {"help_text": "What became of it."}}
