"""Bookings as CSV, for a spreadsheet."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from fulfillment.bookings.models import ServiceBooking

COLUMNS = (
    "starts (UTC)", "ends (UTC)", "service", "name", "e-mail", "seats", "location", "status",
    "purchase",
)  # fmt: skip
# A cell that begins so is a formula to a spreadsheet, and could do anything there:
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def table(bookings: Iterable[ServiceBooking]) -> str:
    """The bookings a line each, as admin exports them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([cell(value) for value in _row(booking)] for booking in bookings)
    return text.getvalue()


def cell(value: Any) -> str:
    """``value`` as text, with an apostrophe before what would be a formula."""
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _row(booking: ServiceBooking) -> list[Any]:
    purchase = booking.fulfillment.purchase
    user = purchase.user
    return [
        f"{booking.scheduled_at:%Y-%m-%d %H:%M}" if booking.scheduled_at else "",
        f"{booking.ends_at:%Y-%m-%d %H:%M}" if booking.ends_at else "",
        purchase.offer_title,
        user.get_full_name() or user.get_username(),
        user.email,
        purchase.quantity,
        booking.location,
        booking.fulfillment.status,
        purchase.pk,
    ]
