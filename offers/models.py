"""What can be sold, to whom, and how many are left."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import F, ProtectedError, Q

from offers import history, money, rules
from offers.errors import (
    InsufficientInventory,
    OfferArchived,
    OfferExpired,
    OfferInactive,
    OfferNotStarted,
    OfferUnavailable,
    PriceLocked,
    SoldOut,
    TotalBelowCommitted,
    TypeLocked,
)
from offers.wake import wake


class Organization(models.Model):
    """Who organizes events; its members manage the offers of all of them."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    slug = models.SlugField(unique=True)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="organizations"
    )

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One person's role in one organization."""

    class Role(models.TextChoices):
        OWNER = "owner"
        MANAGER = "manager"
        SUPPORT = "support"

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="memberships"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role.choices)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["organization", "user"], name="one_role_each"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role} of {self.organization}"


class Event(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="events")
    slug = models.SlugField(unique=True)
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    is_public = models.BooleanField(
        default=True, help_text="A private event is seen only by those registered for it."
    )
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(starts_at__lte=F("ends_at")), name="event_starts_before_it_ends"
            ),
        ]

    def __str__(self) -> str:
        return self.title


class EventSession(models.Model):
    """A talk or workshop within an event. (Nothing to do with Stripe's Checkout Sessions.)"""

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="sessions")
    slug = models.SlugField()
    title = models.CharField(max_length=200)
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["event", "slug"], name="unique_session_slug"),
        ]

    def __str__(self) -> str:
        return f"{self.event}: {self.title}"


class TicketTier(models.Model):
    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="ticket_tiers")
    slug = models.SlugField()
    title = models.CharField(max_length=200)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["event", "slug"], name="unique_tier_slug"),
        ]

    def __str__(self) -> str:
        return f"{self.event}: {self.title}"


class Registration(models.Model):
    """An attendee's place at an event."""

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="registrations")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="registrations"
    )
    ticket_tier = models.ForeignKey(
        TicketTier, on_delete=models.PROTECT, related_name="registrations"
    )
    sessions = models.ManyToManyField(
        EventSession,
        blank=True,
        related_name="registrations",
        help_text="Leave empty for a place at every session of the event.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["event", "user"], name="one_registration_each"),
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.event}"

    def clean(self) -> None:
        if self.ticket_tier_id and self.ticket_tier.event_id != self.event_id:
            raise ValidationError({"ticket_tier": "This tier belongs to another event."})


class Offer(models.Model):
    """Something limited that attendees of an event can buy.

    The three counters are written by ``offers.inventory`` alone, the ``stripe_*`` fields by the
    task that copies offers to Stripe. ``save()`` on an existing offer therefore leaves both alone:
    a form that was open while units were sold must not write yesterday's counters back.
    """

    class Type(models.TextChoices):
        TICKET_UPGRADE = "TICKET_UPGRADE"
        MERCHANDISE = "MERCHANDISE"
        EXCLUSIVE_CONTENT = "EXCLUSIVE_CONTENT"
        SERVICE = "SERVICE"

    class Placement(models.TextChoices):
        CHECKOUT = "CHECKOUT"
        POST_PURCHASE = "POST_PURCHASE"
        IN_EVENT = "IN_EVENT"
        EMAIL = "EMAIL"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # No index of its own: it is the first column of `offer_by_event`.
    event = models.ForeignKey(
        Event, on_delete=models.PROTECT, related_name="offers", db_index=False
    )
    title = models.CharField(max_length=200)
    # A card's worth, and what a cell of any spreadsheet can hold.
    description = models.TextField(blank=True, max_length=20_000)
    offer_type = models.CharField(max_length=20, choices=Type.choices)
    placement = models.CharField(
        max_length=20, choices=Placement.choices, default=Placement.IN_EVENT
    )
    image_url = models.URLField(max_length=1000, blank=True)
    price = models.DecimalField(
        max_digits=12, decimal_places=3, validators=[MinValueValidator(0)], help_text="0 is free."
    )
    original_price = models.DecimalField(
        max_digits=12,
        decimal_places=3,
        null=True,
        blank=True,
        help_text="The price before the reduction, shown struck through.",
    )
    currency = models.CharField(
        max_length=3, default="USD", help_text="Three capital letters (ISO 4217)."
    )

    inventory_total = models.PositiveIntegerField(
        null=True, blank=True, help_text="Leave empty for an unlimited offer."
    )
    inventory_reserved = models.PositiveIntegerField(default=0, editable=False)
    inventory_sold = models.PositiveIntegerField(default=0, editable=False)
    max_per_user = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many one attendee may buy in all.",
    )

    target_sessions = models.ManyToManyField(
        EventSession, blank=True, related_name="offers", help_text="Empty means everyone."
    )
    target_ticket_tiers = models.ManyToManyField(
        TicketTier, blank=True, related_name="offers", help_text="Empty means everyone."
    )

    ticket_tier = models.ForeignKey(
        TicketTier,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="upgrades",
        help_text="The tier that buyers of a ticket upgrade are moved to.",
    )
    shipping_countries = ArrayField(
        models.CharField(max_length=2),
        default=list,
        blank=True,
        help_text="Where merchandise is sent to: two-letter codes (ISO 3166), for example DE, AT.",
    )
    allows_collection = models.BooleanField(
        default=True, help_text="Merchandise can be collected at the event."
    )

    is_active = models.BooleanField(default=True)
    is_archived = models.BooleanField(default=False)
    starts_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    stripe_product_id = models.CharField(max_length=255, null=True, editable=False, default=None)
    stripe_price_id = models.CharField(max_length=255, null=True, editable=False, default=None)
    stripe_price_minor = models.BigIntegerField(
        null=True, editable=False, help_text="What the Price at Stripe charges, in minor units."
    )
    stripe_price_currency = models.CharField(max_length=3, blank=True, editable=False)
    catalog_version = models.PositiveIntegerField(
        default=1, editable=False, help_text="Counts the saves that Stripe has to hear of."
    )
    catalog_synced_version = models.PositiveIntegerField(default=0, editable=False)
    catalog_sync_after = models.DateTimeField(
        null=True, editable=False, help_text="Claimed, or put off after a failure, until then."
    )

    WRITTEN_ELSEWHERE: ClassVar = frozenset(
        {
            "id",
            "inventory_total",
            "inventory_reserved",
            "inventory_sold",
            "stripe_product_id",
            "stripe_price_id",
            "stripe_price_minor",
            "stripe_price_currency",
            "catalog_version",
            "catalog_synced_version",
            "catalog_sync_after",
        }
    )

    history = history.OfferHistory(
        # Not what purchases and the copy at Stripe write: nobody changed the offer then.
        excluded_fields=[
            *sorted(WRITTEN_ELSEWHERE - {"id", "inventory_total"}), "created_at", "updated_at",
        ],
        no_db_index=["event", "ticket_tier"],
        history_id_field=models.BigAutoField(),
    )  # fmt: skip

    class Meta:
        constraints: ClassVar = [
            # PositiveIntegerField adds `>= 0` for each counter.
            models.CheckConstraint(
                condition=Q(inventory_total__isnull=True)
                | Q(inventory_total__gte=F("inventory_reserved") + F("inventory_sold")),
                name="offer_never_oversold",
            ),
            models.CheckConstraint(condition=Q(price__gte=0), name="offer_price_not_negative"),
            models.CheckConstraint(
                condition=Q(original_price__isnull=True) | Q(original_price__gte=F("price")),
                name="offer_original_price_not_below_price",
            ),
            models.CheckConstraint(
                condition=Q(starts_at__lt=F("expires_at")), name="offer_starts_before_it_expires"
            ),
            models.CheckConstraint(
                condition=Q(max_per_user__isnull=True) | Q(max_per_user__gte=1),
                name="offer_max_per_user_at_least_one",
            ),
            models.UniqueConstraint(fields=["stripe_product_id"], name="offer_by_stripe_product"),
            models.UniqueConstraint(fields=["stripe_price_id"], name="offer_by_stripe_price"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["event", "is_active", "is_archived"], name="offer_by_event"),
            # The lists' first page without sorting. No counter is in it: a sale changes no index.
            models.Index(
                fields=["event", "-created_at", "-id"],
                condition=Q(is_active=True, is_archived=False),
                name="offer_newest_on_sale",
            ),
            models.Index(fields=["is_active", "expires_at"], name="offer_by_expiry"),
            models.Index(
                fields=["catalog_sync_after"],
                condition=~Q(catalog_synced_version=F("catalog_version")),
                name="offer_unknown_to_stripe",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store the offer and, once that is committed, have Stripe told of it.

        A save with ``update_fields`` is one of our own narrow writes, of nothing Stripe shows.
        """
        if kwargs.get("update_fields") is not None:
            super().save(*args, **kwargs)
            return
        with transaction.atomic():
            if self._state.adding:
                super().save(*args, **kwargs)
            else:
                own = {field.name for field in self._meta.concrete_fields} - self.WRITTEN_ELSEWHERE
                super().save(*args, **kwargs, update_fields=own)
                Offer.objects.filter(pk=self.pk).update(catalog_version=F("catalog_version") + 1)
            transaction.on_commit(lambda: wake("purchases.sync_offer", str(self.pk)))

    def clean(self) -> None:
        """Check the rules that concern several fields; run by admin forms and the API alike."""
        errors: dict[str, str] = {}
        if self.currency not in money.CURRENCIES:
            errors["currency"] = (
                f"{self.currency} is not a currency that Stripe charges in: use an ISO 4217 code "
                "in capitals, for example EUR."
            )
        elif self.price is not None:
            errors.update(rules.price_errors(self))
        if self.starts_at and self.expires_at and self.starts_at >= self.expires_at:
            errors["expires_at"] = "The sale must end after it starts."
        errors.update(rules.delivery_errors(self))
        if errors:
            raise ValidationError(errors)

    @property
    def inventory_available(self) -> int | None:
        """Units left to sell, ``None`` when unlimited; a snapshot unless the row is locked."""
        if self.inventory_total is None:
            return None
        return self.inventory_total - self.inventory_reserved - self.inventory_sold

    @property
    def is_in_stripes_hands(self) -> bool:
        """Whether the Price at Stripe charges exactly what the offer costs now."""
        return (
            self.stripe_price_id is not None
            and self.stripe_price_currency == self.currency
            and self.stripe_price_minor == money.to_minor_units(self.price, self.currency)
        )

    def refuse_unless_on_sale(self, now: datetime) -> None:
        """Raise the ``OfferUnavailable`` that says why the offer can't be bought at ``now``."""
        if self.is_archived:
            raise OfferArchived
        if self.expires_at is not None and self.expires_at <= now:
            raise OfferExpired
        if not self.is_active:
            raise OfferInactive
        if self.starts_at is not None and self.starts_at > now:
            raise OfferNotStarted

    def refuse_more_than_is_left(self, quantity: int) -> None:
        """Raise ``SoldOut`` or ``InsufficientInventory``; proves something only under the lock.

        Without the lock it is a cheap refusal: stock that is gone rarely comes back within the
        milliseconds in which the lock would be had.
        """
        available = self.inventory_available
        if available is None or available >= quantity:
            return
        if available == 0:
            raise SoldOut
        raise InsufficientInventory(available=available)

    def refusal(self, now: datetime, *, quantity: int) -> OfferUnavailable | None:
        """Why ``quantity`` units can't be bought at ``now``, or ``None``: for lists and pages."""
        try:
            self.refuse_unless_on_sale(now)
            self.refuse_more_than_is_left(quantity)
        except OfferUnavailable as refusal:
            return refusal
        return None

    def refuse_price_change(self, price: Decimal, currency: str) -> None:
        """Raise ``PriceLocked`` if this would change what buyers have already paid for."""
        if self.inventory_sold and (price, currency) != (self.price, self.currency):
            raise PriceLocked

    def refuse_type_change(self, offer_type: str) -> None:
        """Raise ``TypeLocked`` if somebody has bought it, or is about to, as something else."""
        if offer_type != self.offer_type and (self.inventory_sold or self.inventory_reserved):
            raise TypeLocked

    def refuse_total(self, total: int | None) -> None:
        """Raise ``TotalBelowCommitted`` if more than ``total`` units are sold or on hold."""
        committed = self.inventory_reserved + self.inventory_sold
        if total is not None and total < committed:
            raise TotalBelowCommitted(committed=committed)


def _refuse_to_lose(collector: Any, field: Any, links: Any, using: str) -> NoReturn:
    """Refuse to delete what an offer targets, or the session that a registration is for.

    The ``on_delete`` of these links, whose tables Django makes: it would delete the link, and
    without the last one the offer is for everybody, the registration for every session. Raises
    ``ProtectedError`` with the offers or registrations, which admin names beside the refusal.
    """
    [owner] = [each for each in links.model._meta.fields if each.is_relation and each != field]
    owners = owner.related_model._default_manager.using(using).select_related()
    raise ProtectedError(
        "Offers target it, or registrations are for it.",
        set(owners.filter(pk__in=links.values(owner.name))),
    )


_LINKS: tuple[tuple[Any, str], ...] = (
    (Offer.target_sessions.through, "eventsession"),
    (Offer.target_ticket_tiers.through, "tickettier"),
    (Registration.sessions.through, "eventsession"),
)
for _links, _target in _LINKS:
    _links._meta.get_field(_target).remote_field.on_delete = _refuse_to_lose


# Django finds the models of an app in this module.
from offers.heartbeat import Heartbeat  # noqa: E402, F401 - as said
from offers.imported_files import ImportedFile  # noqa: E402, F401 - as said
from offers.impressions import Impression  # noqa: E402, F401 - as said
from offers.staff_log import OrganizationOfEntry  # noqa: E402, F401 - as said
