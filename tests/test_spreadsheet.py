"""CSV files: no formula gets out, and nothing that staff typed gets lost."""

import csv
import io
from itertools import product

import pytest

from offers import spreadsheet


@pytest.mark.parametrize(
    "formula",
    [
        "=1+1", "+49 30", "-2", "@SUM(A1)", " =1", "\u00a0=1", "\u3000=1", "\t=1", "\tx", "\rx",
        "\nx",
        "\r\n=1", "＝1", "＋1", "－1", "＠SUM(A1)", " ＝1", "'=1", "''=1",
    ],
)  # fmt: skip
def test_cell_is_no_formula(formula: str) -> None:
    assert spreadsheet.cell(formula) == f"'{formula}"


@pytest.mark.parametrize("text", ["Ada", "a=b", "", " ", "'", "O'Hara", "'s-Gravenhage", "1-2", 3])
def test_cell_that_is_no_formula_stays_as_it_is(text: object) -> None:
    assert spreadsheet.cell(text) == str(text)


def test_what_was_written_is_read_again_to_the_last_apostrophe() -> None:
    for parts in product(
        ["", "'", "''", " ", "\t"], ["", "'", " "], ["=", "＝", "0", "a", ""], ["1"]
    ):
        text = "".join(parts)
        assert spreadsheet.uncell(spreadsheet.cell(text)) == text
    assert spreadsheet.uncell("'00340") == "'00340"


def test_table_has_the_mark_that_excel_needs_and_only_inert_cells() -> None:
    written = spreadsheet.table(["name", "seats"], [["=1", 2], ["Zoë", None]])
    assert written.startswith("\ufeff")
    read = list(csv.reader(io.StringIO(written.removeprefix("\ufeff"), newline="")))
    assert read == [["name", "seats"], ["'=1", "2"], ["Zoë", "None"]]


def test_file_is_kept_by_no_cache() -> None:
    answer = spreadsheet.response("a", name="some.csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="some.csv"'
    assert "no-store" in answer.headers["Cache-Control"]
