"""The files that offers come in: CSV and XLSX, which anybody may have made of anything."""

import base64
import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import tablib
from django.core.signing import TimestampSigner
from import_export.formats import base_formats
from import_export.tmp_storages import BaseStorage

from offers.offer_columns import COLUMNS, printable
from offers.spreadsheet import for_csv

LARGEST = 1024 * 1024  # bytes
MOST_ROWS = 2_000
# Those without content count too: programs keep a format for rows that nobody filled in.
MOST_ROWS_READ = 20_000
# What is further to the right is no column of ours.
MOST_COLUMNS = 100
# An XLSX file is a ZIP archive, which may say little and unpack to gigabytes. All but the cells is
# made into objects as it is opened, in ten seconds a megabyte.
LARGEST_UNPACKED = 8 * 1024 * 1024
LARGEST_CELLS = 5 * 1024 * 1024
LARGEST_OTHER = 200 * 1024
CELLS = re.compile(r"xl/(worksheets/[^/]+|sharedStrings)\.xml")
# Where every program puts it; a worksheet's place would have a worksheet's bound.
WORKBOOK = "xl/workbook.xml"
# Seconds that a preview is good for.
PREVIEW_LASTS = 3600
# Excel writes no more into a cell, and cuts off the rest without a word.
LONGEST_CELL = 32_767


class UnreadableFile(ValueError):
    """Says what is wrong with the file as a whole."""


class CsvFile(base_formats.CSV):
    def create_dataset(self, in_stream: bytes | str, **kwargs: Any) -> tablib.Dataset:
        text = in_stream.decode("utf-8-sig") if isinstance(in_stream, bytes) else in_stream
        if "\x00" in text:
            raise UnreadableFile("This isn't a CSV file in UTF-8: save it as one.")
        first = text.partition("\n")[0]
        # What stands between the columns: Excel takes what the country of its user has.
        separator = max(",;\t", key=first.count)
        return table_of(csv.reader(io.StringIO(text, newline=""), delimiter=separator))

    def export_data(self, dataset: tablib.Dataset, **kwargs: Any) -> Any:
        table = tablib.Dataset(headers=dataset.headers)
        for row in dataset:
            table.append([for_csv(value) for value in row])
        return super().export_data(table, **kwargs)


class XlsxFile(base_formats.XLSX):
    def create_dataset(self, in_stream: bytes) -> tablib.Dataset:
        """The first sheet's values; of formulas, what they came to."""
        import openpyxl

        with zipfile.ZipFile(io.BytesIO(in_stream)) as archive:
            _refuse_bomb(archive)
        book = openpyxl.load_workbook(
            io.BytesIO(in_stream), read_only=True, data_only=True, keep_links=False
        )
        return table_of(book.worksheets[0].iter_rows(values_only=True, max_col=MOST_COLUMNS))

    def export_data(self, dataset: tablib.Dataset, **kwargs: Any) -> Any:
        """Raises ``ValueError`` that names the offer which doesn't fit."""
        place = dataset.headers.index("title")
        table = tablib.Dataset(headers=dataset.headers)
        for row in dataset:
            if any(len(value) > LONGEST_CELL for value in row):
                raise ValueError(
                    f"“{row[place]}” has a description that is too long for a cell of XLSX: "
                    "export as CSV."
                )
            table.append([printable(value) for value in row])
        return super().export_data(table, **kwargs)


def _refuse_bomb(archive: zipfile.ZipFile) -> None:
    """Raise ``UnreadableFile`` for what would take long to open; nothing is unpacked for that.

    A part that is larger than the archive says is cut off there as it is read.
    """
    parts = archive.infolist()
    is_too_large = sum(part.file_size for part in parts) > LARGEST_UNPACKED or any(
        part.file_size > (LARGEST_CELLS if CELLS.fullmatch(part.filename) else LARGEST_OTHER)
        for part in parts
    )
    if is_too_large:
        raise UnreadableFile(
            "This file is too large: save only the rows, without pictures, as XLSX or CSV, or "
            "import it in parts."
        )
    if WORKBOOK not in archive.namelist():
        raise UnreadableFile("This isn't an XLSX file as programs write them.")


def table_of(rows: Iterable[Iterable[Any]]) -> tablib.Dataset:
    """The rows under the columns that the first one names; raises ``UnreadableFile``."""
    lines = iter(rows)
    headers = [str(name or "").strip() for name in next(lines, [])]
    while headers and not headers[-1]:
        headers.pop()
    _refuse_columns(headers)
    table = tablib.Dataset(headers=headers)
    filled = 0
    for number, line in enumerate(lines, 2):
        if number > MOST_ROWS_READ + 1:
            raise UnreadableFile(f"Delete the empty rows: at most {MOST_ROWS_READ:,} are read.")
        cells = list(line)
        if all(each in (None, "") for each in cells):
            continue
        filled += 1
        if filled > MOST_ROWS:
            raise UnreadableFile(f"Import at most {MOST_ROWS:,} rows at a time.")
        if any(each not in (None, "") for each in cells[len(headers) :]):
            raise UnreadableFile(f"Row {number} has more cells than there are columns.")
        while len(table) < number - 2:  # empty ones between, so that errors have the right number
            table.append([""] * len(headers))
        cells = cells[: len(headers)]
        table.append(cells + [""] * (len(headers) - len(cells)))
    if not filled:
        raise UnreadableFile("There is nothing in this file but the names of columns.")
    return table


def _refuse_columns(headers: list[str]) -> None:
    if not headers:
        raise UnreadableFile("This file is empty: its first row has to name the columns.")
    unknown = [name for name in headers if name not in COLUMNS]
    if unknown:
        named = ", ".join(f"“{name[:50]}”" for name in unknown[:10])
        raise UnreadableFile(
            f"There is no column {named}. The first row names the columns, as an export does: "
            f"{', '.join(COLUMNS)}."
        )
    twice = sorted({name for name in headers if headers.count(name) > 1})
    if twice:
        raise UnreadableFile(f"Several columns are called {', '.join(twice)}.")
    if not {"id", "title"} & set(headers):
        raise UnreadableFile("A column “id” is missing (to change offers), or “title” (for new).")


@dataclass(frozen=True)
class Previewed:
    """A file that was previewed, kept until it is confirmed within the page itself, signed.

    Whatever process answers, on whatever machine: there is no shared disk, and Redis may forget.
    Nothing is left behind by whoever only looks. What the file may do is judged again when it
    comes back, by the rights of who sends it.
    """

    kind: str
    user: int
    # As text: the one confirmation that it is good for.
    nonce: str
    # Offer that the file changes -> when it had been changed last as the preview showed it.
    shown: dict[str, str]

    def signed(self, file: bytes) -> str:
        packed = zlib.compress(json.dumps(asdict(self)).encode() + b"\n" + file)
        return _signer.sign(base64.urlsafe_b64encode(packed).decode())

    @classmethod
    def read(cls, text: str) -> tuple["Previewed", bytes]:
        """Raises ``BadSignature`` for what we haven't written, or have too long ago."""
        packed = _signer.unsign(text, max_age=PREVIEW_LASTS)
        about, _, file = zlib.decompress(base64.urlsafe_b64decode(packed)).partition(b"\n")
        return cls(**json.loads(about)), file


_signer = TimestampSigner(salt="offers.sheet_files")


class Upload(BaseStorage):
    """An uploaded file while it is previewed, as import-export asks for it."""

    def save(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data
