"""The picture in the documentation: each ratio with its goal, and where processor time goes."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.load import figures
from tests.bench.load.figures import Results, name_of
from tests.bench.load.rows import Family, Row

# By process, in colours that people with any kind of sight tell apart (Okabe and Ito).
COLOURS = {
    "web": "#0072B2",
    "worker": "#56B4E9",
    "PostgreSQL": "#E69F00",
    "Valkey": "#D55E00",
    "Stripe": "#CC79A7",
    "clients": "#999999",
}


REACHED, MISSED, NO_GOAL = "#009E73", "#D55E00", "#BBBBBB"
WHISKERS = {"elinewidth": 1, "capsize": 2}


def draw(families: Sequence[Family], results: Results, database: str, path: Path) -> None:
    """Write it as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for family in families for row in family.rows]
    with_floor = [row for row in rows if row.floors]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 1.6 + 0.42 * len(rows)), layout="constrained"
    )
    _ratios(left, with_floor, results, database)
    _cpu(right, rows, results, database)
    figure.savefig(path, dpi=110, metadata={"Software": ""})
    plt.close(figure)


def _ratios(axes: Any, rows: Sequence[Row], results: Results, database: str) -> None:
    for place, row in enumerate(rows):
        floor = row.floors[0]
        ratio = figures.ratio(results[name_of(row, database)], results[floor])
        spread = [[ratio.median - min(ratio.rounds)], [max(ratio.rounds) - ratio.median]]
        goal = next((goal.least for goal in row.goals if goal.figure == "ratio"), None)
        colour = NO_GOAL if goal is None else REACHED if ratio.median >= goal else MISSED
        axes.barh(place, ratio.median, xerr=spread, color=colour, height=0.62, error_kw=WHISKERS)
        axes.annotate(
            f"{ratio.median:.2f} of {floor}",
            (max(ratio.rounds), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )
        if goal is not None:
            axes.plot([goal, goal], [place - 0.42, place + 0.42], color="black", linewidth=2)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.35)
    axes.set_title("rate, as a part of the floor's (the black line is the goal)")


def _cpu(axes: Any, rows: Sequence[Row], results: Results, database: str) -> None:
    for place, row in enumerate(rows):
        rounds = results[name_of(row, database)]
        begin = 0.0
        for group, colour in COLOURS.items():
            spent = statistics.median(one.cpu_ms(group) for one in rounds)
            label = "" if place else group
            axes.barh(place, spent, left=begin, color=colour, height=0.62, label=label)
            begin += spent
        axes.annotate(f" {begin:.1f}", (begin, place), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_title("processor time for an answer, ms")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncol=len(COLOURS), frameon=False)
