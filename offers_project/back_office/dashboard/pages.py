"""The dashboard and its files: a thin edge over the modules beside it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from offers import spreadsheet
from offers.models import Event, Offer
from offers.money import grouped
from offers.scoped_admin import roles_held, visible_to
from offers_project.back_office.dashboard import (
    charts,
    funnel,
    health,
    sales,
    stock,
    waiting,
)
from offers_project.back_office.dashboard.period import Period, Question
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.tables import NOTHING, Table


def asked(request: HttpRequest) -> tuple[Question, Scope]:
    """What the query string asks for, within what the caller may see; nothing is refused."""
    has_offers = Exists(Offer.objects.filter(event=OuterRef("pk")))
    question = Question(
        request.GET,
        events=visible_to(request, Event, admin.site).annotate(has_offers=has_offers),
        today=timezone.now().date(),
    )
    question.is_valid()
    organizations = None if request.user.is_superuser else tuple(roles_held(request))
    return question, Scope(organizations, question.cleaned_data.get("event"))


def context(request: HttpRequest) -> dict[str, Any]:
    """All that `admin/index.html` shows."""
    now = timezone.now()
    question, scope = asked(request)
    sold = sales.of(scope, question.chosen)
    stocks = stock.of(scope, now=now)
    totals = sold.currencies()
    return {
        "title": "Dashboard",
        "question": question.as_answered(),
        "asked": question.query(),
        "period": question.chosen,
        "errors": [error for errors in question.errors.values() for error in errors],
        "cards": [_cards(currency, takings) for currency, takings in totals.items()],
        "orders": sum(takings.orders for takings in totals.values()),
        "units": sum(takings.units for takings in totals.values()),
        "revenue_charts": charts.revenue(sold),
        "units_chart": charts.units(sold),
        "revenue": sales.revenue_table(sold),
        "units_table": sales.units_table(sold),
        "placements": funnel.table(scope, question.chosen),
        "stock": stock.table(stocks, now=now, is_all=False),
        "has_offers": bool(stocks or totals) or _has_offers(scope),
        "may_add_offers": admin.site.get_model_admin(Offer).has_add_permission(request),
        "refunds": waiting.refunds(scope),
        **_waiting(request, scope, now),
    }


def _has_offers(scope: Scope) -> bool:
    if scope.event is not None:
        return bool(scope.event.has_offers)  # type: ignore[attr-defined] # ``asked`` asked for it
    return Offer.objects.filter(scope.of("event")).exists()


def _waiting(request: HttpRequest, scope: Scope, now: datetime) -> dict[str, Any]:
    """What there is at the moment, and what of it needs somebody."""
    holds, fulfilments = waiting.holds(scope, now=now), waiting.fulfilments(scope)
    disputes = waiting.disputes(scope)
    well = health.of(scope, now=now, is_for_superusers=bool(request.user.is_superuser))
    found = (
        disputes.to_answer,
        waiting.problems(scope),
        fulfilments.failed,
        holds.stuck,
        *well.attention,
    )
    return {
        "holds": holds.table,
        "fulfilments": fulfilments.table,
        "disputes": disputes.table,
        "health": well.checks,
        "attention": [each for each in found if each.count],
    }


def _cards(currency: str, takings: sales.Takings) -> dict[str, Any]:
    average = takings.average
    return {
        "currency": currency,
        "net": grouped(takings.net, currency),
        "gross": grouped(takings.gross, currency),
        "refunded": grouped(takings.refunded, currency),
        "orders": takings.orders,
        "units": takings.units,
        "average": NOTHING if average is None else grouped(average, currency),
    }


# By the name in the address; each table of the page, whole.
FILES: dict[str, Callable[[Scope, Period, datetime], Table]] = {
    "revenue": lambda scope, period, now: sales.revenue_table(sales.of(scope, period)),
    "units": lambda scope, period, now: sales.units_table(sales.of(scope, period)),
    "placements": lambda scope, period, now: funnel.table(scope, period),
    "stock": lambda scope, period, now: stock.table(
        stock.of(scope, now=now, limit=None), now=now, is_all=True
    ),
    "holds": lambda scope, period, now: waiting.holds(scope, now=now).table,
    "fulfilments": lambda scope, period, now: waiting.fulfilments(scope).table,
    "refunds": lambda scope, period, now: waiting.refunds(scope),
    "disputes": lambda scope, period, now: waiting.disputes(scope, limit=None).table,
}


def csv_file(request: HttpRequest, name: str) -> HttpResponse:
    """One of the page's tables as a file, for the same event and period."""
    if name not in FILES:
        raise Http404
    question, scope = asked(request)
    if question.errors:
        # A file can't say that it has other figures than those asked for: the page can.
        return redirect(f"{reverse('admin:index')}?{request.GET.urlencode()}")
    table = FILES[name](scope, question.chosen, timezone.now())
    text = spreadsheet.table(table.columns, table.values())
    days = f"{question.chosen.first}_{question.chosen.last}"
    return spreadsheet.response(text, name=f"{name}_{days}.csv")
