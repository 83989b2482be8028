"""When a service is given, for pages and e-mails: an event has no time zone, so in UTC, by name."""

from datetime import UTC, datetime

from django import template
from django.utils import formats
from django.utils.translation import gettext as _

register = template.Library()


@register.filter
def until(starts_at: datetime, ends_at: datetime) -> str:
    """Such as "Monday, June 3, 2030, 10 a.m. to 10:30 a.m. UTC", in the reader's language."""
    start, end = starts_at.astimezone(UTC), ends_at.astimezone(UTC)
    ends = _hour(end) if start.date() == end.date() else _day_and_hour(end)
    return _("%(start)s to %(end)s UTC") % {"start": _day_and_hour(start), "end": ends}


@register.filter
def on_weekday(moment: datetime) -> str:
    """Such as "Monday, June 3, 2030, 10 a.m. UTC", in the reader's language."""
    return f"{_day_and_hour(moment.astimezone(UTC))} UTC"


def _day_and_hour(moment: datetime) -> str:
    return _("%(weekday)s, %(day)s, %(hour)s") % {
        "weekday": formats.date_format(moment, "l"),
        "day": formats.date_format(moment, "DATE_FORMAT"),
        "hour": _hour(moment),
    }


def _hour(moment: datetime) -> str:
    return formats.date_format(moment, "TIME_FORMAT")
