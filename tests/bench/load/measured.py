"""What one round of one piece of work gave."""

import statistics
from collections import Counter
from dataclasses import dataclass, field

GROUPS = ("clients", "web", "worker", "PostgreSQL", "Valkey", "Stripe")


class Wrong(Exception):
    """The service did what it must not: the run fails. The text says what."""


@dataclass
class Measured:
    """One round of one piece of work. ``cpu`` is in seconds, by group of processes."""

    answers: int
    seconds: float
    cpu: dict[str, float]
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    # Figures that only some rows have, by what they are.
    also: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def percentile(self, percent: int) -> float:
        """Seconds within which so many of a hundred answers came."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] if self.latencies else 0.0

    def cpu_ms(self, group: str) -> float:
        """Processor time for each answer."""
        return self.cpu.get(group, 0.0) * 1000 / self.answers

    @property
    def clients_share(self) -> float:
        """The clients' part of all processor time."""
        return self.cpu.get("clients", 0.0) / (sum(self.cpu.values()) or 1.0)


def line(name: str, measured: Measured) -> str:
    """A round in one line."""
    groups = [f"{g} {measured.cpu_ms(g):.2f}" for g in GROUPS if measured.cpu_ms(g) >= 0.005]
    also = "".join(f"  {name} {value:g}" for name, value in measured.also.items())
    return (
        f"{name:28} {measured.rate:8.1f}/s  p50 {measured.percentile(50) * 1000:6.1f} ms  "
        f"p95 {measured.percentile(95) * 1000:6.1f} ms  CPU ms: {', '.join(groups)}  "
        f"(clients {measured.clients_share:.1%}){also}"
    )
