"""The columns of an offer in a spreadsheet, and their texts."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any, cast

from offers import money
from offers.models import Offer


def _amount(offer: Offer, name: str) -> str:
    value = getattr(offer, name)
    return "" if value is None else money.format_amount(value, offer.currency)


def _slugs(targets: Any) -> str:
    return ", ".join(sorted(target.slug for target in targets.all()))


def moment_text(value: datetime | None) -> str:
    return "" if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


COLUMNS: dict[str, Callable[[Offer], Any]] = {
    "id": lambda offer: offer.pk,
    "event": lambda offer: offer.event.slug,
    "title": lambda offer: offer.title,
    "description": lambda offer: offer.description,
    "offer_type": lambda offer: offer.offer_type,
    "price": lambda offer: _amount(offer, "price"),
    "original_price": lambda offer: _amount(offer, "original_price"),
    "currency": lambda offer: offer.currency,
    "image_url": lambda offer: offer.image_url,
    "inventory_total": lambda offer: offer.inventory_total,
    "inventory_available": lambda offer: offer.inventory_available,
    "inventory_reserved": lambda offer: offer.inventory_reserved,
    "inventory_sold": lambda offer: offer.inventory_sold,
    "max_per_user": lambda offer: offer.max_per_user,
    "placement": lambda offer: offer.placement,
    "target_sessions": lambda offer: _slugs(offer.target_sessions),
    "target_ticket_tiers": lambda offer: _slugs(offer.target_ticket_tiers),
    "ticket_tier": lambda offer: offer.ticket_tier and offer.ticket_tier.slug,
    "shipping_countries": lambda offer: ", ".join(offer.shipping_countries),
    "allows_collection": lambda offer: offer.allows_collection,
    "starts_at": lambda offer: moment_text(offer.starts_at),
    "expires_at": lambda offer: moment_text(offer.expires_at),
    "is_active": lambda offer: offer.is_active,
    "is_archived": lambda offer: offer.is_archived,
    "created_at": lambda offer: moment_text(offer.created_at),
    "updated_at": lambda offer: moment_text(offer.updated_at),
}
# Written for whoever reads the file, and passed over when it comes back.
ONLY_WRITTEN = {
    "inventory_available", "inventory_reserved", "inventory_sold", "created_at", "updated_at",
}  # fmt: skip
LISTS = {"target_sessions", "target_ticket_tiers", "shipping_countries"}
NULL_IF_EMPTY = {
    "original_price", "inventory_total", "max_per_user", "ticket_tier", "starts_at", "expires_at",
}  # fmt: skip


def text_of(value: Any) -> str:
    """A cell's value as this module writes it; programs make numbers, times and truths of texts."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return moment_text(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return moment_text(datetime.combine(value, time(), tzinfo=UTC))
    return str(value)


def printable(text: str) -> str:
    """``text`` without the characters that no XML document, and so no XLSX file, may have."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # late: see offers/xlsx_format.py

    return cast("str", ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text))


def same(text: str) -> str:
    """Programs write the ends of lines in their own way."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n"))
