"""When a service is given, for pages and e-mails: an event has no time zone, so in UTC, by name."""

from datetime import UTC, datetime

from django import template
from django.utils import formats
from django.utils.translation import gettext as _

register = template.Library()

DAY, HOUR = "l, j F Y", "H:i"


@register.filter
def until(starts_at: datetime, ends_at: datetime) -> str:
    """Such as "Monday, 3 June 2030, 10:00 to 10:30 UTC"."""
    start, end = starts_at.astimezone(UTC), ends_at.astimezone(UTC)
    end_format = HOUR if start.date() == end.date() else f"{DAY}, {HOUR}"
    return _("%(start)s to %(end)s UTC") % {
        "start": formats.date_format(start, f"{DAY}, {HOUR}"),
        "end": formats.date_format(end, end_format),
    }
