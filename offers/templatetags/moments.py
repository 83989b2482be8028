"""Points in time as attendees read them: in words and UTC; on pages ``page.js`` makes local time.

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
    return format_html(
        '<time datetime="{}" data-local="{}">{}</time>',
        value.astimezone(UTC).isoformat(),
        style.partition("_")[0].lower(),
        in_utc(value, style),
    )


@register.filter
def in_utc(value: datetime | None, style: str = "DATETIME_FORMAT") -> str:
    """``{{ purchase.paid_at|in_utc }}``: the words alone, for e-mails; nothing of no time."""
    return "" if value is None else f"{date_format(value.astimezone(UTC), style)} UTC"


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
