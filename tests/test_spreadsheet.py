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


@pytest.mark.parametrize(
    "text",
    [
        "Anna;=1+cmd|' /C calc'!A0;", "Anna;\"=1;", "Anna; \"\" =1;", "Anna\t=1\t", "Anna\n=1;",
        "Anna\r\n-1;", "Anna;;＝1;", "Anna;\t=1", " \t=1", "\n\n=1;", "a,b;@SUM(A1);", ";+1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_formula_begins_where_a_program_splits_a_cell_of_a_csv(
    text: str, separator: str
) -> None:
    written = spreadsheet.table(["name", "seats"], [[2, text], [text, 3]])
    for line in csv.reader(io.StringIO(written, newline=""), delimiter=separator):
        for read in line:
            assert read.strip().strip('"').strip()[:1] not in [*"=+-@＝＋－＠"], line


@pytest.mark.parametrize("text", ["a;b", "5,- EUR", "a, -1", "a;b=1", "a\nb - c", "Q;'n"])
def test_csv_cell_that_is_no_formula_wherever_it_is_split_stays_as_it_is(text: str) -> None:
    assert spreadsheet.for_csv(spreadsheet.cell(text)) == text


def test_cell_of_a_file_that_no_program_splits_is_marked_at_its_beginning_only() -> None:
    assert spreadsheet.cell("Anna;=1\n- a") == "Anna;=1\n- a"


def test_what_was_written_is_read_again_to_the_last_apostrophe() -> None:
    beginnings = product(["", "'", "''", " ", "\t"], ["", "'", " "], ["=", "＝", "0", "a", ""])
    for beginning, rest in product(map("".join, beginnings), ["", ";", "\n", "\r\n'"]):
        for text in (f"{beginning}1", f"{beginning}{rest}{beginning}1", f'a{rest}"{beginning}'):
            written = spreadsheet.cell(text)
            assert spreadsheet.uncell(written) == text
            assert spreadsheet.uncell(spreadsheet.for_csv(written)) == text
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
