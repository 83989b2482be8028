"""Start the parts of a local run, keep them up, end them in order.

Knows nothing of what the parts are: `runlocal` hands them over. Everything happens on the main
thread: the kernel ends a child with the thread that started it.
"""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from offers_project.local.children import Child, ChildFailed

TICK_SECONDS = 0.1
# Three stages one after another, and a moment for SIGKILL, must stay well below 10 s.
STAGE_SECONDS = 2.0
RESTARTS_ALLOWED = 5
RESTART_WINDOW_SECONDS = 60.0


class StopRequested(Exception):
    """Somebody wants the run to end: a signal, or the end of the `make` above it."""


class Part(Protocol):
    """What the supervisor keeps up."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def child(self) -> Child | None:
        """Its process, None before its first start."""

    def start(self) -> None:
        """Start it, again after it ended. May return before it is of use. Raises ChildFailed."""


@dataclass
class Program:
    """A part that is one command; `is_up` says when it is of use."""

    child: Child
    is_up: Callable[[], bool]
    pause: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        return self.child.name

    def start(self) -> None:
        """Start it and return at once."""
        self.child.start()

    def wait_until_up(self, *, timeout: float) -> None:
        """Wait up to `timeout` seconds until it is of use; raises ChildFailed."""
        self.child.wait_until(self.is_up, timeout=timeout, pause=self.pause)


@dataclass
class _Watched:
    part: Part
    stage: int
    restarts: deque[float] = field(default_factory=deque)


class Supervisor:
    """Made by `runlocal.main`, once in a process."""

    def __init__(self, say: Callable[[str], None], *, end_with_parent: bool = False) -> None:
        self._say = say
        self._watched: list[_Watched] = []
        self._errand: Child | None = None
        self._signal: int | None = None
        self._parent = _Parent() if end_with_parent else None

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and a closed terminal end the run at its next `pause`, not in the middle
        of something: a child that is started but not yet written down would be nobody's to end."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # Set also where SIGINT is ignored, as it is for `make run &` in a script.
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def pause(self, seconds: float) -> None:
        """Wait; raises StopRequested. Every wait of the run goes through here."""
        self._check()
        time.sleep(seconds)
        self._check()

    def start(self, part: Part, *, stop_stage: int) -> None:
        """Start a part and keep it up from now on; lower stages are ended first."""
        self._watched.append(_Watched(part, stop_stage))
        part.start()

    def run_to_end(self, child: Child, *, timeout: float) -> None:
        """Run a command that ends by itself. Raises ChildFailed, StopRequested."""
        self._errand = child
        child.start()
        child.wait_for_end(timeout=timeout, pause=self.pause)
        child.kill()
        self._errand = None

    def watch(self) -> None:
        """Start again what ends, until StopRequested; raises ChildFailed when it keeps ending."""
        while True:
            self.pause(TICK_SECONDS)
            for watched in self._watched:
                child = watched.part.child
                if child is not None and not child.is_running():
                    self._start_again(watched, child)

    def stop(self) -> None:
        """End everything, stage by stage; who doesn't end in time is killed."""
        if self._errand:
            self._errand.stop(timeout=STAGE_SECONDS)
        for stage in sorted({watched.stage for watched in self._watched}):
            children = [
                watched.part.child
                for watched in self._watched
                if watched.stage == stage and watched.part.child is not None
            ]
            for child in children:
                child.ask_to_stop()
            deadline = time.monotonic() + STAGE_SECONDS
            for child in children:
                if not child.stop(timeout=max(0.0, deadline - time.monotonic()), ask=False):
                    self._say(f"{child.name} did not end by itself: killed.")

    def _start_again(self, watched: _Watched, child: Child) -> None:
        now = time.monotonic()
        status = child.exit_status()
        restarts = watched.restarts
        while restarts and restarts[0] < now - RESTART_WINDOW_SECONDS:
            restarts.popleft()
        if len(restarts) == RESTARTS_ALLOWED:
            raise ChildFailed(child.failure(f"keeps ending ({status})"))
        restarts.append(now)
        child.kill()  # what it started may have outlived it, and would get in the new one's way
        watched.part.start()
        self._say(f"{child.name} ended ({status}): started again.")

    def _check(self) -> None:
        if self._signal is not None or (self._parent and self._parent.is_over()):
            raise StopRequested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number


class _Parent:
    """The `make` above us, whose end is ours.

    A terminal sends Ctrl-C to both. But a `make` that alone gets SIGINT forwards nothing: it puts
    the signal's default action back and waits for us. That shows in the signals it catches.
    """

    def __init__(self) -> None:
        self._pid = os.getppid()
        self._caught_interrupt = self._catches_interrupt()

    def is_over(self) -> bool:
        """Whether it is dead, or was interrupted and waits."""
        if os.getppid() != self._pid:
            return True
        return self._caught_interrupt and not self._catches_interrupt()

    def _catches_interrupt(self) -> bool:
        if sys.platform != "linux":
            return False
        try:
            status = Path(f"/proc/{self._pid}/status").read_text(encoding="utf-8")
        except OSError:
            return False  # gone, or not ours to read
        for line in status.splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGINT - 1) & 1)
        return False
