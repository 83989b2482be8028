"""The packing list as a file, and the file that comes back with tracking numbers in it."""

import csv
import io
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db.models import QuerySet

from fulfillment.shipping import addresses, stages
from fulfillment.shipping.errors import InvalidShipment, OrderNotFound
from fulfillment.shipping.models import ShippingOrder
from offers import countries, spreadsheet
from offers.errors import DomainError

COLUMNS = (
    "purchase", "paid_at", "event", "offer", "quantity", "delivery_method", *addresses.PARTS,
    "country_name", "carrier", "tracking_number", "tracking_url",
)  # fmt: skip
# What a spreadsheet makes of a long number: its last digits are lost.
ROUNDED = re.compile(r"\d+([.,]\d+)?E\+?\d+", re.IGNORECASE)
# A larger file is none of ours.
LARGEST = 2_000_000
MOST_ROWS = 1_000


def to_pack(among: QuerySet[ShippingOrder]) -> QuerySet[ShippingOrder]:
    """Those that are in the organizer's hands and to be had, first paid first: a query in all."""
    return (
        among.filter(stages.OUTSTANDING)
        .select_related("fulfillment__purchase__event", "fulfillment__purchase__user")
        .order_by("fulfillment__paid_at", "pk")
    )


def as_csv(listed: QuerySet[ShippingOrder]) -> str:
    """One row an order."""
    return spreadsheet.table(COLUMNS, _rows(listed))


def _rows(listed: QuerySet[ShippingOrder]) -> Iterator[list[str]]:
    for order in listed.iterator(chunk_size=500):
        purchase = order.fulfillment.purchase
        facts = {
            "purchase": str(purchase.pk),
            "paid_at": f"{order.fulfillment.paid_at:%Y-%m-%dT%H:%M:%SZ}",
            "event": purchase.event.title,
            "offer": purchase.offer_title,
            "quantity": str(purchase.quantity),
            "delivery_method": order.method,
            "country_name": countries.name(order.country),
        }
        yield [facts[column] if column in facts else getattr(order, column) for column in COLUMNS]


@dataclass(frozen=True)
class Line:
    """A line of a file of tracking numbers, as it was written."""

    number: int
    purchase: str
    carrier: str
    tracking_number: str
    tracking_url: str


def read_tracking(content: bytes) -> list[Line]:
    """The lines with a number of a CSV file with columns purchase, carrier and tracking_number.

    The packing list itself will do; a line without a number is not shipped yet, whatever else is
    in it, since many a spreadsheet has the carrier in every row. Called by the page of the upload.
    Raises ``InvalidShipment`` for what is no such file, before anything is done.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidShipment("file", "Save the file as CSV in UTF-8.") from None
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first else ",")
    try:
        missing = {"purchase", "carrier", "tracking_number"} - set(rows.fieldnames or ())
        if missing:
            named = ", ".join(sorted(missing))
            raise InvalidShipment("file", f"The first line must name the columns; {named} missing.")
        lines = [_line(number, row) for number, row in enumerate(rows, start=2)]
    except csv.Error as error:
        raise InvalidShipment("file", f"This is no CSV file: {error}.") from error
    if len(lines) > MOST_ROWS:
        raise InvalidShipment("file", f"This has more than {MOST_ROWS} lines: split it.")
    return [line for line in lines if line.tracking_number]


def _line(number: int, row: dict[str, str | None]) -> Line:
    def cell(column: str) -> str:
        return spreadsheet.uncell(row.get(column) or "").strip()

    return Line(
        number, cell("purchase"), cell("carrier"), cell("tracking_number"), cell("tracking_url")
    )


def apply_tracking(
    lines: list[Line],
    *,
    among: QuerySet[ShippingOrder],
    ship: Callable[[int, Line], object],
) -> Iterator[tuple[Line, str]]:
    """Ship each line's order, found ``among`` the caller's; yield those refused, and why.

    Each line is a transaction of its own: what was right stays done.
    """
    named = {_purchase_id(line.purchase) for line in lines} - {None}
    found = among.filter(fulfillment__purchase__in=named)
    order_of: dict[uuid.UUID | None, int] = {
        purchase: pk for pk, purchase in found.values_list("pk", "fulfillment__purchase")
    }
    for line in lines:
        try:
            if ROUNDED.fullmatch(line.tracking_number):
                raise InvalidShipment(
                    "tracking_number",
                    "The spreadsheet has rounded this number: format its column as text.",
                )
            order_id = order_of.get(_purchase_id(line.purchase))
            if order_id is None:
                raise OrderNotFound
            ship(order_id, line)
        except DomainError as refusal:
            yield line, str(refusal)


def _purchase_id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
