"""Admin's pages, for addresses and forms that no page of ours leads to.

Django fails on some of what can be typed into an address: ids that are none, days that no calendar
has. Here they are answered as Django answers the rest: by the list with ``?e=1``, by an empty
choice, or with 404.
"""

from datetime import date
from typing import TYPE_CHECKING, Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import BaseModelAdmin, IncorrectLookupParameters
from django.contrib.admin.widgets import AutocompleteMixin
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import DataError, models
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest

if TYPE_CHECKING:
    # unfold has no types.
    from django.contrib.admin import ModelAdmin as PlainAdmin
    from django.contrib.admin import TabularInline as PlainInline
    from django.contrib.admin.views.main import ChangeList
else:
    from unfold.admin import ModelAdmin as PlainAdmin
    from unfold.admin import TabularInline as PlainInline
    from unfold.views import ChangeList

PARTS = ("year", "month", "day")


class CarefulChangeList(ChangeList):
    """Refuses what the database would refuse, or, later still, the date hierarchy's template."""

    def get_filters(self, request: HttpRequest) -> Any:
        days: dict[str, dict[str, str]] = {}
        for name in request.GET:
            field, _, part = name.rpartition("__")
            if part in PARTS:
                days.setdefault(field, {})[part] = request.GET[name]
        if not all(_is_day(**parts) for parts in days.values()):
            raise IncorrectLookupParameters
        return super().get_filters(request)

    def get_results(self, request: HttpRequest) -> None:
        try:
            super().get_results(request)
        except DataError as error:  # what only the database finds out, such as a list of countries
            raise IncorrectLookupParameters from error


class CarefulChoice:
    """Mixed into an autocomplete: a form that was refused is shown again, whatever it was sent."""

    def optgroups(self, name: str, value: Any, attrs: Any = None) -> Any:
        pk = self.field.related_model._meta.pk  # type: ignore[attr-defined] # Django's widget has it
        keys = [key for key in value if not key or _can_be(pk, key)]
        return super().optgroups(name, keys, attrs)  # type: ignore[misc] # as above


class CarefulChoices(BaseModelAdmin):
    """Base of pages and inlines: their autocompletes."""

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        return _careful(super().formfield_for_foreignkey(db_field, request, **kwargs))

    def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        return _careful(super().formfield_for_manytomany(db_field, request, **kwargs))


def _careful(field: Any) -> Any:
    if field is not None and isinstance(field.widget, AutocompleteMixin):
        kind = type(field.widget)
        field.widget.__class__ = type(kind.__name__, (CarefulChoice, kind), {})
    return field


class Rows(BaseInlineFormSet):
    """The rows of an inline. Each knows the object around it, and needs no query to name it."""

    def get_queryset(self) -> Any:
        rows = super().get_queryset()
        for row in rows:
            setattr(row, self.fk.name, self.instance)
        return rows


class TabularInline(CarefulChoices, PlainInline):
    formset = Rows


class ModelAdmin(CarefulChoices, PlainAdmin):
    """Base of every page of the back-office, ours and those of other apps' models."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return CarefulChangeList

    def response_action(self, request: HttpRequest, queryset: QuerySet, *args: Any) -> Any:
        """Do the action with what can be keys; without any, Django says that none was chosen."""
        pk = self.model._meta.pk
        sent = request.POST.copy()
        keys = [key for key in sent.getlist(ACTION_CHECKBOX_NAME) if _can_be(pk, key)]
        sent.setlist(ACTION_CHECKBOX_NAME, keys)
        request.POST = sent  # type: ignore[assignment] # mutable, and as good
        return super().response_action(request, queryset, *args)

    def get_changeform_initial_data(self, request: HttpRequest) -> Any:
        """What an address fills into a new form, but for keys and times that are none."""
        initial = super().get_changeform_initial_data(request)
        found = {name: self._start(name, value) for name, value in initial.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _start(self, name: str, value: Any) -> Any:
        try:
            field: Any = self.model._meta.get_field(name)
        except FieldDoesNotExist:
            return value
        if isinstance(field, models.DateTimeField):
            # Django's widget takes a time, and gets it as text.
            return field.to_python(value) if _can_be(field, value) else None
        if field.is_relation and field.related_model:
            keys = value if isinstance(value, list) else [value]
            fits = all(_can_be(field.related_model._meta.pk, key) for key in keys)
            return value if fits else None
        return value


def _can_be(field: "models.Field[Any, Any]", text: str) -> bool:
    """Whether ``text`` is a value that the column can have."""
    try:
        field.run_validators(field.to_python(text))
    except ValidationError:
        return False
    return bool(text) and "\0" not in text


def _is_day(*, year: str = "2000", month: str = "1", day: str = "1") -> bool:
    try:
        date(int(year), int(month), int(day))
    except (ValueError, OverflowError):
        return False
    return int(year) < date.max.year  # what ends a year later is a date, too
