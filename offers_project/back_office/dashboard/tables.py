"""Tables of figures: the page shows what the CSV file has, since both are made of one of these."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from offers.money import format_amount, grouped

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """``value`` is what the file has, ``text`` the same for people."""

    value: object
    text: str = ""
    link: str = ""
    is_number: bool = False
    # Of 1: a bar below the figure.
    share: Decimal | None = None

    def __str__(self) -> str:
        return self.text or str(self.value)


Row = Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """``name`` is its address and the name of its file; ``about`` says what each column counts."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    about: str = ""
    empty: str = "Nothing."
    # A last row that sums the others up; the file leaves it out.
    totals: Row = field(default=())

    def values(self) -> list[list[object]]:
        return [[cell.value for cell in row] for row in self.rows]


def text(value: object, *, link: str = "") -> Cell:
    return Cell(value, link=link)


def count(value: int, *, link: str = "") -> Cell:
    return Cell(value, f"{value:,}", link=link if value else "", is_number=True)


def amount(value: Decimal, currency: str) -> Cell:
    plain = format_amount(value, currency)
    return Cell(plain, grouped(value, currency), is_number=True)


def rate(part: int, whole: int) -> Cell:
    """``part`` of ``whole`` in percent, with a bar; a dash where there is no whole."""
    if not whole:
        return Cell("", NOTHING, is_number=True)
    share = Decimal(part) / Decimal(whole)
    return Cell(
        f"{share * 100:.1f}", f"{share * 100:.1f} %", is_number=True, share=min(share, Decimal(1))
    )
