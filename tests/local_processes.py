"""What the tests of the local run share: see and start real processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from offers_project.local.environment import ROOT, SETTINGS
from tests.ports import own_port

POLL_SECONDS = 0.05


def wait_for(condition: Callable[[], object], what: str, *, timeout: float = 15.0) -> None:
    """Wait until `condition()` is true; an AssertionError names `what` if it isn't in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(POLL_SECONDS)


def processes_of(folder: Path) -> dict[int, str]:
    """{pid: command} of every process that has to do with `folder`: by its command line, its
    environment or its working directory. Zombies, which only wait to be counted, are none."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if not command or int(process.name) == os.getpid():
                continue
            about = command + (process / "environ").read_bytes()
            about += os.fsencode((process / "cwd").readlink())
            if os.fsencode(folder) in about:
                found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def wait_for_nothing_left(folder: Path, *, timeout: float) -> None:
    """Wait up to `timeout` seconds for the end of every process of `folder`."""
    wait_for(lambda: not processes_of(folder), f"no process of {folder}", timeout=timeout)


def clean_environment(**values: str) -> dict[str, str]:
    """This process's environment without what tests/servers.py set."""
    env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {**env, **values}


class Run:
    """A `make run` in a folder, on a free port, with nothing to inherit from the test run."""

    def __init__(self, folder: Path, port: int | None = None, **options: str) -> None:
        self.folder = folder
        self.port = port or own_port()
        self.output = folder.with_name(f"{folder.name}-{self.port}.out")
        with self.output.open("wb") as output:
            self.make = subprocess.Popen(
                [
                    *("make", f"BIN={Path(sys.executable).parent}", "--old-file=.venv/installed"),
                    *("run", f"PORT={self.port}", f"DATA_DIR={folder}"),
                    *(f"{name}={value}" for name, value in options.items()),
                ],
                cwd=ROOT,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(encoding="utf-8")

    def line(self, start: str) -> str:
        """The rest of the line that starts so; raises if there is none."""
        found = re.search(rf"^{re.escape(start)}(.*)$", self.text, re.MULTILINE)
        assert found, f"no line {start!r} in {self.text}"
        return found.group(1)

    def wait_until_ready(self) -> "Run":
        """Wait for the block that starts with `ready:`."""
        wait_for(
            lambda: "stop with Ctrl-C" in self.text or self.make.poll() is not None,
            "ready",
            timeout=60,
        )
        assert self.make.poll() is None, self.text
        return self

    @property
    def supervisor(self) -> int:
        """The pid of `manage.py runlocal`."""
        (pid,) = (
            pid
            for pid, command in processes_of(self.folder).items()
            if " runlocal" in command and not command.startswith("make")
        )
        return pid

    def pid_of(self, words: str) -> int:
        """The lowest pid of its processes whose command has these words."""
        return min(pid for pid, command in processes_of(self.folder).items() if words in command)

    def wait_for_end(self, *, timeout: float = 10.0) -> int:
        """Wait for the end of make; returns its exit code."""
        return self.make.wait(timeout)

    def kill_all(self) -> None:
        """For the end of a test that failed half way."""
        for pid in processes_of(self.folder):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.make.wait(10)
