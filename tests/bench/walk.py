"""Every page of the admin that can be opened, found in its registry and addresses.

A page that is added later needs no word here, unless its address takes more than an object's key.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path, quote
from django.contrib.auth.models import User
from django.core.cache import caches
from django.db.models import Count, Model
from django.forms import ChoiceField, DateField, Form, ModelChoiceField, SplitDateTimeField
from django.http import HttpRequest
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse
from django.utils import timezone

from offers.models import Event, Membership
from offers_project.back_office.dashboard.pages import FILES
from purchases.bulk.models import BulkJob
from tests.bench.data import SUPERUSER
from tests.bench.watching import Query, recorded

# Addresses that are no pages, or that do something when they are opened.
NOT_PAGES = {"logout", "jsi18n", "autocomplete", "login", "view_on_site"}
# Of a filter's choices.
VALUES_EACH = 3
TRIED_IN_VAIN = "zzqx"
YEAR = "of a year"


@dataclass
class Visit:
    """One page as one of the three saw it. ``kind`` is what sort of page it is."""

    subject: str
    kind: str
    who: str
    url: str
    status: int
    seconds: float
    queries: list[Query] = field(repr=False)
    response: Any = field(repr=False)


class Visitor:
    """One of those who look, on their way through all pages."""

    def __init__(self, who: str) -> None:
        self.who = who
        self._client = Client()
        self._client.force_login(User.objects.get(username=who))

    def visit(self, subject: str, kind: str, url: str) -> Visit:
        """Open one page."""
        # What is remembered for seconds is asked for by somebody: each page pays for all of it.
        for cache in caches.all(initialized_only=True):
            cache.clear()
        begun = time.perf_counter()
        with recorded() as recording:
            response = self._client.get(url)
            content = b"".join(response) if response.streaming else response.content
            assert content is not None
        seconds = time.perf_counter() - begun
        return Visit(
            subject, kind, self.who, url, response.status_code, seconds, recording.queries, response
        )

    def everything(self, *, only: str = "", brief: bool = False) -> Iterator[Visit]:
        """All pages; with ``only``, those of the models whose label contains it.

        ``brief`` leaves out the lists in other orders, filtered or searched.
        """
        for model, pages in sorted(admin.site._registry.items(), key=lambda it: it[0]._meta.label):
            if only in model._meta.label_lower:
                yield from Walk(self, model, pages).all(brief=brief)
        if not only or only in "index":
            yield from self._pages_of_the_site()

    def _pages_of_the_site(self) -> Iterator[Visit]:
        for pattern in admin.site.urls[0]:
            name = pattern.name if isinstance(pattern, URLPattern) else None
            if name and name not in NOT_PAGES:
                with suppress(NoReverseMatch):  # it takes an argument
                    yield self.visit("site", name, reverse(f"admin:{name}"))
        yield from self._dashboard()
        # Only whoever chose the rows sees it, and no list has it.
        for job in BulkJob.objects.filter(started_at=None, asked_by__username=self.who):
            url = reverse("admin:purchases_bulkjob_confirm", args=[job.pk])
            yield self.visit("site", "question before a bulk action", url)

    def _dashboard(self) -> Iterator[Visit]:
        """Its other periods, the event that sells most, and its files."""
        page = reverse("admin:index")
        organizations = Membership.objects.filter(user__username=self.who).values("organization")
        events = Event.objects.order_by("-offers__inventory_sold", "pk")
        if self.who != SUPERUSER:
            events = events.filter(organization__in=organizations)
        event = events.first()
        today = timezone.now().date()
        asked: dict[str, dict[str, Any]] = {
            "of today": {"period": 1},
            "of 7 days": {"period": 7},
            "of an event": {"event": event.pk if event else "", "period": 30},
            "of 90 days": {"period": "days", "since": today - timedelta(days=89), "until": today},
            YEAR: {"period": "days", "since": today - timedelta(days=366), "until": today},
        }
        for kind, query in asked.items():
            yield self.visit("dashboard", kind, f"{page}?{urlencode(query)}")
        for name in FILES:
            file = reverse("admin:dashboard_csv", args=[name])
            yield self.visit("dashboard", "file", file)
            for kind in ("of an event", YEAR):
                yield self.visit("dashboard", f"file {kind}", f"{file}?{urlencode(asked[kind])}")


class Walk:
    """The pages of one model."""

    def __init__(self, visitor: Visitor, model: type[Model], pages: Any) -> None:
        self._visitor = visitor
        self._model = model
        self._pages = pages
        self._base = f"admin:{model._meta.app_label}_{model._meta.model_name}_"

    def all(self, *, brief: bool) -> Iterator[Visit]:
        """The lists first: who may not open them may open nothing of the model."""
        first = self._visit("list", self._list())
        if first.status == 403:
            return
        yield first
        changelist = first.response.context_data["cl"]
        objects = self._some_objects(first.response.wsgi_request)
        yield from self._other_pages(objects)
        if brief:
            return
        yield from self._more_lists(changelist, objects)
        if getattr(self._pages, "search_fields", None):
            yield from self._autocompletes(objects)

    def _visit(self, kind: str, url: str) -> Visit:
        return self._visitor.visit(self._model._meta.label, kind, url)

    def _list(self, **query: Any) -> str:
        return self._address("changelist") + (f"?{urlencode(query, doseq=True)}" if query else "")

    def _address(self, name: str, *arguments: Any) -> str:
        return reverse(f"{self._base}{name}", args=arguments)

    # -- Lists ------------------------------------------------------------------------------------

    def _more_lists(self, changelist: Any, objects: list[Model]) -> Iterator[Visit]:
        pages = changelist.paginator.num_pages
        for number in {2, pages}:
            if 1 < number <= pages:
                yield self._visit("page", self._list(p=number))
        for column, name in enumerate(changelist.list_display):
            if name in changelist.sortable_by and changelist.get_ordering_field(name):
                for direction in ("", "-"):
                    yield self._visit("sorted", self._list(o=f"{direction}{column}"))
        for chosen in self._choices(changelist):
            yield self._visit("filtered", self._list(**chosen))
        for words in self._terms(objects):
            yield self._visit("searched", self._list(q=words))
        for period in self._periods(changelist, objects):
            yield self._visit("of a period", self._list(**period))

    def _choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        for spec in changelist.filter_specs:
            linked = []
            for choice in spec.choices(changelist):
                if "query_string" in choice:
                    linked.append(dict(parse_qsl(choice["query_string"].removeprefix("?"))))
                elif isinstance(choice.get("form"), Form):
                    yield from _filled(choice["form"])
            # The first is "All"; the last are the rarest, or "empty".
            others = [chosen for chosen in linked if chosen]
            yield from others[:VALUES_EACH]
            yield from others[VALUES_EACH:][-1:]

    def _terms(self, objects: list[Model]) -> Iterator[str]:
        """For each field that is searched what one object has there, and its beginning."""
        fields = [str(name).lstrip("=^@") for name in self._pages.search_fields or ()]
        terms = {TRIED_IN_VAIN: None} if fields else {}
        for path in fields:
            for found in objects:
                value = _value(found, path)
                if value:
                    terms[value] = None
                    terms[value.split()[0][:4]] = None
                    break
        yield from terms

    def _periods(self, changelist: Any, objects: list[Model]) -> Iterator[dict[str, Any]]:
        path = changelist.date_hierarchy
        when = next(filter(None, (_attribute(each, path) for each in objects)), None) if path else 0
        if when:
            period = {f"{path}__year": when.year}
            yield dict(period)
            period[f"{path}__month"] = when.month
            yield dict(period)
            period[f"{path}__day"] = when.day
            yield dict(period)

    # -- Objects ----------------------------------------------------------------------------------

    def _some_objects(self, request: HttpRequest) -> list[Model]:
        """The first, the last, and for each kind of thing that belongs to one who has most."""
        visible = self._pages.get_queryset(request)
        found = [visible.order_by("pk").first(), visible.order_by("pk").last()]
        for relation in self._model._meta.related_objects:
            key = relation.field.attname
            most = (
                relation.related_model._default_manager.filter(
                    **{f"{key}__in": visible.order_by().values("pk")}
                )
                .values(key)
                .annotate(many=Count("pk"))
                .order_by("-many")
                .first()
            )
            if most:
                found.append(visible.filter(pk=most[key]).first())
        return list({each.pk: each for each in found if each is not None}.values())

    def _other_pages(self, objects: list[Model]) -> Iterator[Visit]:
        """All that the model's admin has an address for, with nothing or with an object's key."""
        for pattern in _patterns(self._pages.get_urls()):
            name = str(pattern.name or "").removeprefix(self._base.removeprefix("admin:"))
            if not name or name in (*NOT_PAGES, "changelist"):
                continue
            keys = list(pattern.pattern.converters)
            if not keys:
                yield self._visit(name, self._address(name))
            elif len(keys) == 1:
                for each in objects:
                    try:
                        url = reverse(f"admin:{pattern.name}", args=[quote(each.pk)])
                    except NoReverseMatch:
                        continue  # its key is another model's
                    yield self._visit(name, url)

    def _autocompletes(self, objects: list[Model]) -> Iterator[Visit]:
        for source in _those_who_choose(self._model):
            terms = ["", "e", TRIED_IN_VAIN, *(list(self._terms(objects))[1:3])]
            for term in terms:
                query = urlencode({"term": term, **source})
                visit = self._visit("autocomplete", f"{reverse('admin:autocomplete')}?{query}")
                if visit.status != 403:
                    yield visit


def _patterns(found: list[Any]) -> Iterator[URLPattern]:
    for pattern in found:
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns)
        else:
            yield pattern


def _those_who_choose(model: type[Model]) -> Iterator[dict[str, str]]:
    """The first field with an autocomplete that leads to ``model``: all ask the same of it."""
    for owner, pages in admin.site._registry.items():
        classes = (pages, *pages.inlines)
        for name in {name for each in classes for name in each.autocomplete_fields}:
            for asking in (owner, *(inline.model for inline in pages.inlines)):
                fields = {each.name: each for each in asking._meta.get_fields()}
                if name in fields and fields[name].related_model is model:
                    yield {
                        "app_label": asking._meta.app_label,
                        "model_name": asking._meta.model_name or "",
                        "field_name": name,
                    }
                    return


def _filled(form: Form) -> Iterator[dict[str, Any]]:
    """A filter's form with something in it, as a browser would send it."""
    ranges: dict[str, Any] = {}
    for name, asked in form.fields.items():
        if isinstance(asked, ModelChoiceField):
            first = asked.queryset.order_by("pk").first()
            yield {name: first.pk if first else ""}
        elif isinstance(asked, ChoiceField):
            values = [value for value, _ in asked.choices if value not in ("", None)]
            for value in values[:VALUES_EACH]:
                yield {name: value}
        elif isinstance(asked, SplitDateTimeField | DateField):
            day = timezone.now().date() - timedelta(days=90 if name.endswith("_from") else 30)
            split = isinstance(asked, SplitDateTimeField)
            ranges |= {f"{name}_0": day, f"{name}_1": "00:00:00"} if split else {name: day}
        else:
            ranges[name] = 50 if name.endswith("_to") else 5
    if ranges:
        yield ranges


def _attribute(found: Model, path: str) -> Any:
    value: Any = found
    for name in path.split("__"):
        value = getattr(value, name, None)
    return value


def _value(found: Model, path: str) -> str:
    """What the object has at the end of a lookup, as text; a lookup at its end is left out."""
    try:
        get_fields_from_path(type(found), path)
    except Exception:  # noqa: BLE001 - Django raises whatever the last part makes it stumble over
        path = path.rpartition("__")[0]
    return str(_attribute(found, path) or "")
