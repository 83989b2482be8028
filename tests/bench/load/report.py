"""What was measured, in words, as a table and as a picture."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from tests.bench.load.measured import GROUPS, Measured
from tests.bench.load.rows import Row

Results = Mapping[str, Sequence[Measured]]


def name_of(row: Row, database: str) -> str:
    """Of what a row gave on one of the databases."""
    return f"{row.name}, {database}"


def summary(row: Row, databases: Sequence[str], results: Results) -> str:
    """A row and its floors, as medians of the rounds with their spread."""
    names = [name_of(row, database) for database in databases if name_of(row, database) in results]
    names += row.floors
    lines = [f"{row.name}: {row.title}", *(f"  {_medians(name, results[name])}" for name in names)]
    for database in databases:
        ours = results.get(name_of(row, database), ())
        for floor in row.floors:
            if ours:
                ratio = spread(ratios(ours, results[floor]))
                lines.append(f"  {row.name}, {database} / {floor}: {ratio}")
    return "\n".join(lines)


def ratios(ours: Sequence[Measured], floor: Sequence[Measured]) -> list[float]:
    """Rate by rate, round by round: both were measured within the same seconds."""
    return [one.rate / other.rate for one, other in zip(ours, floor, strict=False)]


def spread(figures: Iterable[float], form: Callable[[float], str] = "{:.2f}".format) -> str:
    """The median, and how far the rounds were apart."""
    values = sorted(figures)
    return f"{form(statistics.median(values))} ({form(values[0])} to {form(values[-1])})"


def _medians(name: str, rounds: Sequence[Measured]) -> str:
    rate = spread((one.rate for one in rounds), "{:.0f}".format)
    slow = [statistics.median(one.percentile(p) * 1000 for one in rounds) for p in (50, 95)]
    cpu = ", ".join(
        f"{group} {statistics.median(one.cpu_ms(group) for one in rounds):.2f}" for group in GROUPS
    )
    share = statistics.median(one.clients_share for one in rounds)
    return (
        f"{name}: {rate}/s, p50 {slow[0]:.0f} ms, p95 {slow[1]:.0f} ms; "
        f"CPU ms an answer: {cpu}; the clients took {share:.1%}"
    )
