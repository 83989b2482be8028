"""Filters of the back-office's lists that Django doesn't have."""

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.forms import RangeDateForm
from unfold.utils import parse_date_str

from purchases import disputes, holds
from purchases.models import Purchase

if TYPE_CHECKING:
    from django.contrib.admin import DateFieldListFilter as RangeDateFilter
else:
    from unfold.contrib.filters.admin import RangeDateFilter


class LabelledRange(RangeDateForm):
    """unfold's two fields, which say what they are to those who don't see them."""

    fields: dict[str, forms.Field]

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        about = name.removesuffix("_at").replace("_", " ")
        for end, words in (("from", "from, day in UTC"), ("to", "to, day in UTC")):
            attrs = self.fields[f"{name}_{end}"].widget.attrs
            attrs["aria-label"] = f"{about.capitalize()} {words}"


class Days(RangeDateFilter):
    """From the beginning of one day to the end of another, in UTC; unfold's leaves the last out."""

    form_class = LabelledRange

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        first = self._day("from")
        last = self._day("to")
        if first is not None:
            queryset = queryset.filter(**{f"{self.field_path}__gte": first})
        if last is not None:
            queryset = queryset.filter(**{f"{self.field_path}__lt": last + timedelta(days=1)})
        return queryset

    def _day(self, end: str) -> datetime | None:
        day = parse_date_str(self.used_parameters.get(f"{self.field_path}_{end}"))
        # The year 9999 has no day after its last.
        if day is None or day.year > 9000:
            return None
        return datetime.combine(day, time.min, UTC)


class NeedsAttention(admin.SimpleListFilter):
    """What waits for a person, or will not end by itself."""

    title = "what needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("problem", "A problem to look at"),
            ("overdue", "Overdue hold"),
            ("stuck", "Hold overdue for more than an hour"),
            ("dispute", "Open dispute"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Purchase]) -> QuerySet[Purchase]:
        match self.value():
            case "problem":
                # As the index has it.
                return queryset.filter(~Q(problem=""))
            case "overdue":
                return queryset.filter(holds.is_overdue(now=timezone.now()))
            case "stuck":
                return queryset.filter(holds.is_stuck(now=timezone.now()))
            case "dispute":
                return queryset.filter(pk__in=disputes.open_ones().values("purchase"))
        return queryset
