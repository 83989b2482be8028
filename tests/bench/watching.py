"""What a page asks the database, and how long PostgreSQL needs for each question."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

READS = ("SELECT", "WITH", "(")
# Tried so often before a query counts as slow: another process may have had the processor.
TRIES = 3


@dataclass
class Query:
    """One statement as it was sent."""

    sql: str
    parameters: Any
    # What EXPLAIN ANALYZE measured, in milliseconds; of what isn't explained, what we waited.
    milliseconds: float
    plan: str = ""


@dataclass
class Recording:
    """What was sent while ``recorded`` was open."""

    queries: list[Query] = field(default_factory=list)


@contextmanager
def recorded() -> Iterator[Recording]:
    """Write down every statement that Django sends."""
    recording = Recording()

    def note(
        execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any
    ) -> Any:
        begun = time.perf_counter()
        try:
            return execute(sql, parameters, many, context)
        finally:
            waited = (time.perf_counter() - begun) * 1000
            recording.queries.append(Query(sql, parameters, waited))

    with connection.execute_wrapper(note):
        yield recording


class Explainer:
    """Runs each different query again under EXPLAIN ANALYZE, once for all pages."""

    def __init__(self, *, slow: float) -> None:
        self._slow = slow
        self._known: dict[str, tuple[float, str]] = {}

    def explain(self, query: Query) -> None:
        """Set the query's time and, if it is slow, its plan. The cache is warm: it just ran."""
        if not query.sql.startswith(READS):
            return
        key = f"{query.sql} {query.parameters}"
        if key not in self._known:
            self._known[key] = self._measured(query)
        query.milliseconds, query.plan = self._known[key]

    def _measured(self, query: Query) -> tuple[float, str]:
        best = (float("inf"), "")
        for _ in range(TRIES):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.sql}", query.parameters)
                answer = cursor.fetchone()[0]
            (plan,) = json.loads(answer) if isinstance(answer, str) else answer
            milliseconds = plan["Planning Time"] + plan["Execution Time"]
            if milliseconds <= self._slow:
                return milliseconds, ""
            best = min(best, (milliseconds, "\n".join(_outline(plan["Plan"]))))
        return best


def _outline(node: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """A plan as lines: what each node reads, how many rows, how long until its end."""
    about = " ".join(
        str(node[name]) for name in ("Relation Name", "Index Name", "CTE Name") if name in node
    )
    conditions = "; ".join(
        f"{name}: {node[name]}"
        for name in ("Index Cond", "Hash Cond", "Filter", "Sort Key")
        if name in node
    )
    yield (
        f"{'  ' * depth}{node['Node Type']} {about} ({node['Actual Rows']:.0f} rows x "
        f"{node['Actual Loops']}, {node['Actual Total Time']:.1f} ms) {conditions}"[:220]
    )
    for part in node.get("Plans", ()):
        yield from _outline(part, depth + 1)
