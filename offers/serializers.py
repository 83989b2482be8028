"""The JSON of events and offers."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError as ModelValidationError
from django.db import transaction
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied

from offers import countries, errors, history, inventory, money, targeting
from offers.models import Event, EventSession, Offer, TicketTier
from offers.number_fields import DecimalNumber, WholeNumber

# What the API's document says of every amount.
AMOUNT = "A decimal string with exactly the digits of the currency: `50.00` USD, `500` JPY."


class Amount(DecimalNumber):
    """An amount with exactly the digits of the currency beside it."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("help_text", f"In `currency`. {AMOUNT}")
        super().__init__(max_digits=12, decimal_places=3, coerce_to_string=True, **kwargs)


def with_currency_digits(data: dict[str, Any], instance: Any, *fields: str) -> dict[str, Any]:
    """Rewrite the amounts in ``data`` with the digits of ``instance.currency``."""
    for field in fields:
        amount = getattr(instance, field)
        data[field] = None if amount is None else money.format_amount(amount, instance.currency)
    return data


def apply_model_rules(offer: Offer) -> None:
    """Raise the API's error for what ``Offer.clean`` refuses, as admin's form does by itself."""
    try:
        offer.clean()
    except ModelValidationError as error:
        raise serializers.ValidationError(error.message_dict) from error


class EventPartSerializer(serializers.ModelSerializer):
    """A session of an event: a talk, a workshop."""

    class Meta:
        model = EventSession
        fields = ("slug", "title", "starts_at", "ends_at")
        extra_kwargs: ClassVar = {
            "slug": {"help_text": "Its name in addresses; unique within the event."},
            "title": {"help_text": "Its name for people."},
            "starts_at": {"help_text": "When it starts (UTC), if that is known."},
            "ends_at": {"help_text": "When it ends (UTC), if that is known."},
        }


class TicketTierSerializer(serializers.ModelSerializer):
    """A kind of ticket."""

    class Meta:
        model = TicketTier
        fields = ("slug", "title")
        extra_kwargs: ClassVar = {
            "slug": {"help_text": "Its name in addresses; unique within the event."},
            "title": {"help_text": "Its name for people."},
        }


class EventSerializer(serializers.ModelSerializer):
    """Where offers are sold."""

    organization: Any = serializers.SlugRelatedField(
        "slug", read_only=True, help_text="The slug of who holds it."
    )
    sessions = EventPartSerializer(many=True, read_only=True, help_text="Its talks and workshops.")
    ticket_tiers = TicketTierSerializer(
        many=True, read_only=True, help_text="The kinds of tickets there are."
    )

    class Meta:
        model = Event
        fields = (
            "id", "slug", "title", "description", "organization", "is_public",
            "starts_at", "ends_at", "sessions", "ticket_tiers",
        )  # fmt: skip
        extra_kwargs: ClassVar = {
            "id": {"help_text": "Names it for good."},
            "slug": {"help_text": "Its name in addresses and in queries."},
            "title": {"help_text": "Its name for people."},
            "description": {"help_text": "Plain text; may be empty."},
            "starts_at": {"help_text": "When it starts (UTC), if that is known."},
            "ends_at": {"help_text": "When it ends (UTC), if that is known."},
        }


class InventorySerializer(serializers.Serializer):
    """How many units there are, as of now."""

    total = serializers.IntegerField(
        source="inventory_total", allow_null=True, help_text="The stock; null: unlimited."
    )
    available = serializers.IntegerField(
        source="inventory_available",
        allow_null=True,
        help_text="Neither held nor sold; null: unlimited.",
    )
    reserved = serializers.IntegerField(
        source="inventory_reserved", help_text="Held by purchases that are not paid yet."
    )
    sold = serializers.IntegerField(source="inventory_sold", help_text="Paid for.")


@extend_schema_field({"type": "array", "items": {"type": "string"}})
class TargetSlugs(serializers.ListField):
    """A list of slugs. They are unique within an event only, so ``validate`` looks them up."""

    child = serializers.SlugField()

    def to_representation(self, data: Any) -> list[str]:
        return sorted(target.slug for target in data.all())


@extend_schema_field({"type": "string"})
class TierSlug(serializers.SlugField):
    """A ticket tier's slug; ``validate`` looks it up, since it is unique within an event only."""

    def to_representation(self, value: Any) -> str:
        return str(value.slug)


class EventBySlug(serializers.SlugRelatedField):
    """An event's slug; what can't be one is refused before PostgreSQL would choke on it."""

    def to_internal_value(self, data: Any) -> Event:
        slug = serializers.SlugField().run_validation(data)
        event: Event = super().to_internal_value(slug)
        return event


@extend_schema_field(
    # Not `oneOf`, as drf-spectacular has it: to who doesn't look at formats, "" is both.
    {
        "anyOf": [
            {"type": "string", "format": "uri", "maxLength": 1000},
            {"type": "string", "maxLength": 0},
        ]
    }
)
class PictureURL(serializers.URLField):
    """The address of a picture, or nothing."""


def _one_of(choices: Any) -> dict[str, Any]:
    """Name the choices instead of quoting what was sent, which may not even be valid Unicode."""
    return {"error_messages": {"invalid_choice": f"Use one of {', '.join(choices.values)}."}}


class OfferSerializer(serializers.ModelSerializer):
    """Something limited that attendees of an event can buy."""

    # What the history says of how a change came.
    source_name = "API"

    event = EventBySlug("slug", queryset=Event.objects.all(), help_text="The event's slug.")
    price = Amount(min_value=0, help_text=f"Of one unit, in `currency`; 0 is free. {AMOUNT}")
    original_price = Amount(
        min_value=0,
        allow_null=True,
        required=False,
        help_text=f"The price before the reduction, to be shown struck through. {AMOUNT}",
    )
    image_url = PictureURL(
        max_length=1000, required=False, allow_blank=True, help_text="Its picture; may be empty."
    )
    inventory = InventorySerializer(source="*", read_only=True, help_text="How many are left.")
    inventory_total = WholeNumber(
        min_value=0,
        max_value=2_147_483_647,
        allow_null=True,
        required=False,
        write_only=True,
        help_text="The stock, what is sold and held included; null: unlimited.",
    )
    max_per_user = WholeNumber(
        min_value=1,
        max_value=2_147_483_647,
        allow_null=True,
        required=False,
        help_text="How many one attendee may buy in all; null: any number.",
    )
    target_sessions = TargetSlugs(
        required=False,
        help_text="Slugs of sessions: for who is registered for one of them. Empty: for everyone.",
    )
    target_ticket_tiers = TargetSlugs(
        required=False,
        help_text="Slugs of ticket tiers: for who has one of them. Empty: for everyone.",
    )
    ticket_tier: Any = TierSlug(
        allow_null=True,
        required=False,
        help_text="The tier that buyers of a ticket upgrade are moved to.",
    )
    shipping_countries = serializers.ListField(
        child=serializers.ChoiceField(sorted(countries.SHIPPABLE)),
        required=False,
        help_text="Where merchandise is sent to (ISO 3166).",
    )

    class Meta:
        model = Offer
        fields = (
            "id", "event", "title", "description", "offer_type", "price", "original_price",
            "currency", "image_url", "inventory", "inventory_total", "is_available", "placement",
            "target_sessions", "target_ticket_tiers", "ticket_tier", "shipping_countries",
            "allows_collection", "starts_at", "expires_at", "max_per_user", "is_active",
            "is_archived", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = ("is_archived",)
        extra_kwargs: ClassVar = {
            "id": {"help_text": "Names it for good."},
            "title": {"help_text": "Its name for people."},
            "description": {"help_text": "Plain text; may be empty."},
            "offer_type": {**_one_of(Offer.Type), "help_text": "What its buyers get."},
            "placement": {**_one_of(Offer.Placement), "help_text": "Where it is to be shown."},
            "starts_at": {"help_text": "When its sale starts (UTC); null: it has."},
            "expires_at": {"help_text": "When its sale ends (UTC); null: it does not."},
            "is_active": {"help_text": "Whether it is on sale, apart from its window and stock."},
            "is_archived": {"help_text": "Whether it was withdrawn for good."},
            "created_at": {"help_text": "When it was made (UTC)."},
            "updated_at": {"help_text": "When it was last changed (UTC)."},
        }

    is_available = serializers.SerializerMethodField()

    def get_is_available(self, offer: Offer) -> bool:
        """Whether a unit can be bought now, whoever asks."""
        return offer.refusal(self.context["now"], quantity=1) is None

    def to_representation(self, offer: Offer) -> dict[str, Any]:
        data = super().to_representation(offer)
        return with_currency_digits(data, offer, "price", "original_price")

    def validate_event(self, event: Event) -> Event:
        caller = self.context["request"].user
        if not targeting.visible_events(caller).filter(pk=event.pk).exists():
            self.fields["event"].fail("does_not_exist", slug_name="slug", value=event.slug)
        if not targeting.is_member(caller, event):
            raise PermissionDenied("Only members of the event's organization manage its offers.")
        if self.instance is not None and event.pk != self.instance.event_id:
            raise serializers.ValidationError(
                "An offer can't move to another event: make a new one there."
            )
        return event

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Apply the model's own rules, so that the API and the admin refuse the same things."""
        event = attrs["event"] if self.instance is None else self.instance.event
        for field, model in (
            ("target_sessions", EventSession),
            ("target_ticket_tiers", TicketTier),
        ):
            if field in attrs:
                attrs[field] = self._targets(field, model, event, attrs[field])
        if attrs.get("ticket_tier") is not None:
            slugs = [attrs["ticket_tier"]]
            [attrs["ticket_tier"]] = self._targets("ticket_tier", TicketTier, event, slugs)
        columns = {
            name: value
            for name, value in attrs.items()
            if name not in ("target_sessions", "target_ticket_tiers", "inventory_total")
        }
        candidate = Offer(
            **{
                field.attname: getattr(self.instance, field.attname)
                for field in Offer._meta.concrete_fields
                if self.instance is not None
            }
        )
        for name, value in columns.items():
            setattr(candidate, name, value)
        apply_model_rules(candidate)
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Offer:
        targets = self._pop_targets(validated_data)
        with transaction.atomic(), history.together(reason=self.source_name):
            offer = Offer.objects.create(**validated_data)
            self._set_targets(offer, targets)
        return offer

    def update(self, offer: Offer, validated_data: dict[str, Any]) -> Offer:
        targets = self._pop_targets(validated_data)
        with transaction.atomic(), history.together(reason=self.source_name):
            # Under the row lock nothing can be sold between the check and the write.
            offer = inventory.lock(offer.pk)
            if "inventory_total" in validated_data:
                offer = inventory.set_total(
                    offer_id=offer.pk, total=validated_data.pop("inventory_total")
                )
            offer.refuse_price_change(
                validated_data.get("price", offer.price),
                validated_data.get("currency", offer.currency),
            )
            offer.refuse_type_change(validated_data.get("offer_type", offer.offer_type))
            for name, value in validated_data.items():
                setattr(offer, name, value)
            # Again, on the row as it is now: two edits that are right alone may be wrong together.
            apply_model_rules(offer)
            offer.save()
            self._set_targets(offer, targets)
        return offer

    @staticmethod
    def _targets(field: str, model: Any, event: Event, slugs: list[str]) -> list[Any]:
        found = {
            target.slug: target for target in model.objects.filter(event=event, slug__in=slugs)
        }
        unknown = sorted(set(slugs) - set(found))
        if unknown:
            raise serializers.ValidationError(
                {field: f"The event {event.slug} has no {', '.join(unknown)}."}
            )
        return list(found.values())

    @staticmethod
    def _pop_targets(validated_data: dict[str, Any]) -> dict[str, list[Any]]:
        return {
            field: validated_data.pop(field)
            for field in ("target_sessions", "target_ticket_tiers")
            if field in validated_data
        }

    @staticmethod
    def _set_targets(offer: Offer, targets: dict[str, list[Any]]) -> None:
        for field, values in targets.items():
            getattr(offer, field).set(values)


# Why a caller can't buy: what ``catalog.refusal`` may answer.
REASONS = [
    refusal.code
    for refusal in (
        errors.PurchasesDisabled,
        errors.NotRegistered,
        errors.NotEligible,
        errors.OfferArchived,
        errors.OfferExpired,
        errors.OfferInactive,
        errors.OfferNotStarted,
        errors.SoldOut,
        errors.InsufficientInventory,
    )
]


class AvailabilitySerializer(serializers.Serializer):
    """Whether the caller could buy now, and if not, why."""

    available = serializers.BooleanField(help_text="Whether a purchase would be accepted now.")
    reason = serializers.ChoiceField(
        REASONS, allow_null=True, help_text="What it would be refused with; null: nothing."
    )
    inventory_available = serializers.IntegerField(
        allow_null=True, help_text="How many are left; null: unlimited."
    )
