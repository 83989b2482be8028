"""Purchases as a file for a spreadsheet, a row each: any number as CSV, a bounded one as XLSX.

Not made by django-import-export, which has the whole file in memory before it sends any of it, and
would for 200,000 purchases take more of both memory and time than a request has. A CSV file is
sent while it is read, a page of rows at a time, so it takes some megabytes whatever its length, and
no connection to the database while the client is slow to take it. An XLSX file is an archive that
must be finished before it is sent: it is written row by row to a temporary file, and bounded, so
that it is done well before a proxy gives up waiting.

Columns have the API's names; amounts have their currency's digits, times are ISO 8601 in UTC.
"""

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, Any

from django.db import connection
from django.db.models import Q, QuerySet

from offers import money
from offers.spreadsheet import BYTE_ORDER_MARK, cell, for_csv
from purchases.models import Purchase

# Ten seconds on a slow machine. Excel itself would take a million.
XLSX_ROWS = 20_000
CHUNK = 2_000

Columns = dict[str, Callable[[Purchase], object]]


def written(moment: datetime | None) -> str:
    """``2026-11-23T19:22:00Z``, or nothing."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else ""


def _amount(field: str) -> Callable[[Purchase], str]:
    def of(purchase: Purchase) -> str:
        value: Decimal = getattr(purchase, field)
        return money.format_amount(value, purchase.currency)

    return of


def _time(field: str) -> Callable[[Purchase], str]:
    return lambda purchase: written(getattr(purchase, field))


def _text(field: str) -> Callable[[Purchase], object]:
    return lambda purchase: getattr(purchase, field)


COLUMNS: Columns = {
    "id": _text("pk"),
    "offer": _text("offer_id"),
    "offer_title": _text("offer_title"),
    "event": lambda purchase: purchase.event.slug,
    "buyer_name": lambda purchase: purchase.user.get_full_name() or purchase.user.username,
    "buyer_email": lambda purchase: purchase.user.email,
    "quantity": _text("quantity"),
    "unit_price": _amount("unit_price"),
    "total_price": _amount("total_price"),
    "currency": _text("currency"),
    "status": _text("status"),
    "release_reason": _text("release_reason"),
    "reserved_until": _time("reserved_until"),
    "refunded_amount": _amount("refunded_amount"),
    "created_at": _time("created_at"),
    "paid_at": _time("paid_at"),
    "refunded_at": _time("refunded_at"),
    "checkout_session_id": lambda purchase: purchase.checkout_session_id or "",
    "payment_intent_id": _text("payment_intent_id"),
    "problem": _text("problem"),
}


def rows(purchases: QuerySet[Purchase], columns: Columns) -> Iterator[list[str]]:
    """A list of cells each, newest first, read as they are asked for.

    The queryset joins what columns need. Each page of ``CHUNK`` is a query of its own, which begins
    after the last row before; so what changes meanwhile shifts nothing, and no row comes twice.
    Where no transaction is open, the connection goes back to the pool before a page is handed out:
    whoever reads them may take an hour.
    """
    of_each = list(columns.values())
    ordered = purchases.order_by("-created_at", "-pk")
    page = list(ordered[:CHUNK])
    while page:
        if not connection.in_atomic_block:
            connection.close()
        for purchase in page:
            yield [cell(value(purchase)) for value in of_each]
        page = list(ordered.filter(_after(page[-1]))[:CHUNK]) if len(page) == CHUNK else []


def _after(last: Purchase) -> Q:
    """Those that come later in the order; its first half is what the index is entered by."""
    same_moment_or_older = Q(created_at__lte=last.created_at)
    return same_moment_or_older & (Q(created_at__lt=last.created_at) | Q(pk__lt=last.pk))


class _Echo:
    """A file that gives back what is written to it, for ``csv.writer``."""

    def write(self, text: str) -> str:
        return text


def csv_lines(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The file piece by piece."""
    writer: Any = csv.writer(_Echo())
    yield BYTE_ORDER_MARK + writer.writerow(header)
    for row in rows:
        yield writer.writerow(map(for_csv, row))


def xlsx_file(header: Iterable[str], rows: Iterable[Iterable[str]]) -> IO[bytes]:
    """The finished file, at its beginning; whoever closes it deletes it.

    Every cell is text, as in the CSV file: an id that looks like a number stays what it is.
    """
    # Late: see offers/xlsx_format.py.
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Purchases")
    sheet.append(list(header))
    for row in rows:
        # Characters that no XML document may have.
        sheet.append([ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text) for text in row])
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
    book.save(file)
    file.seek(0)
    return file
