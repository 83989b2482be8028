"""What was measured: a table for the documentation, and what is wrong for whoever mends it."""

import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from django.db import connection

from tests.bench.data import Size
from tests.bench.walk import YEAR, Visit
from tests.bench.watching import Query

MOST_QUERIES = 19
SLOW = 100.0  # milliseconds
SHOWN_OF_A_QUERY = 900
# Before something is deleted, Django asks every table that may know it.
EXEMPT = {"delete"}


@dataclass(frozen=True)
class Page:
    """A visit, without what only served to measure it."""

    subject: str
    kind: str
    who: str
    url: str
    status: int
    milliseconds: float
    count: int
    slowest: Query
    total: float
    # Reads as much as was asked for: a year of figures, or a file of everything.
    is_long: bool


def measured(visit: Visit) -> Page:
    """What is kept of a visit whose queries were explained."""
    nothing = Query("", None, 0.0)
    return Page(
        visit.subject,
        visit.kind,
        visit.who,
        visit.url,
        visit.status,
        visit.seconds * 1000,
        len(visit.queries),
        max(visit.queries, key=attrgetter("milliseconds"), default=nothing),
        sum(query.milliseconds for query in visit.queries),
        visit.kind.endswith(YEAR) or (visit.subject != "dashboard" and _is_file(visit)),
    )


def _is_file(visit: Visit) -> bool:
    return bool(visit.response.headers.get("Content-Type", "").startswith("text/csv"))


def problems(page: Page) -> Iterator[str]:
    """What is wrong with it, a paragraph each: who saw it where, and the query with its plan."""
    where = f"{page.subject}, {page.kind}, as {page.who}: {page.url}"
    if page.status >= 500:
        yield f"{where}\n    answered {page.status}"
    if page.kind in EXEMPT:
        return
    if page.count > MOST_QUERIES:
        yield f"{where}\n    {page.count} queries"
    if page.slowest.milliseconds > SLOW and not page.is_long:
        plan = page.slowest.plan.replace("\n", "\n      ")
        yield (
            f"{where}\n    {page.slowest.milliseconds:.0f} ms: "
            f"{page.slowest.sql[:SHOWN_OF_A_QUERY]}\n      {plan}"
        )


def machine() -> str:
    """Where it was measured, in general terms."""
    version = connection.pg_version
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"PostgreSQL {version // 10000}.{version % 10000}"
    )


HEAD = """# The back-office with many rows

{size.offers:,} offers and {size.purchases:,} purchases of {size.users:,} buyers at {size.events}
events of {size.organizations} organizations, and all that belongs to them. Written by
`make bench-admin` on {day}: {machine}.

Every page that the admin's registry and addresses lead to is opened as a superuser, as a manager to
whose organization a third belongs, and as somebody who has just begun and has next to nothing:
{count:,} addresses. Each query is then run again under `EXPLAIN (ANALYZE)`, with the parameters it
was sent with; one over {slow:.0f} ms up to three times, of which the best counts, since other
processes may have had the processor. A page with {too_many} queries or more, or with one over
{slow:.0f} ms, fails the run. The question whether to delete something is exempt, for which every
table that may know it is asked. The time doesn't count for figures of a year and for files of a
whole list, which read as much as they are asked for; they are named below the table.

A line is all addresses of one kind, with the worst of each: lists are also opened at the second and
at the last page, by each column up and down, by some choices of each filter, by words that are in
each of the fields that are searched, and by year, month and day.

| page | addresses | queries | slowest query, ms | all its queries, ms | response, ms |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


def document(pages: Iterable[Page], *, size: Size, now: datetime) -> str:
    """The page in the documentation."""
    kept = sorted(pages, key=attrgetter("subject", "kind"))
    text = HEAD.format(
        size=size, day=f"{now:%d %B %Y}", machine=machine(), count=len(kept),
        too_many=MOST_QUERIES + 1, slow=SLOW,
    )  # fmt: skip
    slow: list[str] = []
    for (subject, kind), group in groupby(kept, key=attrgetter("subject", "kind")):
        same = list(group)
        worst = max(same, key=lambda page: page.slowest.milliseconds)
        if worst.slowest.milliseconds > SLOW or max(page.count for page in same) > MOST_QUERIES:
            slow.append(_excused(worst, most=max(page.count for page in same)))
        text += (
            f"| {subject}: {kind} | {len(same)} | {max(page.count for page in same)} "
            f"| {max(page.slowest.milliseconds for page in same):.1f} "
            f"| {max(page.total for page in same):.1f} "
            f"| {max(page.milliseconds for page in same):.0f} |\n"
        )
    return text + BEYOND.format("\n".join(slow) or "Nothing.")


BEYOND = """
## Beyond the limits

{}
"""


def _excused(page: Page, *, most: int) -> str:
    """What is over a limit, and why that is so, or that it fails the run."""
    why = "it fails the run"
    if page.kind in EXEMPT:
        why = "every table that may know it is asked"
    elif page.kind.endswith(YEAR):
        why = "a year is read"
    elif page.is_long:
        why = "the whole list is written into the file"
    return (
        f"- {page.subject}, {page.kind}, as {page.who}: {most} queries, the slowest "
        f"{page.slowest.milliseconds:.0f} ms; {why}."
    )
