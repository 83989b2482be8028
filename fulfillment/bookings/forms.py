"""The organizer's forms: a slot, a series of them, the time of one booking."""

from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.forms.formsets import DELETION_FIELD_NAME
from django.utils import timezone
from unfold.widgets import DATETIME_CLASSES, UnfoldAdminCheckboxSelectMultipleWidget

from fulfillment.bookings import slots
from fulfillment.bookings.models import A_WEEK, ServiceBooking, ServiceDetails, TimeSlot, details_of
from fulfillment.bookings.series import Series
from offers.asking import AskingForm
from offers.careful_pages import Rows
from offers.meanwhile import MeanwhileForm
from offers.wake import wake

LARGEST = 2**31 - 1


def let_bookings_follow() -> None:
    """Have the bookings brought in line once what was edited is committed."""
    transaction.on_commit(lambda: wake("fulfillment.follow_slots"))


class DetailsForm(MeanwhileForm):
    """The base of the admin's form, which adds the model and its fields."""

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002 - Django's signature
        if "location" in self.changed_data:
            let_bookings_follow()
        return super().save(commit)


class SlotForm(MeanwhileForm):
    """The base of the admin's form, which adds the model and its fields.

    What is stored is compared under the slot's lock, which is kept until the form is saved: nobody
    books between the check and the save. A set of forms locks all its slots first, in their order.
    """

    stored: TimeSlot | None = None

    def read_again(self) -> TimeSlot | None:
        if self.stored is None:
            self.stored = slots.lock(self.instance.offer_id, [self.instance.pk]).get(
                self.instance.pk
            )
        return self.stored

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        now = timezone.now()
        starts_at = data.get("starts_at")
        if self.instance._state.adding:
            if starts_at and starts_at <= now:
                self.add_error("starts_at", "This is in the past.")
            return data
        stored = self.read_again()
        if stored is None:
            raise ValidationError("This slot was deleted in the meantime.")
        # The model's own checks, which come next, are to know of it too.
        self.instance.taken = stored.taken
        if starts_at and starts_at != stored.starts_at and starts_at <= now:
            self.add_error("starts_at", "This is in the past.")
        if stored.taken:
            self._refuse_what_bookings_forbid(stored, data)
        return data

    def _refuse_what_bookings_forbid(self, stored: TimeSlot, data: dict[str, Any]) -> None:
        capacity = data.get("capacity")
        if capacity is not None and capacity < stored.taken:
            self.add_error(
                "capacity",
                f"Seats taken: {stored.taken}, and the capacity can't go below that. To have "
                "fewer people, move some of them on the pages of their bookings.",
            )
        has_begun = stored.starts_at <= timezone.now()
        if has_begun and {"starts_at", "ends_at", "is_called_off"} & set(self.changed_data):
            raise ValidationError("People were booked for it and it has begun: it stays as it is.")

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002 - Django's signature
        let_bookings_follow()
        return super().save(commit)


class SlotFormSet(Rows):
    """An offer's slots on its page, within admin's transaction."""

    def full_clean(self) -> None:
        if self.is_bound and self.instance.pk:
            keys = TimeSlot.objects.filter(offer=self.instance).values_list("pk", flat=True)
            self.stored = slots.lock(self.instance.pk, keys)
            for form in self.initial_forms:
                form.stored = self.stored.get(form.instance.pk)  # type: ignore[attr-defined]  # ours, on Django's form
        super().full_clean()

    def clean(self) -> None:
        for form in self.initial_forms:
            stored = self.stored.get(form.instance.pk)
            if stored is not None and stored.taken and form.cleaned_data.get(DELETION_FIELD_NAME):
                raise ValidationError(
                    f"{stored} can't be deleted, seats taken: {stored.taken}. Tick “called off” "
                    "instead: whoever booked it is told and chooses another."
                )
        super().clean()


WEEKDAYS = tuple(
    enumerate(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))
)


class NativeDate(forms.DateInput):
    """The browser's own picker, which also works on a phone: no script needed."""

    input_type = "date"

    def __init__(self, **attrs: str) -> None:
        super().__init__({"class": " ".join(DATETIME_CLASSES), **attrs}, format="%Y-%m-%d")


class NativeTime(forms.TimeInput):
    """As above."""

    input_type = "time"

    def __init__(self, **attrs: str) -> None:
        super().__init__({"class": " ".join(DATETIME_CLASSES), **attrs})


class SeriesForm(AskingForm):
    """What staff are asked for a series of slots; all times are in UTC."""

    first_day = forms.DateField(widget=NativeDate)
    last_day = forms.DateField(widget=NativeDate)
    weekdays = forms.TypedMultipleChoiceField(
        choices=WEEKDAYS,
        coerce=int,
        initial=[number for number, _ in WEEKDAYS],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    opens = forms.TimeField(label="From (UTC)", widget=NativeTime)
    closes = forms.TimeField(
        label="To (UTC)",
        widget=NativeTime,
        help_text="The last slot ends by then.",
    )
    length = forms.IntegerField(label="Length in minutes", min_value=1, max_value=A_WEEK)
    pause = forms.IntegerField(
        label="Pause in minutes", min_value=0, max_value=A_WEEK, initial=0, help_text="In between."
    )
    capacity = forms.IntegerField(label="Seats in each", min_value=1, max_value=LARGEST, initial=1)

    def series(self) -> Series:
        """What a valid form asks for."""
        data = self.cleaned_data
        return Series(
            first_day=data["first_day"],
            last_day=data["last_day"],
            weekdays=frozenset(data["weekdays"]),
            opens=data["opens"],
            closes=data["closes"],
            length=timedelta(minutes=data["length"]),
            pause=timedelta(minutes=data["pause"]),
            capacity=data["capacity"],
        )


class NativeDateTime(forms.MultiWidget):
    """A day and a time, each by the browser's own picker."""

    template_name = "django/forms/widgets/splitdatetime.html"

    def __init__(self) -> None:
        super().__init__(
            [NativeDate(**{"aria-label": "Day"}), NativeTime(**{"aria-label": "Time"})]
        )

    def decompress(self, value: Any) -> list[Any]:
        return [value.date(), value.time()] if value else [None, None]


class TimeForm(AskingForm):
    """When one booking is to be: in a slot, or at a time of its own."""

    slot = forms.ModelChoiceField(
        TimeSlot.objects.none(),
        required=False,
        empty_label="none: the time below",
        help_text="Those with room for all units of the purchase.",
    )
    starts_at = forms.SplitDateTimeField(
        label="Starts at (UTC)",
        required=False,
        widget=NativeDateTime,
        help_text="Takes no seat of any slot: the slots stay open for others at that time too.",
    )
    ends_at = forms.SplitDateTimeField(
        label="Ends at (UTC)",
        required=False,
        widget=NativeDateTime,
        help_text="Empty: after the service's usual duration.",
    )
    location = forms.CharField(
        required=False, max_length=300, help_text="Of a time of its own; a slot has the service's."
    )

    def __init__(self, sent: Any, *, booking: ServiceBooking) -> None:
        purchase = booking.fulfillment.purchase
        self.details: ServiceDetails = details_of(purchase.offer)
        own = booking.slot_id is None
        initial = {
            "slot": booking.slot_id,
            "starts_at": booking.scheduled_at if own else None,
            "ends_at": booking.ends_at if own else None,
            "location": booking.location or self.details.location,
        }
        super().__init__(sent, initial=initial)
        free = slots.free_slots(purchase.offer_id, purchase.quantity, now=timezone.now())
        slot_field: Any = self.fields["slot"]
        slot_field.queryset = TimeSlot.objects.filter(
            Q(pk__in=free.values("pk")) | Q(pk=booking.slot_id)
        )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        starts_at = data.get("starts_at")
        if data.get("slot") and starts_at:
            self.add_error("slot", "Choose a slot, or give a time, not both.")
        elif not data.get("slot") and not starts_at and "starts_at" not in self.errors:
            self.add_error("starts_at", "Choose a slot, or give a time.")
        elif starts_at and not data.get("ends_at"):
            data["ends_at"] = self._usual_end(starts_at)
        return data

    def _usual_end(self, starts_at: Any) -> Any:
        try:
            return starts_at + self.details.duration
        except OverflowError:
            self.add_error("starts_at", "This is too far away.")
            return None
