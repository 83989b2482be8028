"""What a row gave, in words for the terminal."""

import statistics
from collections.abc import Sequence

from tests.bench.load import figures
from tests.bench.load.figures import Results, name_of
from tests.bench.load.measured import GROUPS, Measured
from tests.bench.load.rows import Row


def summary(row: Row, databases: Sequence[str], results: Results) -> str:
    """A row and its floors, as medians of the rounds with their spread."""
    ours = {
        database: results[name_of(row, database)]
        for database in databases
        if results.get(name_of(row, database))
    }
    lines = [f"{row.name}: {row.title}"]
    lines += [f"  {_medians(database, rounds)}" for database, rounds in ours.items()]
    lines += [f"  {_medians(floor, results[floor])}" for floor in row.floors]
    lines += [
        f"  {database} / {floor}: {figures.ratio(rounds, results[floor]).written()}"
        for database, rounds in ours.items()
        for floor in row.floors
    ]
    return "\n".join(lines)


def _medians(name: str, rounds: Sequence[Measured]) -> str:
    slow = [statistics.median(one.percentile(p) * 1000 for one in rounds) for p in (50, 95)]
    cpu = [(group, statistics.median(one.cpu_ms(group) for one in rounds)) for group in GROUPS]
    shown = ", ".join(f"{group} {spent:.2f}" for group, spent in cpu if spent >= 0.005)
    share = statistics.median(one.clients_share for one in rounds)
    return (
        f"{name}: {figures.rate(rounds).written(0)}/s, p50 {slow[0]:.0f} ms, p95 {slow[1]:.0f} ms; "
        f"CPU ms an answer: {shown or 'none'}; the clients took {share:.1%}"
    )
