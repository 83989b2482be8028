"""Child processes that never outlive their supervisor.

`runlocal` starts the parts of a local run with `Child`; tests start a private PostgreSQL or Valkey
with it. A child leads a session and process group of its own, so a Ctrl-C in the terminal reaches
only the supervisor, which ends the children in its own order.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAUNCH = HERE / "launch.py"
GUARD = HERE / "guard.py"
LOG_LINES_SHOWN = 8
POLL_SECONDS = 0.02


# How to wait: the supervisor's own raises when it is asked to stop meanwhile.
Pause = Callable[[float], None]


class ChildFailed(Exception):
    """A part of the local run could not start or did not stay up. The text is for the person at
    the terminal: one sentence, then the end of the part's log where there is one."""


@dataclass(frozen=True)
class Privileges:
    """As whom a child runs: unchanged, in a user namespace, or as another user."""

    user_namespace: bool = False
    drop_to: tuple[int, int] | None = None

    def options(self) -> list[str]:
        """The options of launch.py that say so."""
        options = ["--user-namespace"] if self.user_namespace else []
        if self.drop_to:
            options += ["--drop-to", *map(str, self.drop_to)]
        return options


UNCHANGED = Privileges()


def launch_command(
    command: Sequence[str],
    *,
    privileges: Privileges = UNCHANGED,
    death_signal: signal.Signals = signal.SIGKILL,
) -> list[str]:
    """`command` wrapped by launch.py: when the calling process dies, it gets `death_signal`.

    Linux ties this to the calling *thread*: start from one that lives as long as the child should.
    """
    return [
        *(sys.executable, "-I", "-S", str(LAUNCH)),
        *("--parent", str(os.getpid()), "--signal", str(int(death_signal))),
        *privileges.options(),
        "--",
        *command,
    ]


class Guard:
    """The process that ends everything if this one is killed. See guard.py.

    It holds the open files `keep_open` as long as it lives: a lock among them lasts until the last
    child is gone.
    """

    def __init__(self, *, keep_open: Sequence[int] = ()) -> None:
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self._notes: list[str] = []

    def watch(self, group: int, number: signal.Signals) -> None:
        """From now on `group` ends with us, asked by signal `number`."""
        self._note(f"watch {group} {int(number)}")

    def forget(self, group: int) -> None:
        """`group` is gone."""
        self._note(f"forget {group}")

    def remove(self, folder: Path) -> None:
        """Delete `folder` in the end, killed or not."""
        self._note(f"remove {folder}")

    def close(self) -> None:
        """Let the guard finish; what it still watches ends now."""
        if self._process and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
        self._process = None
        self._notes.clear()

    def _note(self, line: str) -> None:
        self._notes.append(line)
        if self._process is None or self._process.poll() is not None:
            # The first time, or somebody killed the guard: a new one learns everything again.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                pass_fds=self._keep_open,
                start_new_session=True,
            )
            lines = self._notes
        else:
            lines = [line]
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
            pipe.flush()


class Child:
    """One program, its log file and how it is ended. It can be started again after it ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        guard: Guard,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        privileges: Privileges = UNCHANGED,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = env
        self._guard = guard
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._privileges = privileges
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The pid while it runs or until its end was noticed, else None."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, and return at once. Call from a thread that lives as long as the child should
        (the kernel ends the child with the *thread* that started it)."""
        assert not self.is_running(), f"{self.name} is running"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                launch_command(
                    self.command, privileges=self._privileges, death_signal=self._stop_signal
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=self._cwd,
                start_new_session=True,
            )
        self._guard.watch(self._process.pid, self._stop_signal)

    def is_running(self) -> bool:
        """Whether the program itself is there."""
        return self._process is not None and self._process.poll() is None

    def exit_status(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode if self._process else None
        if code is None:
            return "still running"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def ask_to_stop(self) -> None:
        """Send its stop signal, and return at once."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)

    def kill(self) -> None:
        """SIGKILL to it and to what it started, and wait for the end of the program itself."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.forget(self._process.pid)
        self._process = None

    def stop(self, *, timeout: float = 6.0, ask: bool = True) -> bool:
        """Ask it to end (unless the caller did) and wait up to `timeout` seconds, then kill what is
        left of its process group. Returns whether it ended by itself."""
        if ask:
            self.ask_to_stop()
        willingly = True
        if self._process:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                willingly = False
        self.kill()
        return willingly

    def wait_until(
        self, is_up: Callable[[], bool], *, timeout: float, pause: Pause = time.sleep
    ) -> None:
        """Wait up to `timeout` seconds for `is_up()`; raises ChildFailed with the end of the log
        if the program ended before, or the time is over, and whatever `pause` raises."""
        deadline = time.monotonic() + timeout
        while not is_up():
            if not self.is_running():
                raise ChildFailed(self.failure(f"did not start ({self.exit_status()})"))
            if time.monotonic() > deadline:
                raise ChildFailed(self.failure(f"did not answer within {timeout:.0f} s"))
            pause(POLL_SECONDS)

    def wait_for_end(self, *, timeout: float, pause: Pause = time.sleep) -> None:
        """Wait for a program that ends by itself; raises ChildFailed unless it succeeds within
        `timeout` seconds, and whatever `pause` raises."""
        deadline = time.monotonic() + timeout
        while self.is_running():
            if time.monotonic() > deadline:
                raise ChildFailed(self.failure(f"did not end within {timeout:.0f} s"))
            pause(POLL_SECONDS)
        if self._process and self._process.returncode != 0:
            raise ChildFailed(self.failure(f"failed ({self.exit_status()})"))

    def failure(self, what: str) -> str:
        """`what` went wrong with it, with the end of its log and the log's path."""
        lines = self.new_log_text().strip().splitlines()[-LOG_LINES_SHOWN:]
        shown = "".join(f"\n    {line}" for line in lines)
        return f"{self.name} {what}. The end of its log {self.log}:{shown or ' nothing'}"

    def new_log_text(self) -> str:
        """What it logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
