"""What the dashboard is asked for: an event and some days. What makes no sense is said and left."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from offers.models import Event, Offer

# A year and a day, so that a day can be compared with the same one of the year before.
MOST_DAYS = 367
DEFAULT = "30"


@dataclass(frozen=True)
class Period:
    """Whole days of UTC, the first and the last included."""

    first: date
    last: date

    @classmethod
    def lately(cls, days: int, *, today: date) -> "Period":
        return cls(today - timedelta(days=days - 1), today)

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """The first moment that no longer belongs to it."""
        return datetime.combine(self.last + timedelta(days=1), time(), UTC)

    def days(self) -> Iterator[date]:
        day = self.first
        while day <= self.last:
            yield day
            day += timedelta(days=1)


class EventField(forms.ModelChoiceField):
    """One of the caller's events; what is no id at all is no event either."""

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except ValidationError:
            raise ValidationError(
                "There is no such event among yours: these are the figures of all of them."
            ) from None


class EventSelect(AutocompleteSelect):
    """Searched as it is typed, among what the caller may see: there may be thousands."""

    chosen: Event | None = None

    def build_attrs(self, base_attrs: Any, extra_attrs: Any = None) -> dict[str, Any]:
        return super().build_attrs(base_attrs, extra_attrs) | {"data-placeholder": "All of yours"}

    def optgroups(self, name: str, value: Any, attrs: Any = None) -> Any:
        """The chosen one, which is at hand and isn't asked for again."""
        options = [self.create_option(name, "", "", selected=False, index=0)]
        if self.chosen is not None:
            key, title = str(self.chosen.pk), str(self.chosen)
            options.append(self.create_option(name, key, title, selected=True, index=1))
        return [(None, options, 0)]


class DayInput(UnfoldAdminTextInputWidget):
    input_type = "date"


class Question(forms.Form):
    """The query string. A field that makes no sense has an error, and its default is used."""

    event = EventField(queryset=Event.objects.none(), required=False)
    period = forms.ChoiceField(
        choices=[
            ("1", "Today"), ("7", "7 days"), ("30", "30 days"), ("days", "From … to …"),
        ],
        required=False,
        widget=UnfoldAdminSelectWidget,
        error_messages={"invalid_choice": "There is no such period: these are the last 30 days."},
    )  # fmt: skip
    since = forms.DateField(required=False, label="From", widget=DayInput)
    until = forms.DateField(required=False, label="To", widget=DayInput)

    def __init__(
        self,
        data: Any,
        *,
        events: QuerySet[Event],
        today: date,
        initial: dict[str, Any] | None = None,
    ) -> None:
        self.events, self.today = events, today
        self.chosen = Period.lately(int(DEFAULT), today=today)
        super().__init__(data, initial=initial)
        field = self.fields["event"]
        field.queryset = events  # type: ignore[attr-defined] # a ModelChoiceField has one
        field.widget = select = EventSelect(
            Offer._meta.get_field("event"), admin.site, attrs={"class": "unfold-admin-autocomplete"}
        )
        select.chosen = (initial or {}).get("event")
        for name in ("since", "until"):
            self.fields[name].error_messages["invalid"] = (
                "This is no day (2026-01-31 is one): these are the last 30 days."
            )

    def clean(self) -> dict[str, Any]:
        asked = super().clean() or {}
        if asked.get("period") == "days":
            self._choose_days(asked.get("since"), asked.get("until"))
        elif asked.get("period"):
            self.chosen = Period.lately(int(asked["period"]), today=self.today)
        return asked

    def _choose_days(self, first: date | None, last: date | None) -> None:
        if self.errors.keys() & {"since", "until"}:
            return
        last = min(last or self.today, self.today)
        if first is None:
            self.add_error("since", "From which day? These are the last 30 days.")
        elif first > self.today:
            self.add_error("since", "This day is still to come: these are the last 30 days.")
        elif first > last:
            self.add_error("until", "The last day is before the first: these are the last 30 days.")
        elif (last - first).days >= MOST_DAYS:
            self.add_error("since", "Ask for a year at most: these are the last 30 days.")
        else:
            self.chosen = Period(first, last)

    def as_answered(self) -> "Question":
        """The form with what the figures are of, whatever was asked."""
        is_asked = not self.errors and self.cleaned_data["period"]
        return Question(
            None,
            events=self.events,
            today=self.today,
            initial={
                "event": self.cleaned_data.get("event"),
                "period": self.cleaned_data["period"] if is_asked else DEFAULT,
                "since": self.chosen.first.isoformat(),
                "until": self.chosen.last.isoformat(),
            },
        )

    def query(self) -> str:
        """The query string of the same figures as of now, for links to files."""
        event = self.cleaned_data.get("event")
        return urlencode(
            {
                **({"event": event.pk} if event else {}),
                "period": "days",
                "since": self.chosen.first.isoformat(),
                "until": self.chosen.last.isoformat(),
            }
        )
