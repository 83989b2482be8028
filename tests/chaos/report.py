"""The table at the end, in Markdown."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tests.chaos.books import Books
from tests.chaos.faults import Happened
from tests.chaos.journal import Journal
from tests.chaos.recovery import Recovered

# Of each kind.
SHOWN = 5


@dataclass
class Result:
    """A storm and what came of it."""

    seed: int
    buyers: int
    seconds: float
    journal: Journal
    books: Books
    timeline: list[Happened]
    recovered: Recovered
    violations: list[tuple[str, str]]
    webhook_answers: Counter[str]
    looks: int

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong and no hold is stuck."""
        return not self.violations and not self.recovered.stuck


def written(result: Result) -> str:
    """The whole report."""
    parts = [
        f"## {result.buyers} buyers, {result.seconds:.0f} s of storm, seed {result.seed}",
        _table(("", ""), _outcome(result)),
        "### Answers other than success",
        _table(("call", "status", "code", "times"), _errors(result.journal)),
        "### What went wrong, and when",
        _table(
            ("second", "what", ""),
            ((f"{line.second:.1f}", line.what, line.outcome) for line in result.timeline),
        ),
    ]
    if result.violations:
        rules = Counter(rule for rule, _ in result.violations)
        parts += ["### Violations", _table(("rule", "times"), rules.most_common())]
        parts += [
            f"- {rule}: {detail}"
            for rule in rules
            for detail in [d for r, d in result.violations if r == rule][:SHOWN]
        ]
    parts += [f"- stuck hold: {purchase_id}" for purchase_id in result.recovered.stuck[:SHOWN]]
    return "\n\n".join(parts)


def _outcome(result: Result) -> Iterable[tuple[object, object]]:
    journal, books = result.journal, result.books
    of_storm = books.purchases.values()
    status = Counter(purchase.status for purchase in of_storm)
    reasons = Counter(p.release_reason for p in of_storm if p.status == "released")
    partly = sum(bool(p.refunded) and p.status == "paid" for p in of_storm)
    paid = sum(session.received > 0 for session in books.sessions)
    yield "purchases tried", len(journal.tried)
    yield "holds made", len(books.purchases)
    yield "sold", f"{status['paid']} ({partly} of them refunded in part)"
    yield "refunded", status["refunded"]
    yield "released", f"{status['released']} ({_listed(reasons)})"
    for name in ("reserved", "awaiting_payment", "payment_processing", "refunding", "refund_due"):
        if status[name]:
            yield f"still {name}", status[name]
    yield "at Stripe", f"{len(books.sessions)} sessions, {paid} of them paid"
    yield "what buyers did there", _listed(journal.acts)
    yield "webhooks answered", _listed(result.webhook_answers)
    for call in ("look", "buy"):
        yield f"to {call} took", _spread(journal.seconds.get(call, [0.0]))
    yield "quiet after", f"{result.recovered.seconds:.0f} s"
    for command, outcome in result.recovered.commands.items():
        yield f"`{command}`", outcome
    if not journal.has_refunds:
        yield "refunds by the organizer", "not there"
    yield "stock looked at", f"{result.looks} times"
    yield "**invariant violations**", f"**{len(result.violations)}**"
    yield "**stuck holds**", f"**{len(result.recovered.stuck)}**"


def _errors(journal: Journal) -> Iterable[tuple[object, ...]]:
    for (call, status, code), times in sorted(journal.answers.items()):
        if not status.startswith("2"):
            yield call, status, code, times


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    median, p95 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    return f"{median:.2f} s (median), {p95:.1f} s (95%), {ordered[-1]:.1f} s at most"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name}: {times}" for name, times in counts.most_common()) or "none"


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    titles = list(head)
    lines = [_row(titles), _row("---" for _ in titles), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
