"""Bookings as CSV, for a spreadsheet."""

from collections.abc import Iterable
from typing import Any

from fulfillment.bookings.models import ServiceBooking
from offers import spreadsheet

COLUMNS = (
    "starts (UTC)", "ends (UTC)", "service", "name", "e-mail", "seats", "location", "status",
    "purchase",
)  # fmt: skip


def table(bookings: Iterable[ServiceBooking]) -> str:
    """The bookings a line each, as admin exports them."""
    return spreadsheet.table(COLUMNS, map(_row, bookings))


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
