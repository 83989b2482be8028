"""CSV files for spreadsheets: no cell is run as a formula, and what comes back is what was written.

https://owasp.org/www-community/attacks/CSV_Injection
"""

import csv
import io
import re
from collections.abc import Iterable

from django.http import HttpResponse

# Without it Excel reads no UTF-8.
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
# A sign that begins a formula, also full-width and behind blanks, which some programs drop; and
# what makes a program begin a new cell. Apostrophes before it count, so that none gets lost.
FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """The file: a line that names the columns, and a line a row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return BYTE_ORDER_MARK + text.getvalue()


def response(text: str, *, name: str) -> HttpResponse:
    """A table as a file to save; no cache keeps it, since it names people, or holds codes."""
    return HttpResponse(
        text,
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "private, no-store",
        },
    )


def cell(value: object) -> str:
    """``value`` as text, with an apostrophe before what would be a formula."""
    text = str(value)
    return f"'{text}" if FORMULA.match(text) else text


def uncell(text: str) -> str:
    """What ``cell`` was given: only the apostrophe that it has put there goes."""
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text
