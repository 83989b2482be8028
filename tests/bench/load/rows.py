"""What the table is made of: pieces of work, ours and the floors they are measured against."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.load.bench import Bench
from tests.bench.load.measured import Measured

# Measures one round.
Work = Callable[[Bench], Measured]
# The same on one of the databases.
WorkOn = Callable[[Bench, str], Measured]


@dataclass(frozen=True)
class Floor:
    """Something simpler that bounds what can be had: measured in every round with the rows."""

    name: str
    title: str
    work: Work


@dataclass(frozen=True)
class Goal:
    """What a figure should be: ``ratio``, ``ratio to <floor>``, or one that ``figures`` knows."""

    figure: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """A piece of the service's work. ``floors`` are names, the first one that of the ratio.

    It is measured on each database, but one with its own number of rounds only on the largest.
    """

    name: str
    title: str
    work: WorkOn
    floors: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    # Fewer than of others, where each takes long.
    rounds: int | None = None


@dataclass(frozen=True)
class Comparison:
    """That a row should cost no more than so many times what another one does."""

    title: str
    base: str
    row: str
    most: float


@dataclass(frozen=True)
class Family:
    """Rows that are measured in turn, with the floors that they share.

    ``growth`` is how many times slower they may be on the large database than on the small one.
    """

    rows: tuple[Row, ...]
    floors: tuple[Floor, ...]
    comparisons: tuple[Comparison, ...] = ()
    growth: float = 1.3
