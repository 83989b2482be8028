"""What goes wrong, and when: Stripe's bad days one after another, and blows at the parts.

Stripe's faults are one setting of the sandbox, so each of its days is a whole composition.
"""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.bank import Bank
from tests.chaos.stack import POLL_SECONDS, Stack, signal_process

BACK_SECONDS = 30.0
FREEZE_SECONDS = 3.0


@dataclass(frozen=True)
class Day:
    """How Stripe is for a while."""

    name: str
    faults: dict[str, Any]


ERRORS = Day("Stripe: 20% errors 500, webhooks reordered", {
    "error_rate": 0.2, "webhooks": "reorder",
})  # fmt: skip
HANGS = Day("Stripe: 15% hang (half-done work kept), webhooks lost", {
    "hang_rate": 0.15, "hang_after_work": True, "webhooks": "drop",
})  # fmt: skip
LIMITS = Day("Stripe: 20% 429, webhooks duplicated", {
    "error_rate": 0.2, "error_status": 429, "webhooks": "duplicate",
})  # fmt: skip
CUTS = Day("Stripe: 20% of the answers cut off, webhooks 2 s late and reordered", {
    "drop_rate": 0.2, "webhooks": "reorder", "webhook_delay_ms": 2000,
})  # fmt: skip
ALL_AT_ONCE = Day("Stripe: slow, 10% errors, 10% cut off, 10% hang, webhooks lost", {
    "latency_ms": 300, "error_rate": 0.1, "drop_rate": 0.1, "hang_rate": 0.1, "webhooks": "drop",
})  # fmt: skip
HANGS_IDLE = Day("Stripe: 15% hang (nothing done), webhooks duplicated", {
    "hang_rate": 0.15, "webhooks": "duplicate",
})  # fmt: skip
DEAD = Day("Stripe: every request hangs, webhooks late", {
    "hang_rate": 1.0, "webhook_delay_ms": 5000,
})  # fmt: skip
CLEAR = Day("Stripe: well", {})
FULL_DAYS = (
    ERRORS, HANGS, LIMITS, CUTS, ALL_AT_ONCE, CLEAR, HANGS_IDLE, ERRORS, HANGS, CUTS, DEAD, LIMITS,
)  # fmt: skip
QUICK_DAYS = (ERRORS, HANGS, CUTS, LIMITS, ALL_AT_ONCE)

VALKEY_KILLED = "Valkey killed (SIGKILL)"
VALKEY_FROZEN = f"Valkey frozen for {FREEZE_SECONDS:.0f} s"
POSTGRES_RESTARTED = "PostgreSQL restarted (fast shutdown)"
POSTGRES_KILLED = "PostgreSQL killed (SIGKILL, crash recovery)"
WORKER_KILLED = "Celery worker killed (SIGKILL)"
WEB_KILLED = "one web process killed (SIGKILL)"
FULL_BLOWS = (
    VALKEY_KILLED, WORKER_KILLED, POSTGRES_RESTARTED, WEB_KILLED, VALKEY_FROZEN, POSTGRES_KILLED,
    WORKER_KILLED, WEB_KILLED, VALKEY_KILLED, POSTGRES_RESTARTED, WORKER_KILLED, POSTGRES_KILLED,
    VALKEY_KILLED, WEB_KILLED, VALKEY_FROZEN, POSTGRES_RESTARTED,
)  # fmt: skip
QUICK_BLOWS = (VALKEY_KILLED, WORKER_KILLED, POSTGRES_RESTARTED, WEB_KILLED, POSTGRES_KILLED)


@dataclass(frozen=True)
class Happened:
    """A line of the timeline; `second` counts from the beginning of the storm."""

    second: float
    what: str
    outcome: str = ""

    def __str__(self) -> str:
        return f"{self.second:6.1f} s  {self.what}{': ' if self.outcome else ''}{self.outcome}"


class Faults:
    """The plan of one storm, carried out by `run` in the thread that calls it."""

    def __init__(
        self,
        stack: Stack,
        *,
        seconds: float,
        quick: bool,
        seed: int,
        over: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self.timeline: list[Happened] = []
        self._stack = stack
        self._bank = Bank(stack.sandbox_url)
        self._seconds = seconds
        self._over = over
        self._say = say
        self._rng = Random(f"{seed}/faults")  # noqa: S311 - chance that can be repeated
        self._plan = self._planned(quick=quick)
        self._begun = 0.0

    def run(self) -> None:
        """Let it all happen, then make Stripe well again. Raises StackFailed."""
        self._begun = time.monotonic()
        for second, what in [*self._plan, (self._seconds, CLEAR)]:
            while (left := self._begun + second - time.monotonic()) > 0:
                self._stack.check()
                self._over.wait(min(left, 1.0))
            self._happen(what)

    def _planned(self, *, quick: bool) -> list[tuple[float, Day | str]]:
        days = QUICK_DAYS if quick else FULL_DAYS
        plan: list[tuple[float, Day | str]] = [
            (self._seconds * number / len(days), day) for number, day in enumerate(days)
        ]
        blows = list(QUICK_BLOWS if quick else FULL_BLOWS)
        self._rng.shuffle(blows)
        gap = self._seconds / (len(blows) + 1)
        plan += [
            (gap * (number + self._rng.uniform(-0.3, 0.3)), blow)
            for number, blow in enumerate(blows, 1)
        ]
        return sorted(plan, key=lambda step: step[0])

    def _happen(self, what: Day | str) -> None:
        second = time.monotonic() - self._begun
        if isinstance(what, Day):
            self._bank.set_faults(**what.faults)
            happened = Happened(second, what.name)
        else:
            happened = Happened(second, what, self._strike(what))
        self.timeline.append(happened)
        self._say(str(happened))

    def _strike(self, blow: str) -> str:
        if blow == VALKEY_FROZEN:
            self._stack.send("Valkey", signal.SIGSTOP)
            self._over.wait(FREEZE_SECONDS)
            self._stack.send("Valkey", signal.SIGCONT)
            return ""
        if blow == WEB_KILLED:
            return self._kill_a_web_process()
        part, number = {
            VALKEY_KILLED: ("Valkey", signal.SIGKILL),
            WORKER_KILLED: ("worker", signal.SIGKILL),
            POSTGRES_RESTARTED: ("PostgreSQL", signal.SIGINT),
            POSTGRES_KILLED: ("PostgreSQL", signal.SIGKILL),
        }[blow]
        is_new = self._stack.send(part, number)
        if part == "PostgreSQL":
            return self._when(lambda: is_new() and self._stack.database_answers())
        return self._when(is_new)

    def _kill_a_web_process(self) -> str:
        before = self._stack.web_processes()
        if not before:
            return "none was there"
        victim = self._rng.choice(before)
        signal_process(victim, signal.SIGKILL)

        def is_replaced() -> bool:
            now = self._stack.web_processes()
            return victim not in now and len(now) >= len(before)

        return self._when(is_replaced)

    def _when(self, is_back: Callable[[], bool]) -> str:
        """Wait for it, and say how long it took."""
        begun = time.monotonic()
        while not is_back():
            self._stack.check()
            if time.monotonic() - begun > BACK_SECONDS:
                return f"not back within {BACK_SECONDS:.0f} s"
            time.sleep(POLL_SECONDS)
        return f"back after {time.monotonic() - begun:.1f} s"
