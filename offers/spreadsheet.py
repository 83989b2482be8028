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
SIGN = r"[=+\-@＝＋－＠]"
# A sign that begins a formula, also full-width and behind blanks, which some programs drop; and
# what makes a program begin a new cell. Apostrophes before it count, so that none gets lost.
FORMULA = re.compile(rf"'*(\s*{SIGN}|[\t\r\n])")
# Where Excel's list separator is no comma, in German for one, it takes our commas for text and
# begins a cell at these instead. Quotes of ours don't hold it back, since none begins a cell then;
# and those in the text may: it drops them.
SPLIT = r"([;\t\r\n])"
DROPPED = r'(?:"|[^\S\t\r\n])*'
BARE = re.compile(rf"{SPLIT}(?={DROPPED}{SIGN})")
MARKED = re.compile(rf"{SPLIT}'(?='*{DROPPED}{SIGN})")


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """The file: a line that names the columns, and a line a row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([for_csv(cell(value)) for value in row] for row in rows)
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
    """``value`` as text, with an apostrophe before what would be a formula: a cell of any file."""
    text = str(value)
    text = f"'{text}" if FORMULA.match(text) else text
    # One more where ``uncell`` would take one for that of ``for_csv``.
    return MARKED.sub(r"\1''", text)


def for_csv(text: str) -> str:
    """A ``cell`` with an apostrophe before what would be a formula if a program split it."""
    return BARE.sub(r"\1'", text)


def uncell(text: str) -> str:
    """What ``cell`` was given: only the apostrophes that it and ``for_csv`` have put there go.

    Of every file: what was exported as CSV may come back as XLSX.
    """
    text = MARKED.sub(r"\1", text)
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text
