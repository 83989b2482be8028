"""Services: what an offer promises, the times that can be chosen, and who chose which."""

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from fulfillment.models import Fulfillment
from offers.models import Offer

A_WEEK = 7 * 24 * 60
A_YEAR = 365 * 24


class ServiceDetails(models.Model):
    """What buyers of a service are told. Without a row there are defaults: see ``details_of``."""

    offer = models.OneToOneField(Offer, on_delete=models.CASCADE, related_name="service_details")
    location = models.CharField(
        max_length=300,
        blank=True,
        help_text="A room, an address or a link. Whoever has booked a slot is told of a change.",
    )
    duration_minutes = models.PositiveIntegerField(
        "duration in minutes",
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(A_WEEK)],
        help_text="Where only a start is given: of a series of slots, of a time that staff set.",
    )
    change_deadline_hours = models.PositiveIntegerField(
        "changes end, in hours before the start",
        default=24,
        validators=[MaxValueValidator(A_YEAR)],
        help_text="Who has booked already keeps the deadline that they were told.",
    )
    instructions = models.TextField(
        blank=True, help_text="What to bring, whom to ask for: in the invitation and the reminder."
    )

    class Meta:
        verbose_name = verbose_name_plural = "service"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(duration_minutes__gte=1), name="service_takes_some_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.offer}: {self.duration_minutes} minutes"

    @property
    def duration(self) -> timedelta:
        return timedelta(minutes=self.duration_minutes)

    def changes_end(self, starts_at: datetime) -> datetime:
        """Until when an attendee may move or cancel a booking that starts then."""
        return starts_at - timedelta(hours=self.change_deadline_hours)


def details_of(offer: Offer) -> ServiceDetails:
    """What was set up for the offer, or the defaults."""
    stored: ServiceDetails | None = getattr(offer, "service_details", None)
    return stored or ServiceDetails(offer=offer)


class TimeSlot(models.Model):
    """A time at which an offer's service is given, to as many as there are seats.

    ``taken`` is written by ``fulfillment.bookings.slots`` alone, under the row's lock; ``save()``
    on an existing slot leaves it as it is, since a form that was open meanwhile has an old number.
    A slot that is moved or called off takes its bookings with it: ``bookings.following``.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # No index of its own: it is the first column of the unique one below.
    offer = models.ForeignKey(
        Offer, on_delete=models.PROTECT, related_name="time_slots", db_index=False
    )
    starts_at = models.DateTimeField("starts at (UTC)")
    ends_at = models.DateTimeField("ends at (UTC)")
    capacity = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1)], help_text="Seats."
    )
    taken = models.PositiveIntegerField(default=0, editable=False)
    is_called_off = models.BooleanField(
        "called off",
        default=False,
        help_text="Nobody can book it; whoever has is told, and chooses another.",
    )

    class Meta:
        ordering: ClassVar = ["starts_at"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(starts_at__lt=F("ends_at")),
                name="slot_starts_before_it_ends",
                violation_error_message="A slot has to end after it starts.",
            ),
            models.CheckConstraint(condition=Q(capacity__gte=1), name="slot_has_a_seat"),
            models.CheckConstraint(
                condition=Q(taken__lte=F("capacity")),
                name="slot_never_overbooked",
                violation_error_message="More seats are taken than that.",
            ),
            models.UniqueConstraint(
                fields=["offer", "starts_at"],
                name="one_slot_at_a_time",
                violation_error_message="There is a slot at this time: give that one more seats.",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["starts_at"], name="slot_by_time")]

    def __str__(self) -> str:
        return f"{self.starts_at:%a %d %b %Y, %H:%M} UTC"

    @property
    def seats_left(self) -> int:
        """A snapshot, unless the row is locked."""
        return self.capacity - self.taken

    @property
    def location(self) -> str:
        return details_of(self.offer).location

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding and kwargs.get("update_fields") is None:
            own = {field.name for field in self._meta.concrete_fields} - {"id", "taken"}
            kwargs["update_fields"] = own
        super().save(*args, **kwargs)

    def clean(self) -> None:
        if self.offer_id and self.offer.offer_type != Offer.Type.SERVICE:
            raise ValidationError({"offer": "Only a service has times to choose from."})


class ServiceBooking(models.Model):
    """When a purchase's service is given. Without ``scheduled_at`` there is no time yet.

    Its ``uid`` and ``sequence`` are those of its entry in the attendee's calendar (RFC 5545): the
    same entry through all changes, each one a number higher. Where and when, and how long it may be
    changed, are copied: what an attendee was told stands until they are told otherwise.
    """

    fulfillment = models.OneToOneField(
        Fulfillment, on_delete=models.PROTECT, related_name="booking"
    )
    slot = models.ForeignKey(
        TimeSlot,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="bookings",
        help_text="Empty, with a time: staff set it, beside all slots.",
    )
    scheduled_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    location = models.CharField(max_length=300, blank=True)
    can_change_until = models.DateTimeField(null=True, blank=True)
    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    sequence = models.PositiveIntegerField(
        null=True, editable=False, help_text="Of the last invitation or cancellation that went out."
    )
    reminded_for = models.DateTimeField(
        null=True, editable=False, help_text="The time that a reminder was sent for."
    )
    created_at = models.DateTimeField()
    changed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["scheduled_at"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(
                    scheduled_at__isnull=False,
                    ends_at__isnull=False,
                    can_change_until__isnull=False,
                    scheduled_at__lt=F("ends_at"),
                )
                | Q(
                    scheduled_at__isnull=True,
                    ends_at__isnull=True,
                    can_change_until__isnull=True,
                    slot__isnull=True,
                ),
                name="booking_has_a_whole_time_or_none",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["scheduled_at", "id"], name="booking_by_time"),
        ]

    def __str__(self) -> str:
        if self.scheduled_at is None:
            return "no time yet"
        return f"{self.scheduled_at:%a %d %b %Y, %H:%M} UTC"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a save that isn't told its fields: rows are shared with other processes."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise TypeError("Save a booking through fulfillment.bookings.booking.")
        super().save(*args, **kwargs)
