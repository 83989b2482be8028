"""Our own processes as production starts them: granian, Celery's worker and beat, commands."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from django.contrib.auth.models import User
from django.db import connection
from rest_framework_simplejwt.tokens import AccessToken

from offers_project.local.children import Child, Guard
from offers_project.local.environment import ROOT
from tests.ports import own_port

START_SECONDS = 60.0
# More patience than any answer needs: the tests look at what is answered, not how soon.
ANSWER_SECONDS = 60.0


class Processes:
    """Processes of one environment, all of which end with it; ``url`` is the web server's."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", **env}
        self.guard = Guard()
        self.port = own_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._children: list[tuple[Child, Callable[[], bool]]] = []

    def start_web(
        self,
        *,
        workers: int,
        threads: int = 32,
        application: str = "offers_project.wsgi:application",
    ) -> Child:
        """Start granian with production's options; see ``wait_until_up``."""
        return self._start(
            "web",
            *("granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--http", "1"),
            *("--workers", str(workers), "--blocking-threads", str(threads)),
            *("--respawn-failed-workers", "--workers-kill-timeout", "1"),
            application,
            is_up=self._web_is_up,
        )

    def start_worker(
        self,
        *,
        beat: bool,
        name: str = "worker",
        queues: str = "",
        threads: int = 4,
        pool: str = "threads",
        application: str = "offers_project",
    ) -> Child:
        """Start Celery's worker; see ``wait_until_up``. Without ``queues`` it takes from all."""
        schedule = ("--beat", "--schedule", str(self.folder / "schedule")) if beat else ()
        return self._start(
            name,
            *("celery", f"--app={application}", "worker", f"--hostname={name}@%h", *schedule),
            *(("--queues", queues) if queues else ()),
            *(f"--pool={pool}", f"--concurrency={threads}"),
            *("--without-gossip", "--without-mingle", "--loglevel=INFO"),
            is_up=lambda: " ready." in self.log(name),
        )

    def wait_until_up(self) -> None:
        """Wait until the web server serves and the worker takes tasks, as far as they started."""
        for child, is_up in self._children:
            child.wait_until(is_up, timeout=START_SECONDS)

    def manage(self, *command: str, code: str | None = None) -> str:
        """Run a management command and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command, *(("-c", code) if code else ())],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """End all of them."""
        for child, _ in self._children:
            child.ask_to_stop()
        for child, _ in self._children:
            child.stop(timeout=5, ask=False)
        self.guard.close()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _start(self, name: str, *module: str, is_up: Callable[[], bool]) -> Child:
        child = Child(
            name,
            [sys.executable, "-m", *module],
            log=self.folder / f"{name}.log",
            guard=self.guard,
            env=self.env,
            cwd=ROOT,
        )
        child.start()
        self._children.append((child, is_up))
        return child

    def _web_is_up(self) -> bool:
        try:
            return http("GET", f"{self.url}/readyz").status_code == 200
        except requests.RequestException:
            return False


def http(method: str, url: str, **options: Any) -> requests.Response:
    """One request on a connection of its own, so that any of the server's processes may get it."""
    options.setdefault("timeout", ANSWER_SECONDS)
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, **options)


def bearer(user: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {AccessToken.for_user(user)}"}


def own_database_url() -> str:
    """The database that the tests of this process have, for processes that they start."""
    settings = connection.settings_dict
    where = f"{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    return f"postgres://{settings['USER']}:{settings['PASSWORD']}@{where}"


@contextmanager
def at_the_same_time(how_many: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for so many requests; leaving the block waits for all of them."""
    with ThreadPoolExecutor(max_workers=how_many) as pool:
        yield pool
