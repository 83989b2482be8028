"""`make run` and `python manage.py runlocal`: the whole service on one machine, from nothing.

The order is the story: take the data folder, PostgreSQL, Valkey, the Stripe sandbox, migrations,
demo data, the worker and the web server; then keep them up until somebody says stop.
"""

import argparse
import http.client
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from offers_project.local import environment, ports
from offers_project.local.children import Child, ChildFailed, Guard
from offers_project.local.data_folder import DataFolder, UnusableFolder
from offers_project.local.postgres import Postgres
from offers_project.local.supervisor import Program, StopRequested, Supervisor
from offers_project.local.valkey import ValkeyProcess
from offers_project.local.worker_ready import VARIABLE as WORKER_READY_VARIABLE

MANAGE = [sys.executable, str(environment.ROOT / "manage.py")]
WEBHOOK_PATH = "/api/v1/webhooks/stripe/"
START_SECONDS = 90.0
MIGRATE_SECONDS = 300.0
# The web server ends first, so that nothing new comes in; the servers it talks to end last.
WEB_STAGE, WORKER_STAGE, SERVER_STAGE = range(3)


class BadOption(Exception):
    """An option that can't be used, in one sentence."""


def main(argv: Sequence[str]) -> int:
    """Run until told to stop; 0 after that, 1 with a sentence on stderr when something went wrong.
    manage.py calls it before Django is configured."""
    options = _parser().parse_args(argv)
    supervisor = Supervisor(say, end_with_parent=options.end_with_parent)
    with supervisor.catching_signals():
        guard: Guard | None = None
        folder: DataFolder | None = None
        try:
            port = _port(options.port)
            folder = DataFolder(environment.data_dir())
            folder.lock(supervisor.pause)
            _check_port(options.host, port)
            assert folder.lock_file is not None
            guard = Guard(keep_open=[folder.lock_file.fileno()])
            LocalRun(supervisor, folder, guard, options.host, port).start()
            supervisor.watch()
        except StopRequested:
            say("\nstopping …")
            status = 0
        except (BadOption, UnusableFolder, ChildFailed) as error:
            complain(str(error))
            status = 1
        except OSError as error:
            complain(f"The local run can't go on: {error}.")
            status = 1
        finally:
            begun = time.monotonic()
            supervisor.stop()
            if guard:
                folder_in_use = folder
                guard.close()
                if folder_in_use:
                    folder_in_use.forget_run()
                say(f"stopped ({time.monotonic() - begun:.1f} s).")
    return status


class LocalRun:
    """One run: its addresses, its environment and its parts."""

    def __init__(
        self, supervisor: Supervisor, folder: DataFolder, guard: Guard, host: str, port: int
    ) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._guard = guard
        self._host = host
        self._port = port
        self.url = f"http://{_reachable_host(host)}:{port}"
        self.sandbox_url: str | None = None
        self.env = self._environment()
        self._demo_data_in = ""

    def start(self) -> None:
        """Start everything and say where it is. Raises ChildFailed, StopRequested."""
        begun = time.monotonic()
        self._start_postgres()
        self._start_valkey()
        sandbox = self._start_sandbox()
        with step("migrations", done="done"):
            self._manage("migrate", "--noinput")
        if self._folder.kept.get("demo_data_in") != self._demo_data_in:
            with step("demo data", done="done"):
                self._manage("seed_demo")
            self._folder.keep(demo_data_in=self._demo_data_in)
        if sandbox:
            with step("Stripe sandbox"):
                sandbox.wait_until_up(timeout=START_SECONDS)
        with step("Celery worker, web server"):
            worker, web = self._worker(), self._web()
            self._supervisor.start(worker, stop_stage=WORKER_STAGE)
            self._supervisor.start(web, stop_stage=WEB_STAGE)
            worker.wait_until_up(timeout=START_SECONDS)
            web.wait_until_up(timeout=START_SECONDS)
        self._publish()
        self._announce(time.monotonic() - begun)

    def _environment(self) -> dict[str, str]:
        """What people set wins over what we supply; an empty value counts as not set."""
        supplied = environment.supplied(
            folder=self._folder.path, host=self._host, url=self.url, secrets=self._folder.kept
        )
        given = {
            name: value
            for name, value in {**environment.dotenv_values(), **os.environ}.items()
            if value or name not in environment.SETTINGS
        }
        # A proxy for the way out must not see what the parts say to one another.
        exempt = ",".join(
            filter(None, [given.get("no_proxy") or given.get("NO_PROXY"), "127.0.0.1,localhost"])
        )
        env = {
            "GRANIAN_WORKERS": "2",
            "GRANIAN_BLOCKING_THREADS": "32",
            **supplied,
            **given,
            "LOCAL_RUN": "1",
            "DATA_DIR": str(self._folder.path),
            "DJANGO_SETTINGS_MODULE": "offers_project.settings",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": exempt,
            "no_proxy": exempt,
            "PROMETHEUS_MULTIPROC_DIR": str(self._folder.path / "metrics"),
            WORKER_READY_VARIABLE: str(self._folder.path / "celery" / "ready"),
        }
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):
            env.pop(name, None)
        return env

    def _start_postgres(self) -> None:
        if "DATABASE_URL" in self.env:
            url = urlsplit(self.env["DATABASE_URL"])
            self._demo_data_in = f"{url.hostname}:{url.port}{url.path}"
            say(f"PostgreSQL: {self._demo_data_in}, from DATABASE_URL")
            return
        postgres = Postgres(
            self._folder.path / "postgres",
            log=self._folder.log("postgres"),
            guard=self._guard,
            pause=self._supervisor.pause,
        )
        with step(f"PostgreSQL {postgres.version}"):
            self._supervisor.start(postgres, stop_stage=SERVER_STAGE)
        self.env["DATABASE_URL"] = postgres.url
        self._demo_data_in = f"embedded {postgres.made_at}"

    def _start_valkey(self) -> None:
        if "REDIS_URL" in self.env:
            url = urlsplit(self.env["REDIS_URL"])
            say(f"Redis: {url.hostname}:{url.port}{url.path}, from REDIS_URL")
            return
        valkey = ValkeyProcess(
            folder=self._folder.path / "valkey",
            log=self._folder.log("valkey"),
            guard=self._guard,
            password=self._folder.kept["valkey_password"],
            keeps_data=True,
            pause=self._supervisor.pause,
        )
        with step(f"Valkey {valkey.version}"):
            self._supervisor.start(valkey, stop_stage=SERVER_STAGE)
        self.env["REDIS_URL"] = f"{valkey.url}/0"

    def _start_sandbox(self) -> Program | None:
        """It starts while the database is prepared; `start` waits for it later."""
        if "STRIPE_API_BASE" in self.env:
            say(f"Stripe: {self.env['STRIPE_API_BASE']}, from STRIPE_API_BASE")
            return None
        # The port of the last run if possible: payment pages opened then go on working.
        port = ports.free_port(self._folder.kept.get("sandbox_port"))
        self._folder.keep(sandbox_port=port)
        self.sandbox_url = self.env["STRIPE_API_BASE"] = f"http://127.0.0.1:{port}"
        sandbox = self._program(
            "Stripe sandbox",
            "stripe_sandbox",
            [
                *(*MANAGE, "stripe_sandbox", "--port", str(port)),
                *("--data", str(self._folder.path / "stripe_sandbox.sqlite3")),
                *("--webhook-url", self.url + WEBHOOK_PATH),
                *("--webhook-secret", self.env["STRIPE_WEBHOOK_SECRETS"].split(",")[0].strip()),
            ],
        )
        sandbox.is_up = lambda: (
            f"stripe sandbox: {self.sandbox_url}" in sandbox.child.new_log_text()
        )
        self._supervisor.start(sandbox, stop_stage=SERVER_STAGE)
        return sandbox

    def _worker(self) -> Program:
        ready_file = Path(self.env[WORKER_READY_VARIABLE])
        ready_file.unlink(missing_ok=True)
        # What the processes of the last run counted.
        shutil.rmtree(self.env["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
        worker = self._program(
            "Celery worker",
            "worker",
            [
                *(sys.executable, "-m", "celery", "-A", "offers_project", "worker"),
                *("--include", "offers_project.local.worker_ready"),
                *("--beat", "--schedule", str(self._folder.path / "celery" / "schedule")),
                *("--pool", "threads", "--concurrency", "4"),
                # Nobody else to talk to: these only make the start longer.
                *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
            ],
        )
        worker.is_up = ready_file.exists
        return worker

    def _web(self) -> Program:
        web = self._program(
            "web server",
            "web",
            [
                *(sys.executable, "-m", "granian", "--interface", "wsgi"),
                *("--host", self._host, "--port", str(self._port), "--http", "1"),
                # In whole seconds, and less than the supervisor's patience for a stage.
                *("--respawn-failed-workers", "--workers-kill-timeout", "1"),
                "offers_project.wsgi:application",
            ],
        )
        web.is_up = lambda: is_ready(_reachable_host(self._host), self._port)
        return web

    def _program(self, name: str, log: str, command: Sequence[str]) -> Program:
        return Program(self._child(name, log, command), lambda: True, self._supervisor.pause)

    def _manage(self, command: str, *arguments: str) -> None:
        child = self._child(command, command, [*MANAGE, command, *arguments])
        self._supervisor.run_to_end(child, timeout=MIGRATE_SECONDS)

    def _child(self, name: str, log: str, command: Sequence[str]) -> Child:
        return Child(
            name,
            command,
            log=self._folder.log(log),
            guard=self._guard,
            env=self.env,
            cwd=environment.ROOT,
        )

    def _publish(self) -> None:
        self._folder.publish_run(
            {
                "pid": os.getpid(),
                "started_at": datetime.now(UTC).isoformat(),
                "url": self.url,
                "sandbox_url": self.sandbox_url,
                "env": {name: self.env[name] for name in environment.SETTINGS if name in self.env},
            }
        )

    def _announce(self, seconds: float) -> None:
        say(f"\nready: {self.url}")
        if self.sandbox_url:
            say(f"stripe sandbox: {self.sandbox_url}")
        if self.env["EMAIL_URL"].startswith("filemail:"):
            say(f"mail: {self.url}/mail/")
        say(
            f"""
  demo logins (the password is the name): admin, organizer, rival, attendee1 … attendee60
    shop   {self.url}/events/demo-conf/offers
    admin  {self.url}/admin/
    API    {self.url}/api/v1/docs/
  up in {seconds:.1f} s; logs in {self._folder.path / "logs"}; stop with Ctrl-C
"""
        )


def say(text: str) -> None:
    """A line for the person at the terminal, who may have closed it."""
    _write(sys.stdout, f"{text}\n")


def complain(text: str) -> None:
    """A line on stderr."""
    _write(sys.stderr, f"{text}\n")


@contextmanager
def step(name: str, *, done: str = "up") -> Iterator[None]:
    """Say what is being done, and how long it took."""
    begun = time.monotonic()
    _write(sys.stdout, f"{name} … ")
    try:
        yield
    except BaseException:
        _write(sys.stdout, "\n")
        raise
    say(f"{done} ({time.monotonic() - begun:.1f} s)")


def is_ready(host: str, port: int) -> bool:
    """Whether the web server says on /readyz that it can serve."""
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _write(stream: TextIO, text: str) -> None:
    # A terminal that is gone is no reason to fail: the run's own end is decided elsewhere.
    with suppress(OSError):
        stream.write(text)
        stream.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manage.py runlocal",
        description="Run the whole service on this machine. "
        "Environment: PORT, DATA_DIR, and every setting.",
    )
    parser.add_argument(
        "--port", default=os.environ.get("PORT") or "8000", help="the web server's (default: 8000)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="where the web server listens (default: this machine only)",
    )
    parser.add_argument("--end-with-parent", action="store_true", help="end when `make` does")
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise BadOption(f"PORT must be a number from 1 to 65535, not {text!r}.")


def _check_port(host: str, port: int) -> None:
    reason = ports.why_unavailable(host, port)
    if reason:
        raise BadOption(
            f"Port {port} of {host} can't be used ({reason}): choose another, "
            f'such as "make run PORT={port + 1 if port < 65535 else 8000}".'
        )


def _reachable_host(host: str) -> str:
    """The host part of a URL by which this machine reaches a server that listens on `host`."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - asked for with --host
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
