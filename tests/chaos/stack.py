"""The stack under test: `manage.py runlocal` in a folder of its own, as `make run` starts it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import dict_row

from offers_project.local.environment import ROOT, SETTINGS
from tests.ports import own_port

START_SECONDS = 120.0
STOP_SECONDS = 15.0
COMMAND_SECONDS = 120.0
POLL_SECONDS = 0.05
# The words by which a part is known in its command line.
PARTS = {
    "Valkey": "valkey-server",
    "PostgreSQL": "bin/postgres",
    "worker": "celery",
    "web server": "granian",
    "Stripe sandbox": "stripe_sandbox",
}


class StackFailed(Exception):
    """The stack did not start or did not stay up; the text ends with what it printed."""


class Stack:
    """One run. `start` it, hurt its parts, ask its database, and `stop` it.

    It ends with this process however that ends, because `runlocal` watches its parent.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.url = ""
        self.sandbox_url = ""
        self._settings = settings
        self._env: dict[str, str] = {}
        self._output = folder / "runlocal.out"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready. Raises StackFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # An empty value is "not set" to runlocal, and beats what a developer's .env says.
        env = {**os.environ, **dict.fromkeys(SETTINGS, ""), **self._settings}
        env |= {"DATA_DIR": str(self.folder), "PORT": str(own_port())}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "runlocal", "--end-with-parent"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is ours alone; we end the stack in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while "stop with Ctrl-C" not in self.printed:
            if time.monotonic() > deadline:
                raise StackFailed(f"not ready within {START_SECONDS:.0f} s:\n{self.printed}")
            self.check()
            time.sleep(POLL_SECONDS)
        run = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        self.url, self.sandbox_url, self._env = run["url"], run["sandbox_url"], run["env"]

    def check(self) -> None:
        """Raise StackFailed if the supervisor has ended."""
        if self._process is None or self._process.poll() is not None:
            raise StackFailed(f"the stack has ended:\n{self.printed[-3000:]}")

    @property
    def printed(self) -> str:
        """What `runlocal` has said so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it, in order if possible."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its guard ends the children
            self._process.wait()

    # -- Its processes ----------------------------------------------------------------------------

    def pid_of(self, part: str) -> int | None:
        """The part's own process, None while it is being started again."""
        if self._process is None:
            return None
        for pid in _children_of(self._process.pid):
            if PARTS[part] in _command_of(pid):
                return pid
        return None

    def web_processes(self) -> list[int]:
        """The processes in which the web server answers requests."""
        parent = self.pid_of("web server")
        return [pid for pid in _children_of(parent) if "granian" in _command_of(pid)]

    def send(self, part: str, number: signal.Signals) -> Callable[[], bool]:
        """Signal a part; returns a question: is another process in its place by now?"""
        pid = self.pid_of(part)
        if pid is not None:
            signal_process(pid, number)
        return lambda: self.pid_of(part) not in (pid, None)

    # -- Its database and commands ----------------------------------------------------------------

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        """A connection of our own, past the product's code. Raises psycopg.OperationalError."""
        return psycopg.connect(
            self._env["DATABASE_URL"], autocommit=True, connect_timeout=5, row_factory=dict_row
        )

    def database_answers(self) -> bool:
        """Whether PostgreSQL takes a connection just now."""
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def secrets(self) -> dict[str, str]:
        """What must be in no log, by the name of its setting."""
        names = ("SECRET_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS")
        secrets = {name: self._env[name] for name in names}
        return secrets | {"DATABASE_URL": urlsplit(self._env["DATABASE_URL"]).password or ""}

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python manage.py …` as an operator's shell would run it."""
        inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            cwd=ROOT,
            env={**inherited, **self._env},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _children_of(parent: int | None) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent_pid = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z" and int(parent_pid) == parent:
                found.append(int(stat.parent.name))
    return sorted(found)


def _command_of(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
