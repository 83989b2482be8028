"""The page in the documentation: what was measured, beside its floor and its goal."""

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.bench.load import figures
from tests.bench.load.data import Sizes
from tests.bench.load.figures import Results, name_of
from tests.bench.load.measured import GROUPS, Measured
from tests.bench.load.rows import Family, Row
from tests.bench.load.stack import REPLICAS

CLIENTS_MOST = 0.1
HEAD = """# The service under load

Written by `make bench` on {day}, in {minutes:.0f} minutes: {cores} cores shared by all processes,
{memory:.0f} GB of memory, {versions}. The load average was {busy:.1f} at the start.

![Ratios to the floors, and processor time by process](load.png)

## How to read it

Each piece of work stands beside its **floor**: something simpler that bounds what can be had on the
same machine. Both are measured in turn, round by round, {rounds} rounds each after two that warm
everything up; a figure is the median of the rounds, with the least and the most in brackets. The
**ratio** of the two rates is what counts: another machine has other rates. A ratio above 1 means
that the service does all it has to, faster than the simple thing does the simple part. A round
takes two or three seconds, and eight with a slow Stripe: all clients begin at once, and of three
seconds' answers that wave would be an eighth.

The service runs as its image starts it ({servers}), with production's settings, on a PostgreSQL
that waits for the disk at each commit. There is no proxy, and so nothing of what one costs: each
server has as many of the clients as the other. Limits by address are raised, since all clients have
one address; every other limit is as in production, and each buyer has a token and an account. No
Celery worker runs but in the rows about sweeps and deliveries, where the task's own function is
called in a process of its own; what a worker would do after a purchase is not in the figures of
purchases.

Clients, web servers, PostgreSQL, Valkey and a canned Stripe share the cores. A client is a
connection that sends its next request when it has its answer. Every row is measured on two
databases in the same rounds: one with {small.purchases:,} purchases, and one with
{large.purchases:,} and {large.offers:,} offers, each with their transitions and deliveries. The
figures are those of the larger one; **growth** is how many times slower it is than the smaller one.

After each row the counters of every offer are compared with its purchases, and an answer with a
status that isn't expected ends the run with an error: there is no row for requests that failed.

## Goals

Judged by the median.

| row | figure | goal | measured | reached |
| --- | --- | ---: | ---: | --- |
"""
RATES = """
## Rates

| row | work | answers/s | p50, p95 | floor | its answers/s | ratio | growth |
| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |
"""
CPU = """
## Processor time

Milliseconds for an answer, by process with all that it started, user and system time: this moves
less than a rate. The last column is the clients' part of all of it; beyond a tenth they would slow
down what they measure. For pgbench, which is its own client, there is no such limit.

| | {groups} | clients' part |
| --- |{lines} ---: |
"""
MEMORY = """
## Memory

Of the larger of the web server's processes, in MB that are in RAM, as the requests of all kinds go
on:

| {heads} |
|{lines}
| {sizes} |
"""


@dataclass(frozen=True)
class Facts:
    """What the page says of the run itself."""

    sizes: Sizes
    databases: Sequence[str]
    rounds: int
    versions: Mapping[str, str]
    servers: Mapping[str, str]
    minutes: float
    day: datetime
    # The machine's load average when it began: whether anything else was running.
    busy: float


def written(families: Sequence[Family], results: Results, facts: Facts) -> str:
    """The whole page."""
    last = facts.databases[-1]
    rows = [row for family in families for row in family.rows]
    floors = dict.fromkeys(floor for row in rows for floor in row.floors)
    text = HEAD.format(
        day=f"{facts.day:%d %B %Y}",
        minutes=facts.minutes,
        cores=os.cpu_count(),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") / 2**30,
        versions=", ".join(f"{name} {version}" for name, version in facts.versions.items()),
        servers=_servers(facts.servers),
        busy=facts.busy,
        rounds=facts.rounds,
        small=facts.sizes.small,
        large=facts.sizes.large,
    )
    for family in families:
        for judged in figures.judged(family, results, facts.databases):
            text += (
                f"| {judged.row} | {judged.what} | {judged.goal} | {judged.figure.written()} "
                f"| {'yes' if judged.is_reached else '**no**'} |\n"
            )
    text += RATES
    for row in rows:
        text += "".join(f"| {' | '.join(cells)} |\n" for cells in _rates(row, results, facts))
    text += CPU.format(groups=" | ".join(GROUPS), lines=" ---: |" * len(GROUPS))
    for name, title in [(name_of(row, last), row.name) for row in rows] + [(f, f) for f in floors]:
        if any(one.cpu for one in results[name]):
            text += _cpu(title, results[name], is_ours=title != name)
    return text + "".join(_memory(results[name_of(row, last)]) for row in rows)


def _servers(env: Mapping[str, str]) -> str:
    workers, threads = int(env["GRANIAN_WORKERS"]), env["GRANIAN_BLOCKING_THREADS"]
    processes = "one process" if workers == 1 else f"{workers} processes"
    return f"{REPLICAS} servers, each granian with {processes} of {threads} threads"


def _rates(row: Row, results: Results, facts: Facts) -> Iterator[tuple[str, ...]]:
    """A line for each floor; what is the row's own is only in the first."""
    ours = results[name_of(row, facts.databases[-1])]
    slow = [statistics.median(one.percentile(p) * 1000 for one in ours) for p in (50, 95)]
    growth = figures.growth_of(row, results, facts.databases)
    own = (
        row.name,
        f"{row.title}{_seconds(ours)}",
        figures.rate(ours).written(0),
        f"{slow[0]:.0f}, {slow[1]:.0f} ms" if slow[1] else "",
    )
    for number, floor in enumerate(row.floors or ("",)):
        bare = results[floor] if floor else ()
        yield (
            *(own if number == 0 else ("", "", "", "")),
            floor,
            figures.rate(bare).written(0) if bare else "",
            figures.ratio(ours, bare).written() if bare else "",
            growth.written() if growth is not None and number == 0 else "",
        )


def _seconds(rounds: Sequence[Measured]) -> str:
    """How long it took until all were answered, where that is the point of it."""
    name = "seconds until all are answered"
    if name not in rounds[0].also:
        return ""
    return f": {name} {figures.Figure(tuple(one.also[name] for one in rounds)).written()}"


def _cpu(title: str, rounds: Sequence[Measured], *, is_ours: bool) -> str:
    spent = [statistics.median(one.cpu_ms(group) for one in rounds) for group in GROUPS]
    share = statistics.median(one.clients_share for one in rounds)
    by_clients = "clients" in rounds[0].cpu
    warning = " **too much**" if is_ours and share > CLIENTS_MOST else ""
    cells = [f"{ms:.2f}" if ms >= 0.005 else "" for ms in spent]
    part = f"{share:.1%}{warning}" if by_clients else ""
    return f"| {title} | {' | '.join(cells)} | {part} |\n"


def _memory(rounds: Sequence[Measured]) -> str:
    prefix = "MB after "
    sizes = {
        name.removeprefix(prefix): size
        for name, size in rounds[0].also.items()
        if name.startswith(prefix)
    }
    if not sizes:
        return ""
    return MEMORY.format(
        heads=" | ".join(sizes),
        lines=" ---: |" * len(sizes),
        sizes=" | ".join(f"{size:.1f}" for size in sizes.values()),
    )
