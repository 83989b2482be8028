"""The years, months and days above a list, in place of Django's ``date_hierarchy``."""

import calendar
from collections.abc import Callable
from datetime import date
from typing import Any

from django import template
from django.utils import formats, timezone
from django.utils.text import capfirst

register = template.Library()

# Any one: it has all the days that there are in some year.
LEAP_YEAR = 2000


@register.inclusion_tag("admin/date_hierarchy.html")
def periods(cl: Any) -> dict[str, Any]:
    """All periods from the first row to the last, also those without any.

    Django's shows only periods with rows, for which it reads every row that the list is of. This
    one reads two, by the index on the date, and none of the filters change it.
    """
    span = _span(cl)
    if span is None:
        return {"show": False}
    path = cl.date_hierarchy

    def link(*units: int) -> str:
        names = ("year", "month", "day")
        wanted = {f"{path}__{name}": unit for name, unit in zip(names, units, strict=False)}
        return str(cl.get_query_string(wanted, [f"{path}__"]))

    year, month, day = _chosen(cl, span)
    if year is None:
        return {"show": True, "back": None, "choices": _years(span, link)}
    if month is None:
        return {
            "show": True,
            "back": _back("All dates", link()),
            "choices": _months(span, year, link),
        }
    if day is None:
        return {
            "show": True,
            "back": _back(str(year), link(year)),
            "choices": _days(span, year, month, link),
        }
    of = date(year, month, day)
    back = _back(_title(of, "YEAR_MONTH_FORMAT"), link(year, month))
    return {"show": True, "back": back, "choices": [{"title": _title(of, "MONTH_DAY_FORMAT")}]}


def _chosen(cl: Any, span: tuple[date, date]) -> tuple[int | None, int | None, int | None]:
    """The address's year, month and day, as far as there is such a day: 29 February isn't always.

    Where all rows are of one year, that one needs no choosing.
    """
    units = [cl.params.get(f"{cl.date_hierarchy}__{unit}") for unit in ("year", "month", "day")]
    try:
        year, month, day = (int(unit) if unit else None for unit in units)
        if year is None and span[0].year == span[1].year:
            year = span[0].year
        date(year or LEAP_YEAR, month or 1, day or 1)
    except (ValueError, OverflowError):
        return None, None, None
    return year, month, day


def _span(cl: Any) -> tuple[date, date] | None:
    """The days of the first and the last row that the caller may see."""
    path = cl.date_hierarchy
    dated = cl.root_queryset.filter(**{f"{path}__isnull": False}).order_by(path)
    moments = dated.values_list(path, flat=True)
    first, last = moments.first(), moments.last()
    if first is None:
        return None
    return timezone.localdate(first), timezone.localdate(last)


def _years(span: tuple[date, date], link: Callable[..., str]) -> list[dict[str, str]]:
    years = range(span[0].year, span[1].year + 1)
    return [{"link": link(year), "title": str(year)} for year in years]


def _months(span: tuple[date, date], year: int, link: Callable[..., str]) -> list[dict[str, str]]:
    first, last = (day.replace(day=1) for day in span)
    return [
        {"link": link(year, month), "title": _title(date(year, month, 1), "YEAR_MONTH_FORMAT")}
        for month in range(1, 13)
        if first <= date(year, month, 1) <= last
    ]


def _days(
    span: tuple[date, date], year: int, month: int, link: Callable[..., str]
) -> list[dict[str, str]]:
    of = (date(year, month, day + 1) for day in range(calendar.monthrange(year, month)[1]))
    return [
        {"link": link(year, month, day.day), "title": _title(day, "MONTH_DAY_FORMAT")}
        for day in of
        if span[0] <= day <= span[1]
    ]


def _back(title: str, link: str) -> dict[str, str]:
    return {"title": title, "link": link}


def _title(day: date, form: str) -> str:
    return str(capfirst(formats.date_format(day, form)))
