"""Processes that do one step and are killed at one point of it.

Django takes a second to start, and there are hundreds of points: so one process loads it and forks
for each. It has no thread and no connection, so a fork is as good as a process of its own.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import django
import time_machine

ROOT = Path(__file__).resolve().parents[2]
APPLICATION_NAME = "crash-points"
RAISED = "raised "


@dataclass(frozen=True)
class Step:
    """A function of ``steps`` with its arguments; ``minutes`` is how far its clock is ahead."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    minutes: float = 0


@dataclass(frozen=True)
class Life:
    """What became of a process: the points it passed, and whether it was killed at the last one.

    ``raised`` is the domain's refusal, if the step ended with one.
    """

    points: list[str]
    killed: bool
    raised: str | None


class Processes:
    """The process that forks, as the tests use it."""

    def __init__(self, *, database_url: str, stripe_url: str, mail: Path) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed by `stop`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash_points.processes"],
            cwd=ROOT,
            env=os.environ
            | {
                "DATABASE_URL": f"{database_url}?application_name={APPLICATION_NAME}",
                "STRIPE_API_BASE": stripe_url,
                "EMAIL_URL": f"filemail:///{mail}",
                "DJANGO_SETTINGS_MODULE": "offers_project.settings",
                "LOG_FORMAT": "json",  # a traceback for people takes longer than the rest
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def run(self, step: Step, die_at: int | str | None) -> Life:
        """Do ``step`` in a new process, and kill it at ``die_at``; see ``Points``."""
        order = {
            "step": step.name,
            "arguments": step.arguments,
            "minutes": step.minutes,
            "die_at": die_at,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise RuntimeError(f"It did not answer:\n{self._errors.read()}")
        told = json.loads(answer)
        points = [line for line in told["report"] if not line.startswith(RAISED)]
        raised = [line.removeprefix(RAISED) for line in told["report"] if line.startswith(RAISED)]
        if not told["killed"] and told["exit_code"] != 0:
            raise RuntimeError("\n".join(told["report"]))
        return Life(points, told["killed"], raised[0] if raised else None)

    def stop(self) -> None:
        """End it: it ends when nobody can write to it any more."""
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()
        self._errors.close()


# -- The process itself ---------------------------------------------------------------------------


def main() -> None:
    """Read orders from stdin, a line each, and answer each with a line on stdout."""
    django.setup()
    # Loaded once, for all forks: what they would import one by one as they go.
    import psycopg_pool  # noqa: F401
    import stripe.checkout
    from django.conf import settings

    from purchases import stripe_gateway
    from tests.crash_points import points, steps  # noqa: F401

    stripe.HTTPClient.INITIAL_DELAY = 0.01  # seconds: the SDK repeats at once what failed
    stripe_gateway._client(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE)  # not connected
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the service logs must not get between the answers
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), file=answers, flush=True)


def _fork(order: dict[str, Any]) -> dict[str, Any]:
    if threading.active_count() != 1:
        raise RuntimeError("A fork would have only one of these threads.")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(order, writing)
    os.close(writing)
    with os.fdopen(reading) as report:
        lines = report.read().splitlines()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    return {"report": lines, "killed": killed, "exit_code": exit_code}


def _live(order: dict[str, Any], report: int) -> NoReturn:
    """Do the step; whatever happens, nothing of the parent goes on in here."""
    from offers.errors import DomainError
    from tests.crash_points.points import Points
    from tests.crash_points.steps import STEPS

    ahead = timedelta(minutes=order["minutes"])
    clock = time_machine.travel(datetime.now(UTC) + ahead) if ahead else nullcontext()
    try:
        Points(report, order["die_at"]).install()
        with clock:
            STEPS[order["step"]](**order["arguments"])
    except DomainError as error:
        os.write(report, f"{RAISED}{type(error).__name__}\n".encode())
    except BaseException:  # noqa: BLE001 - told to the test, which fails with it
        os.write(report, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
