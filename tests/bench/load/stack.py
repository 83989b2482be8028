"""What is measured: the service as its image starts it, with its servers, and the floor beside it.

One PostgreSQL with a database for each amount of data, and a web server for each of those, so that
the same work on little and on much data can be measured in turn. No Celery worker runs but where a
row starts one: what it would do is measured by itself.
"""

import http.client
import json
import os
import platform
import re
import signal
import sys
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from urllib.parse import urlencode

import django

from offers_project.local.children import Child, Guard
from offers_project.local.environment import ROOT
from offers_project.local.postgres import Postgres
from offers_project.local.valkey import ValkeyProcess
from tests.bench.load import cpu
from tests.ports import own_port

START_SECONDS = 60.0
MAX_CONNECTIONS = 300
# Of the web server, behind a proxy that is not measured: one for each core that the goals are for.
REPLICAS = 2
# For `row_lock`: the time in seconds, and the session's process.
LOG = {"log_line_prefix": "%n [%p] "}
WEBHOOK_SECRET = "whsec_bench"
# Valkey's databases.
CACHES = {"small": 0, "large": 1}

# Every setting that production has to give, and those that a load from one address needs.
SETTINGS = {
    "DEBUG": "False",
    "LOCAL_RUN": "False",
    "SECRET_KEY": "of-a-benchmark-that-signs-nothing-anybody-keeps-0123456789",
    "ALLOWED_HOSTS": "127.0.0.1",
    "STRIPE_SECRET_KEY": "sk_test_bench",
    "STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
    "FRONTEND_URL": "https://shop.example",
    "EMAIL_URL": "dummymail://",
    "PURCHASE_RATE_LIMIT_IP": "1000000/s",
    "ACCESS_TOKEN_MINUTES": "240",
}


PRODUCTION = Path(__file__).parent / "production"


class Image:
    """What the Dockerfile says of how the service runs."""

    def __init__(self) -> None:
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        said = r"\b(GRANIAN_\w+|DB_\w+|STRIPE_\w+|MALLOC_\w+)=(\S+)"
        self.env = dict(re.findall(said, text)) | {
            "PYTHONPATH": str(PRODUCTION),
            "OFFERS_BENCH_HIDDEN": " ".join(_only_for_development()),
        }
        command = json.loads(text.rpartition("\nCMD ")[2])
        # Without the drain before it, which waits some seconds at the end.
        self._command = command[command.index("granian") :]

    def command(self, *, port: int, application: str | None = None) -> list[str]:
        """The web server's, on another port, for another application."""
        moved = {"0.0.0.0": "127.0.0.1", "8000": str(port)}  # noqa: S104 - the image's, replaced
        words = [moved.get(word, word) for word in self._command]
        if application:
            words[-1] = application
        return [sys.executable, "-m", *words]


class Stack:
    """All of it. ``start`` it, start web servers by name, and ``stop`` it."""

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self.folder = folder
        self.image = Image()
        self.guard = Guard()
        if not keep:
            self.guard.remove(folder)
        self.postgres = Postgres(
            folder / "postgres",
            log=folder / "postgres.log",
            guard=self.guard,
            max_connections=MAX_CONNECTIONS,
            settings=LOG,  # all else as PostgreSQL has it: what is committed is on the disk
            stop_signal=signal.SIGQUIT,  # at once: nobody reads this data again
        )
        self.valkey = ValkeyProcess(folder=folder / "valkey", guard=self.guard)
        # Of each server's processes, by its name.
        self.ports: dict[str, list[int]] = {}
        self._children: dict[str, list[Child]] = {}

    def start(self) -> None:
        """Start PostgreSQL, Valkey and the Stripe responder."""
        self.valkey.start()
        self.postgres.start()
        responder = self._start(
            "stripe", [sys.executable, "-m", "tests.bench.load.stripe_responder"], env=_inherited()
        )
        said = "listening on "
        responder.wait_until(lambda: said in responder.new_log_text(), timeout=START_SECONDS)
        self.ports["stripe"] = [int(responder.new_log_text().partition(said)[2].split()[0])]

    def start_web(self, database: str, *, name: str | None = None) -> None:
        """Start the service on one of the databases, whose name it has unless it is given one."""
        self._start_web(name or database, self.environment(database))

    def stop_web(self, name: str) -> None:
        """End one of the web servers."""
        for child in self._children.pop(name):
            child.stop(timeout=5)

    def start_floor(self, database: str) -> None:
        """Start the bare views, with tables in that database and a pool like the service's."""
        env = {
            **_inherited(),
            **self.image.env,
            "DATABASE_URL": self.database_url(database),
            "DB_POOL_SIZE": self.image.env.get("DB_POOL_SIZE") or _default("DB_POOL_SIZE"),
        }
        self._start_web("floor", env, application="tests.bench.load.floor.wsgi:application")

    def environment(self, database: str) -> dict[str, str]:
        """What a process of the service finds in its environment."""
        return {
            **_inherited(),
            **self.image.env,
            **SETTINGS,
            "DATABASE_URL": self.database_url(database),
            "REDIS_URL": f"{self.valkey.url}/{CACHES[database]}",
            "STRIPE_API_BASE": f"http://127.0.0.1:{self.ports['stripe'][0]}",
            "CONTENT_DIR": str(self.folder / "content"),
            # In files, as in the image, which costs more than in the process.
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics"),
        }

    def database_url(self, database: str) -> str:
        return f"{self.postgres.url.rpartition('/')[0]}/{database}"

    def web_processes(self, name: str) -> list[int]:
        """Those in which a web server answers requests."""
        below = (cpu.descendants(root) for root in self.roots(name)["web"])
        return [pid for found in below for pid in found if not cpu.is_helper(pid)]

    def roots(self, web: str | None = None) -> dict[str, list[int]]:
        """The first processes of each group whose time counts; ``web`` names the web server."""
        found = {
            "PostgreSQL": [self.postgres.child],
            "Valkey": [self.valkey.child],
            "Stripe": self._children["stripe"],
        }
        if web:
            found["web"] = self._children[web]
        return {
            name: [child.pid for child in children if child and child.pid]
            for name, children in found.items()
        }

    def versions(self) -> dict[str, str]:
        """Of what was measured, by name."""
        packages = ("Django", "djangorestframework", "psycopg", "granian")
        return {
            "Python": platform.python_version(),
            "PostgreSQL": self.postgres.version,
            "Valkey": self.valkey.version,
            **{name: version(name.lower()) for name in packages},
        }

    def set_stripe(self, *, latency: float = 0.0, limit: float = 0.0) -> None:
        """Seconds until an answer; requests a second beyond which it is 429, or 0."""
        self._ask_stripe(urlencode({"latency": latency, "limit": limit}))

    def stripe_requests(self) -> dict[str, int]:
        """How many there were since the last ``set_stripe``, and how many got 429."""
        return self._ask_stripe("")

    def stop(self) -> None:
        """End everything; the guard then deletes the folder."""
        children = [child for started in self._children.values() for child in started]
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.stop(timeout=5, ask=False)
        self.postgres.stop()
        self.valkey.stop()
        self.guard.close()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _start_web(self, name: str, env: dict[str, str], application: str | None = None) -> None:
        self.ports[name] = []
        for _ in range(REPLICAS):
            port = own_port()
            command = self.image.command(port=port, application=application)
            child = self._start(name, command, env=env)
            child.wait_until(partial(_is_ready, port), timeout=START_SECONDS)
            self.ports[name].append(port)

    def _start(self, name: str, command: list[str], *, env: dict[str, str]) -> Child:
        child = Child(
            name, command, log=self.folder / f"{name}.log", guard=self.guard, env=env, cwd=ROOT
        )
        child.start()
        self._children.setdefault(name, []).append(child)
        return child

    def _ask_stripe(self, body: str) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["stripe"][0], timeout=10)
        connection.request("POST", "/bench", body)
        answer: dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return answer


def set_up_django(stack: Stack) -> None:
    """Make this process one of the service: it fills the databases and serves nothing."""
    os.environ.update(
        stack.environment("small") | {"DB_POOL_SIZE": "0", "LOG_LEVEL": "ERROR"},
        DJANGO_SETTINGS_MODULE="offers_project.settings",
    )
    django.setup()


def _inherited() -> dict[str, str]:
    """The environment without anything that a developer has set for the service."""
    names = {*re.findall(r"^#? ?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)}
    ours = names | {"LOCAL_RUN", "OFFERS_OFFLINE", "DJANGO_SETTINGS_MODULE"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _only_for_development() -> list[str]:
    """The modules of packages that are installed here and aren't in requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {line.partition("==")[0] for line in lines}
    return sorted(
        module
        for module, packages in packages_distributions().items()
        if not required & {re.sub(r"[-_.]+", "-", package).lower() for package in packages}
    )


def _default(name: str) -> str:
    """A setting's, as `.env.example` has it."""
    found = re.search(rf"^# {name}=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert found, f"{name} is not in .env.example"
    return found.group(1)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
