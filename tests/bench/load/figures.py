"""What the rounds come to: medians, ratios to the floors, and whether the goals are reached."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.load.measured import Measured
from tests.bench.load.rows import Comparison, Family, Goal, Row

Results = Mapping[str, Sequence[Measured]]
SLOWER = "times slower on the larger database"
SERVING = ("web", "worker", "PostgreSQL", "Valkey")


def name_of(row: Row | str, database: str) -> str:
    """Of what a row gave on one of the databases."""
    return f"{row if isinstance(row, str) else row.name}, {database}"


@dataclass(frozen=True)
class Figure:
    """A figure in each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def written(self, digits: int = 2) -> str:
        """The median, and how far the rounds were apart."""
        if len(self.rounds) == 1:
            return f"{self.median:,.{digits}f}"
        least, most = min(self.rounds), max(self.rounds)
        return f"{self.median:,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"


@dataclass(frozen=True)
class Judged:
    """A goal, and what was measured."""

    row: str
    what: str
    figure: Figure
    least: float | None
    most: float | None

    @property
    def is_reached(self) -> bool:
        """By the median."""
        value = self.figure.median
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    @property
    def goal(self) -> str:
        """In words."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


def rate(rounds: Sequence[Measured]) -> Figure:
    return Figure(tuple(one.rate for one in rounds))


def ratio(ours: Sequence[Measured], floor: Sequence[Measured]) -> Figure:
    """Rate by rate, round by round: both were measured within the same seconds."""
    return Figure(tuple(one.rate / other.rate for one, other in zip(ours, floor, strict=False)))


def cost(rounds: Sequence[Measured]) -> Figure:
    """Processor time for an answer, of all that serves it, in ms."""
    return Figure(tuple(sum(map(one.cpu_ms, SERVING)) for one in rounds))


def judged(family: Family, results: Results, databases: Sequence[str]) -> Iterator[Judged]:
    """Each goal of the family's rows, as it is with most data, and how much slower they get."""
    for row in family.rows:
        ours = results[name_of(row, databases[-1])]
        for goal in row.goals:
            what = f"ratio to {row.floors[0]}" if goal.figure == "ratio" else goal.figure
            figure = _figure(goal, row, ours, results)
            yield Judged(row.name, what, figure, goal.least, goal.most)
        growth = growth_of(row, results, databases)
        if growth is not None:
            yield Judged(row.name, SLOWER, growth, None, family.growth)
    measured = {row.name for row in family.rows}
    for comparison in family.comparisons:
        if {comparison.base, comparison.row} <= measured:
            figure = _compared(comparison, results, databases[-1])
            yield Judged(comparison.row, comparison.title, figure, None, comparison.most)


def growth_of(row: Row, results: Results, databases: Sequence[str]) -> Figure | None:
    """How many times slower the row is on the last database than on the first."""
    few, many = (results.get(name_of(row, database)) for database in (databases[0], databases[-1]))
    if len(databases) < 2 or not few or not many:
        return None
    return ratio(few, many)


def _figure(goal: Goal, row: Row, ours: Sequence[Measured], results: Results) -> Figure:
    if goal.figure == "ratio":
        return ratio(ours, results[row.floors[0]])
    if goal.figure.startswith("ratio to "):
        return ratio(ours, results[goal.figure.removeprefix("ratio to ")])
    if goal.figure.startswith("CPU ms, "):
        groups = goal.figure.removeprefix("CPU ms, ").split(" and ")
        return Figure(tuple(sum(map(one.cpu_ms, groups)) for one in ours))
    return Figure(tuple(one.also[goal.figure] for one in ours))


def _compared(comparison: Comparison, results: Results, database: str) -> Figure:
    ours, base = (
        cost(results[name_of(name, database)]).rounds for name in (comparison.row, comparison.base)
    )
    return Figure(tuple(one / other for one, other in zip(ours, base, strict=True)))
