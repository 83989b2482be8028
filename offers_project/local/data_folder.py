"""DATA_DIR: what a local run keeps on disk, and the lock that makes it one run's at a time."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from offers_project.local.environment import LOCK_FILE, RUN_FILE, is_alive, write_private

KEPT_FILE = "kept.json"
# A run that was killed holds the lock until its guard has ended its children (guard.GRACE_SECONDS).
LOCK_WAIT_SECONDS = 8.0


class UnusableFolder(Exception):
    """DATA_DIR can't be used. The text is one sentence for the person at the terminal."""


class DataFolder:
    """The folder of one run. Made by `runlocal`; `lock` before anything else is touched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_file: IO[str] | None = None
        self.kept: dict[str, Any] = {}

    def lock(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Create the folder and take it for this process. Raises UnusableFolder."""
        if not str(self.path).isprintable():
            raise UnusableFolder(
                f"DATA_DIR {str(self.path)!r} has characters that can't be printed: choose another."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock_file = (self.path / LOCK_FILE).open("a+", encoding="ascii")
        except FileExistsError as error:
            raise UnusableFolder(
                f"DATA_DIR {self.path} is not a folder: choose another."
            ) from error
        except OSError as error:
            raise UnusableFolder(
                f"DATA_DIR {self.path} can't be used ({error.strerror}): choose another, "
                f'such as "make run DATA_DIR=/tmp/offers".'
            ) from error
        self._take_lock(pause)
        self.lock_file.truncate(0)
        self.lock_file.write(str(os.getpid()))
        self.lock_file.flush()
        try:
            for name in ("logs", "mail", "celery"):
                (self.path / name).mkdir(exist_ok=True)
            self._read_kept()
            self._start_new_logs()
            self.forget_run()
        except OSError as error:
            raise UnusableFolder(
                f"DATA_DIR {self.path} can't be used ({error.filename}: {error.strerror}): "
                f"choose another."
            ) from error

    def log(self, name: str) -> Path:
        """The log file of the part called `name`."""
        return self.path / "logs" / f"{name}.log"

    def keep(self, **values: object) -> None:
        """Remember values for the next run."""
        self.kept.update(values)
        write_private(self.path / KEPT_FILE, self.kept)

    def publish_run(self, run: dict[str, Any]) -> None:
        """Let other commands find this run. See environment.adopt."""
        write_private(self.path / RUN_FILE, run)

    def forget_run(self) -> None:
        """The run is over."""
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def _take_lock(self, pause: Callable[[float], None]) -> None:
        assert self.lock_file is not None
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self.lock_file.seek(0)
                owner = self.lock_file.read().strip()
                # A command that looks for a run holds the lock for microseconds, a killed run's
                # guard for seconds: only a process that is alive is worth giving up for.
                if time.monotonic() > deadline or (owner and is_alive(int(owner))):
                    raise UnusableFolder(
                        f"A run is up in {self.path} already (pid {owner}): stop that one, "
                        f"or choose another DATA_DIR and PORT."
                    ) from None
                pause(0.05)

    def _read_kept(self) -> None:
        """The secrets of this folder: made once, so that logins survive a restart."""
        try:
            self.kept = json.loads((self.path / KEPT_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            self.kept = {}
        made = {
            "SECRET_KEY": secrets.token_urlsafe(48),
            "STRIPE_SECRET_KEY": f"sk_test_{secrets.token_hex(24)}",
            "STRIPE_WEBHOOK_SECRETS": f"whsec_{secrets.token_hex(24)}",
            "valkey_password": secrets.token_hex(24),
        }
        self.keep(**{name: value for name, value in made.items() if name not in self.kept})

    def _start_new_logs(self) -> None:
        """One run a log file, and the run before it beside it."""
        for log in (self.path / "logs").glob("*.log"):
            log.replace(log.with_suffix(".log.1"))
