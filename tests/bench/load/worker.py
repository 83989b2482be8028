"""A process of the service that runs tasks, as a Celery worker does, when it is told to.

The task's function is the real one; what is left out is the message that starts it.
"""

import os
import sys
import time
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.bench.load import cpu
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.stack import Stack

PATIENCE = 10


class Worker:
    """One such process, on one of the databases. It ends with the process that started it."""

    def __init__(self, stack: Stack, database: str) -> None:
        spawn = get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        log = stack.folder / f"worker-{database}.log"
        self._stack = stack
        self._process: Any = spawn.Process(
            target=_serve, args=(theirs, stack.environment(database), log), daemon=True
        )
        self._process.start()
        self._pipe.recv()

    def run(self, task: str, *, count: int) -> Measured:
        """Run a task until it has done ``count``, or finds nothing more. Raises ``Wrong``."""
        roots = self._stack.roots() | {"worker": [self._process.pid]}
        before = cpu.seconds(roots)
        self._pipe.send((task, count))
        done, seconds = self._pipe.recv()
        if isinstance(done, str):
            raise Wrong(f"{task} raised {done}")
        if not done:
            raise Wrong(f"{task} found nothing to do")
        return Measured(done, seconds, cpu.between(before, cpu.seconds(roots)))

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, env: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(env, DJANGO_SETTINGS_MODULE="offers_project.settings")
    output = log.open("ab")
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    import django

    django.setup()
    pipe.send("ready")
    while True:
        task, count = pipe.recv()
        try:
            pipe.send(_run(task, count))
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            pipe.send((f"{type(error).__name__}: {error}", 0.0))


def _run(task: str, count: int) -> tuple[int, float]:
    module, _, name = task.rpartition(".")
    function = getattr(import_module(module), name)
    began, done, found_nothing = time.perf_counter(), 0, 0
    # A sweep whose time is up may have done a part of what it does without having finished any.
    while done < count and found_nothing < PATIENCE:
        just = function()
        done += just
        found_nothing = 0 if just else found_nothing + 1
    return done, time.perf_counter() - began
