"""How long a purchase holds the offer's row, as PostgreSQL's own log tells it.

For a moment every statement is logged with its end and how long it took. A purchase locks the row
in the message that ends with its COMMIT; it has the row from that message's beginning, or from the
end of the one that had it before, whichever is later: so the time it takes to hand the row over is
in the figure. Where the lock is a statement of its own, it is held from the end of that one. The
log's times are in milliseconds, so a single one is off by up to one, and the mean of hundreds is
not. Writing the log takes time too, which is in the figure.
"""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

from tests.bench.load.bench import Bench
from tests.bench.load.measured import Wrong

# `log_line_prefix` of the stack's PostgreSQL: the time, then the session's process.
LINE = re.compile(
    r"^([\d.]+) \[(\d+)\] LOG: +duration: ([\d.]+) ms +(?:statement|execute [^:]*): (.*)"
)
LOCKS = re.compile(r'"offers_offer".* FOR (?:NO KEY )?UPDATE|^UPDATE "offers_offer"', re.DOTALL)


def held_milliseconds(bench: Bench, database: str, load: Callable[[], object]) -> float:
    """The mean over the purchases of a ``load``."""
    log = bench.stack.postgres.log
    with bench.connect(database) as server:
        begin = log.stat().st_size
        for setting in ("0", "-1"):
            # Takes effect in each session before its next statement.
            server.execute(f"ALTER SYSTEM SET log_min_duration_statement = {setting}")
            server.execute("SELECT pg_reload_conf()")
            if setting == "0":
                load()
    held = held_in(log, begin=begin)
    if not held:
        raise Wrong("No statement locks the offer's row as far as PostgreSQL's log says.")
    return round(statistics.fmean(held) * 1000, 2)


def held_in(log: Path, *, begin: int) -> list[float]:
    """Seconds for each transaction in the log from that byte on."""
    held: list[float] = []
    since: dict[str, float] = {}
    free_since = 0.0
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(begin)
        for line in lines:
            found = LINE.match(line)
            if not found:
                continue
            at, session, statement = float(found[1]), found[2], found[4]
            if statement.endswith("; COMMIT") and LOCKS.search(statement):
                begun = since.pop(session, at - float(found[3]) / 1000)
                held.append(at - max(begun, free_since))
                free_since = at
            elif statement.startswith(("COMMIT", "ROLLBACK")):
                if session in since:
                    held.append(at - since.pop(session))
                    free_since = at
            elif session not in since and LOCKS.search(statement):
                since[session] = at
    return held
