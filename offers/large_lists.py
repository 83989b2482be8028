"""Lists of hundreds of thousands of rows: what they count, search and offer to choose from.

Mixed into ``offers.scoped_admin.ScopedAdmin``, so that every list of ours opens in moments however
much was sold. What has to give way is said on the page: where there are more than
``MOST_COUNTED`` rows, that there are more, but not how many.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import or_
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import ValidationError
from django.core.paginator import Page, Paginator
from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Model,
    Q,
    QuerySet,
    TextField,
    UniqueConstraint,
    When,
)
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.text import smart_split, unescape_string_literal
from unfold.contrib.filters.forms import AutocompleteDropdownForm

from offers.careful_pages import ModelAdmin

# Counted, searched for and paged through; beyond that a search or a filter leads further.
MOST_COUNTED = 1_000
# The same of what a search found, for which rows are looked through.
MOST_FOUND = 200
MOST_LOOKED_AT = 1_000
# More than that many are no list to choose from.
MOST_CHOICES = 100
# Words of a search beyond these are ignored.
MOST_WORDS = 5
LONGEST_WORD = 200
# A word in the names of more accounts, offers or events than that is looked for row by row.
MOST_LOOKED_UP = 1_000


class MoreThan(int):
    """A count that was given up: a number to reckon with, and in words what it is."""

    def __str__(self) -> str:
        return f"more than {int(self):,}"

    def __format__(self, how: str) -> str:
        """In words, too: ``int``'s own would say the bound as if it were the number."""
        return format(str(self), how.replace(",", ""))


def counted(rows: QuerySet, *, most: int) -> int:
    """How many rows there are, or that there are ``MoreThan`` ``most``."""
    # Without an order PostgreSQL may stop at the first so many that it comes across.
    found = rows.order_by().values("pk")[: most + 1].count()
    return MoreThan(most) if found > most else found


class CountingPaginator(Paginator):
    """Counts up to ``most`` rows: a whole count reads the whole table, at each page."""

    most = MOST_COUNTED
    # What the caller may see, and none of the conditions of a search or a filter.
    whole: QuerySet | None = None

    @cached_property
    def count(self) -> int:
        if not isinstance(self.object_list, QuerySet):
            return super().count
        return counted(self.object_list, most=self.most)

    def page(self, number: Any) -> Page:
        """First the keys of the page, then its rows: else all rows before it were joined, too."""
        if not isinstance(self.object_list, QuerySet):
            return super().page(number)
        number = self.validate_number(number)
        first = (number - 1) * self.per_page
        last = min(first + self.per_page, self.count)
        keys: Any = self.object_list.values_list("pk", flat=True)
        if isinstance(self.count, MoreThan):
            keys = list(keys[first:last])
        else:
            # Few enough to be sorted: asked for one page, PostgreSQL would expect to find that soon
            # among all there is in this order, where they may be far apart.
            keys = list(keys)[first:last]
        rows = self.object_list
        if self.whole is not None:
            # The conditions hold for these keys, and may take long to be looked at once more.
            rows = self.whole.order_by(*rows.query.order_by)
            rows.query.select_related = self.object_list.query.select_related
        return Page(rows.filter(pk__in=keys), number, self)


class FewChoices(admin.RelatedFieldListFilter):
    """Links where there are few to choose from; where there are many, a field to look one up."""

    # Unfold's lists look here for the scripts that they need.
    form_class = AutocompleteDropdownForm

    def __init__(
        self,
        field: Any,
        request: HttpRequest,
        params: dict[str, Any],
        model: Any,
        model_admin: Any,
        field_path: str,
    ) -> None:
        self.is_long = False
        self._asked = request, model_admin
        super().__init__(field, request, params, model, model_admin, field_path)
        if self.is_long:
            self.template = "admin/long_filter.html"

    def visible(self, field: Any, request: HttpRequest, model_admin: Any) -> QuerySet:
        """What the caller may choose from."""
        raise NotImplementedError

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        ordering = self.field_admin_ordering(field, request, model_admin)
        objects = self.visible(field, request, model_admin).order_by(*ordering)
        related = model_admin.admin_site._registry.get(field.related_model)
        # What their names are made of.
        joined = getattr(related, "list_select_related", None)
        if isinstance(joined, tuple | list):
            objects = objects.select_related(*joined)
        found = list(objects[: MOST_CHOICES + 1])
        if len(found) > MOST_CHOICES and related and related.search_fields:
            self.is_long = True
            return [("", "")] * 2  # two are enough for the filter to be shown
        return [(each.pk, str(each)) for each in found]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet | None:
        """An empty field asks for nothing, where an empty link would be an error."""
        if list(self.lookup_val or ()) == [""]:
            return queryset
        return super().queryset(request, queryset)

    def choices(self, changelist: Any) -> Iterator[Any]:
        if not self.is_long:
            yield from super().choices(changelist)
            return
        request, model_admin = self._asked
        chosen = self.lookup_val[-1] if self.lookup_val else None
        yield {
            "form": AutocompleteDropdownForm(
                request=request,
                label=f"By {self.title}",
                name=self.lookup_kwarg,
                choices=(),
                field=self.field,
                model_admin=model_admin,
                data={self.lookup_kwarg: chosen},
            ),
            "is_alone": not model_admin.list_filter_submit,
            "others": [
                (name, value)
                for name, values in changelist.filter_params.items()
                if name not in self.expected_parameters()
                for value in values
            ],
        }


class SeenLately(admin.AllValuesFieldListFilter):
    """The values that a thousand rows have, where Django's filter looks through all there are."""

    def __init__(
        self,
        field: Any,
        request: HttpRequest,
        params: dict[str, Any],
        model: Any,
        model_admin: Any,
        field_path: str,
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        rows = model_admin.get_queryset(request).order_by("-pk")
        found = set(rows.values_list(field_path, flat=True)[:MOST_LOOKED_AT])
        self.lookup_choices: Any = sorted(found)


def indexed(model: type[Model]) -> set[str]:
    """The fields in whose order an index has all rows.

    None with a few values only: thousands of rows with the same one would be sorted after all.
    """
    meta = model._meta
    first = {index.fields[0] for index in meta.indexes if index.fields and not index.condition}
    first |= {
        constraint.fields[0]
        for constraint in meta.constraints
        if isinstance(constraint, UniqueConstraint)
        and constraint.fields
        and not constraint.condition
    }
    return {
        field.name
        for field in meta.concrete_fields
        if (
            field.unique
            or getattr(field, "db_index", False)
            or first & {field.name, f"-{field.name}"}
        )
        and not (field.is_relation or field.choices or isinstance(field, BooleanField))
    }


def row_by_row(condition: Q) -> Case:
    """A condition that many rows meet, to filter by: checked while the list is read in its order.

    PostgreSQL would take it for a rare one, and join and sort all there is for the first page. Of a
    ``CASE`` it knows nothing, so it expects half of the rows to do.
    """
    return Case(When(condition, then=True), default=False, output_field=BooleanField())


class LargeList(ModelAdmin):
    """Mixed into admin classes: the list stays fast with any number of rows."""

    paginator = CountingPaginator
    show_full_result_count = False
    # Whether there are at most some ten thousand rows, which can be sorted by anything.
    is_short: ClassVar[bool] = False

    def get_list_filter(self, request: HttpRequest) -> Any:
        """A filter by a text that has no fixed choices is ``SeenLately``."""
        return [
            (name, SeenLately) if isinstance(name, str) and self._is_free_text(name) else name
            for name in super().get_list_filter(request)
        ]

    def _is_free_text(self, name: str) -> bool:
        fields = {field.name: field for field in self.model._meta.concrete_fields}
        field = fields.get(name)
        return isinstance(field, CharField | TextField) and not field.choices

    def get_sortable_by(self, request: HttpRequest) -> Any:
        """Those columns that PostgreSQL can read in order; sorting the others reads every row."""
        columns = super().get_sortable_by(request)
        if self.is_short:
            return columns
        sorted_by = indexed(self.model)
        return [name for name in columns if self._field_of(name) in sorted_by]

    def _field_of(self, column: Any) -> str | None:
        """The field that a column of the list is sorted by, as Django finds it."""
        shown = column if callable(column) else getattr(self, column, None)
        if shown is None:
            return str(column)
        by = getattr(shown, "admin_order_field", None)
        return by.removeprefix("-") if isinstance(by, str) else None

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Without links to dates where nothing is found: the first and the last date of nothing
        are looked for in everybody's rows."""
        changelist = super().get_changelist_instance(request)
        by_date = changelist.date_hierarchy
        if by_date and not changelist.result_count and f"{by_date}__year" not in request.GET:
            changelist.date_hierarchy = None
        return changelist

    def get_paginator(
        self, request: HttpRequest, queryset: QuerySet, per_page: int, *args: Any, **kwargs: Any
    ) -> Paginator:
        paginator = super().get_paginator(request, queryset, per_page, *args, **kwargs)
        # The history of an object is paged through by the same means.
        if isinstance(paginator, CountingPaginator) and queryset.model is self.model:
            paginator.whole = self.get_queryset(request)
            paginator.most = MOST_FOUND if request.GET.get(SEARCH_VAR) else MOST_COUNTED
        return paginator

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Those that have each of the words in one of the fields; called by lists and by fields
        with an autocomplete, with what the caller may see."""
        fields = [str(field) for field in self.get_search_fields(request)]
        for word in _words(search_term) if fields else ():
            search = Search(self.model, fields, word, known=partial(self.known_to, request))
            queryset = search.narrow(queryset)
        if is_autocomplete(request) and self._named_with:
            # What the choices' names are made of.
            queryset = queryset.select_related(*self._named_with)
        return queryset, False

    def known_to(self, request: HttpRequest, model: type[Model]) -> QuerySet:
        """Those whose names may lead to rows that the caller sees."""
        return model._default_manager.all()

    @property
    def _named_with(self) -> tuple[str, ...]:
        joined = self.list_select_related
        return tuple(joined) if isinstance(joined, tuple | list) else ()


def is_autocomplete(request: HttpRequest) -> bool:
    """Whether a field asks for its choices, and not a list for its rows."""
    match = request.resolver_match
    return match is not None and match.url_name == "autocomplete"


class Search:
    """One word, looked for in several fields.

    Names and titles are looked up first, in their own, smaller tables; rows are then found by the
    indexes on whose and what they are. For an ``OR`` over several tables PostgreSQL would read and
    join all of them. A word that so many have that most rows may be found is looked for in the rows
    themselves, in the order of the list, until there are enough.
    """

    def __init__(
        self,
        model: type[Model],
        fields: list[str],
        word: str,
        *,
        known: Callable[[type[Model]], QuerySet],
    ) -> None:
        self._known = known
        # By the relation that leads to the table: what it must have.
        self._conditions: dict[str, Q] = {}
        self._is_common = False
        word = word[:LONGEST_WORD]
        about: dict[str, list[str]] = defaultdict(list)
        for field in fields:
            found = _equal(model, field[1:], word) if field.startswith("=") else None
            relation, _, name = field.rpartition("__")
            if found is not None:
                self._add(relation, found)
            elif not field.startswith("="):
                about[relation].append(name)
        if not (self._conditions and is_uuid(word)):
            for relation, names in about.items():
                self._look_up(model, relation, names, word)

    def narrow(self, queryset: QuerySet) -> QuerySet:
        """Those of the rows that have the word."""
        each = list(self._conditions.values())
        if len(each) < 2 and not self._is_common:
            return queryset.filter(each[0]) if each else queryset.none()
        if not self._is_common:
            # Of everybody's, which takes fewer joins: ``queryset`` is what the caller may see.
            every = queryset.model._default_manager.order_by()
            parts = [every.filter(condition).values_list("pk") for condition in each]
            either = parts[0].union(*parts[1:], all=True)
            # As keys, since PostgreSQL would join it all again to count them and for each page.
            keys = [key for (key,) in either[: MOST_FOUND + 1]]
            if len(keys) <= MOST_FOUND:
                return queryset.filter(pk__in=keys)
        return queryset.filter(row_by_row(reduce(or_, each)))

    def _look_up(self, model: type[Model], relation: str, names: list[str], word: str) -> None:
        own = "__".join(part for part in (relation,) if part)
        has_word = Q.create([(f"{name}__icontains", word) for name in names], connector=Q.OR)
        if not own:
            self._add("", has_word)
            return
        related: Any = get_fields_from_path(model, own)[-1].related_model
        objects = self._known(related).filter(has_word).order_by().values_list("pk", flat=True)
        keys: Any = list(objects[: MOST_LOOKED_UP + 1])
        if len(keys) > MOST_LOOKED_UP:
            self._is_common = True
            theirs: Any = [(f"{own}__{name}__icontains", word) for name in names]
            self._add(own, Q.create(theirs, connector=Q.OR))
        elif keys:
            # The column with the key is in the table before.
            self._add(own.rpartition("__")[0], Q(**{f"{own}__in": keys}))

    def _add(self, table: str, condition: Q) -> None:
        self._conditions[table] = self._conditions.get(table, Q()) | condition


def _words(text: str) -> Iterator[str]:
    """The words of a search; what is in quotes is one."""
    for bit in list(smart_split(text))[:MOST_WORDS]:
        quoted = len(bit) > 1 and bit[0] in "\"'" and bit[0] == bit[-1]
        yield unescape_string_literal(bit) if quoted else bit


def _equal(model: type[Model], path: str, word: str) -> Q | None:
    """How an admin's ``"=path"`` is looked for; ``None`` if ``word`` can't be there.

    Django compares it as text in capitals, for which there is no index; ours compares it as what it
    is, and text also in capitals and in small letters.
    """
    target = get_fields_from_path(model, path)[-1]
    if isinstance(target, CharField | TextField):
        return Q(**{f"{path}__in": sorted({word, word.upper(), word.lower()})})
    try:
        value = target.to_python(word)
        target.run_validators(value)
    except ValidationError:
        return None
    return Q(**{path: value})


def is_uuid(word: str) -> bool:
    try:
        UUID(word)
    except ValueError:
        return False
    return True
