"""How the back-office says things: amounts, times, and states as coloured words."""

from datetime import UTC, datetime
from decimal import Decimal

from django.contrib.admin.utils import quote
from django.db.models import Model
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from offers import money
from purchases.models import Dispute, Email, Purchase, Refund
from purchases.states import Status

NOTHING = "–"

# Tones are unfold's: success, info, warning, danger, or none.
STATUS: dict[str, tuple[str, str]] = {
    Status.RESERVED: ("On hold", "warning"),
    Status.AWAITING_PAYMENT: ("Awaiting payment", "warning"),
    Status.PAYMENT_PROCESSING: ("Payment on its way", "info"),
    Status.PAID: ("Paid", "success"),
    Status.REFUND_DUE: ("Refund due", "danger"),
    Status.REFUNDING: ("Refund on its way", "info"),
    Status.REFUNDED: ("Refunded", ""),
    Status.RELEASED: ("Released", ""),
}
REFUND_STATE: dict[str, tuple[str, str]] = {
    Refund.State.REQUESTED: ("Asked for", "warning"),
    Refund.State.PENDING: ("On its way", "info"),
    Refund.State.SUCCEEDED: ("Sent back", "success"),
    Refund.State.FAILED: ("Failed", "danger"),
}
EMAIL_STATE: dict[str, tuple[str, str]] = {
    Email.State.WAITING: ("Waiting", "warning"),
    Email.State.SENT: ("Sent", "success"),
    Email.State.GIVEN_UP: ("Given up", "danger"),
}


def label(words: str, tone: str = "") -> SafeString:
    """Words on a coloured ground; the words alone say it all."""
    return render_to_string("unfold/helpers/label.html", {"text": words, "type": tone})


def status(status: str) -> SafeString:
    return label(*STATUS[status])


def dispute(dispute: Dispute) -> SafeString:
    tone = "danger" if dispute.is_open or dispute.status == "lost" else ""
    return label(in_words(dispute.status), tone)


def in_words(name: str) -> str:
    """``needs_response`` as people write it."""
    return name.replace("_", " ").capitalize()


def amount(value: Decimal | None, currency: str) -> str:
    return NOTHING if value is None else f"{money.grouped(value, currency)} {currency}"


def when(moment: datetime | None) -> str:
    """``23 Nov 2026, 19:22 UTC``."""
    if moment is None:
        return NOTHING
    return moment.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")


def short(moment: datetime) -> str:
    """The same where the column's title says that it is UTC."""
    return moment.astimezone(UTC).strftime("%-d %b %Y, %H:%M")


def two_lines(first: object, second: object) -> SafeString:
    """The second one smaller, and left out where there is none."""
    if not second:
        return format_html("{}", first)
    return format_html('{}<span class="second-line">{}</span>', first, second)


def buyer(purchase: Purchase) -> SafeString:
    """Who it is, and the address that their e-mails go to."""
    user = purchase.user
    return two_lines(user.get_full_name() or user.username, user.email)


def page(thing: Model) -> str:
    """The address of the thing's own page in admin.

    Quoted, because admin unquotes: an id of Stripe's may hold ``_3A``, which is its colon.
    """
    meta = thing._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[quote(thing.pk)])


def to(thing: Model, words: object = None) -> SafeString:
    """A link to the thing's own page in admin."""
    return format_html('<a href="{}">{}</a>', page(thing), thing if words is None else words)
