"""The files that offers come in: CSV and XLSX, which anybody may have made of anything."""

import base64
import csv
import io
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import tablib
from django.core.signing import TimestampSigner
from import_export.formats import base_formats
from import_export.tmp_storages import BaseStorage

from offers.offer_resource import COLUMNS

LARGEST = 1024 * 1024  # bytes
MOST_ROWS = 2_000
# An XLSX file is a ZIP archive, which may say little and unpack to gigabytes.
LARGEST_UNPACKED = 50 * 1024 * 1024
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


class XlsxFile(base_formats.XLSX):
    def create_dataset(self, in_stream: bytes) -> tablib.Dataset:
        """The first sheet's values; of formulas, what they came to."""
        import openpyxl

        with zipfile.ZipFile(io.BytesIO(in_stream)) as archive:
            if sum(each.file_size for each in archive.infolist()) > LARGEST_UNPACKED:
                raise UnreadableFile("This file is too large: import it in parts.")
        book = openpyxl.load_workbook(io.BytesIO(in_stream), read_only=True, data_only=True)
        return table_of(book.worksheets[0].iter_rows(values_only=True))

    def export_data(self, dataset: tablib.Dataset, **kwargs: Any) -> Any:
        if any(len(value) > LONGEST_CELL for row in dataset for value in row):
            raise ValueError("A description is too long for a cell of XLSX: export as CSV.")
        return super().export_data(dataset, **kwargs)


def table_of(rows: Iterable[Iterable[Any]]) -> tablib.Dataset:
    """The rows under the columns that the first one names; raises ``UnreadableFile``."""
    lines = iter(rows)
    headers = [str(name or "").strip() for name in next(lines, [])]
    while headers and not headers[-1]:
        headers.pop()
    _refuse_columns(headers)
    table = tablib.Dataset(headers=headers)
    for number, line in enumerate(lines, 2):
        cells = list(line)
        if any(each not in (None, "") for each in cells[len(headers) :]):
            raise UnreadableFile(f"Row {number} has more cells than there are columns.")
        if number > MOST_ROWS + 1:
            raise UnreadableFile(f"Import at most {MOST_ROWS:,} rows at a time.")
        cells = cells[: len(headers)]
        table.append(cells + [""] * (len(headers) - len(cells)))
    if not len(table):
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


class SignedUpload(BaseStorage):
    """Keeps an uploaded file between preview and confirmation within the page itself, signed.

    Whatever process answers, on whatever machine: there is no shared disk, and Redis may forget.
    Nothing is left behind by whoever only looks. What the file may do is judged again when it
    comes back, by the rights of who sends it.
    """

    signer = TimestampSigner(salt="offers.sheet_files")

    def save(self, data: bytes) -> None:
        packed = base64.urlsafe_b64encode(zlib.compress(data)).decode()
        self.name = self.signer.sign(packed)

    def read(self) -> bytes:
        """Raises ``BadSignature`` for what we haven't written, or have too long ago."""
        packed = self.signer.unsign(self.name, max_age=PREVIEW_LASTS)
        return zlib.decompress(base64.urlsafe_b64decode(packed))

    def remove(self) -> None:
        """Nothing is kept."""
