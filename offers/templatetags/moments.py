"""Points in time on attendees' pages: in words and UTC, which ``page.js`` makes local time of.

An event has no time zone of its own, and what a server thinks of a visitor's may be wrong: the
browser knows it.
"""

from datetime import UTC, datetime

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

register = template.Library()


@register.simple_tag
def moment(value: datetime, style: str = "DATETIME_FORMAT") -> SafeString:
    """``{% moment purchase.paid_at %}``: `3 June 2030, 10:00 UTC`, in the reader's language.

    ``style`` is one of Django's format names, or "TIME_FORMAT" for the hour alone.
    """
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-local="{}">{} UTC</time>',
        utc.isoformat(),
        style.partition("_")[0].lower(),
        date_format(utc, style),
    )


@register.simple_tag
def time_left(until: datetime) -> SafeString:
    """``{% time_left purchase.reserved_until %}``: counted down by ``page.js``.

    Without it, until when.
    """
    utc, now = until.astimezone(UTC), timezone.now()
    style = "TIME_FORMAT" if utc.date() == now.date() else "DATETIME_FORMAT"
    said = _("until %(time)s UTC") % {"time": date_format(utc, style)}
    return format_html(
        # The server's clock goes with it: a visitor's may be minutes off.
        '<time datetime="{0}" data-until="{0}" data-now="{1}">{2}</time>',
        utc.isoformat(),
        now.isoformat(),
        said,
    )
