"""Every container of docker-compose.yml as a process, with the command that is written there.

What differs is where: hosts are addresses of 127.0.0.0/8 and ports are free ones, in commands,
health checks and the two configuration files alike. As root, PgBouncer and HAProxy run in a user
namespace, since they are no root's in their containers either.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from offers_project.local import postgres, valkey
from offers_project.local.children import UNCHANGED, Child, Guard, Privileges
from offers_project.local.environment import ROOT
from offers_project.local.postgres import THROWAWAY, Postgres
from tests.conftest import WEBHOOK_SECRET
from tests.deployment import compose
from tests.deployment.names import NameServer
from tests.local_processes import wait_for
from tests.ports import own_port
from tests.sandbox_process import SandboxProcess

HOST = "shop.example.com"
REPLICAS = ("127.0.0.2", "127.0.0.3")
# Where the proxy's own proxy is; who comes from elsewhere is believed nothing.
TRUSTED = "127.0.0.1"
PROGRAMS = {
    "pgbouncer": "pgbouncer",
    "haproxy": "haproxy",
    "redis-cli": "redis-tools",
    "wget": "wget",
}
START_SECONDS = 60.0
KEY = "deployment-tests-only-" * 3


def need_programs() -> None:
    """Skip without Debian's packages of what the containers have; where CI is set, fail."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = sorted({PROGRAMS[name] for name in PROGRAMS if not shutil.which(name, path=path)})
    if missing:
        say = f"Not installed: {' '.join(missing)} (Debian: apt-get install {' '.join(missing)})."
        if os.environ.get("CI"):
            pytest.fail(say, pytrace=False)
        pytest.skip(say)


class Stack:
    """The containers; ``url`` is the proxy's."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.guard = Guard()
        self.children: dict[str, Child] = {}
        self.ports = {name: own_port() for name in ("pgbouncer", "valkey", "web", "mail")}
        self.ports |= {"public": own_port(), "inside": own_port()}
        self.url = f"http://127.0.0.1:{self.ports['public']}"
        self.names = NameServer("web", list(REPLICAS))
        self.postgres = Postgres(
            folder / "postgres",
            log=folder / "postgres.log",
            guard=self.guard,
            settings=THROWAWAY | {"timezone": "Etc/UTC"},  # as the container has it
        )
        self.sandbox = SandboxProcess()
        self.env = env
        self._bin = folder / "bin"

    # -- Starting ----------------------------------------------------------------------------------

    def start(self, *, with_pages: bool) -> "Stack":
        """In the order of `depends_on`; pages need the files that the image collects."""
        self._find_programs()
        self.postgres.start()
        self.sandbox.start(webhook_secret=WEBHOOK_SECRET)
        self.services = compose.services(self._dot_env())
        self.replaced = self._replaced()
        (self.folder / "data").mkdir()
        for name in ("pgbouncer.ini", "haproxy.cfg"):
            text = (compose.DEPLOY / name).read_text(encoding="utf-8")
            (self.folder / name).write_text(self.here(text), encoding="utf-8")
        self.run("valkey", *("--port", str(self.ports["valkey"]), "--bind", "127.0.0.1"))
        self.run("pgbouncer", privileges=_not_root())
        self.manage_like("migrate")
        if with_pages:
            collect = ["python", "manage.py", "collectstatic", "--noinput"]
            assert self.complete(collect, self.environment("web")).returncode == 0
        for address in REPLICAS:
            self.start_web(address)
        self.run("worker")
        self.run("beat")
        for address in REPLICAS:
            self.wait_for_web(address)
        self.run("proxy", privileges=_not_root())
        wait_for(lambda: self.servers_up() == len(REPLICAS), "the proxy", timeout=START_SECONDS)
        return self

    def start_web(self, address: str) -> Child:
        """One replica of `web`; see ``wait_for_web``."""
        return self.run("web", name=f"web-{address}", address=address)

    def wait_for_web(self, address: str) -> None:
        """Until a replica is healthy."""
        what = f"web at {address}"
        wait_for(lambda: self.check("web", address=address) == 0, what, timeout=START_SECONDS)

    def run(
        self,
        service: str,
        *more: str,
        name: str = "",
        address: str = "127.0.0.1",
        privileges: Privileges = UNCHANGED,
    ) -> Child:
        """Start what a service runs, and return at once."""
        name = name or service
        command = compose.command_of(self.services[service])
        env = self.environment(service)
        program = shutil.which(command[0], path=env["PATH"])
        assert program is not None, command
        stop = self.services[service].get("stop_signal", "SIGTERM")
        child = Child(
            name,
            [program, *(self.here(word, address=address) for word in command[1:]), *more],
            log=self.folder / f"{name}.log",
            guard=self.guard,
            env=env,
            cwd=ROOT,
            stop_signal=signal.Signals[stop],
            privileges=privileges,
        )
        child.start()
        self.children[name] = child
        return child

    def stop(self) -> None:
        """End all of it."""
        for child in reversed(self.children.values()):
            child.kill()
        self.postgres.stop()
        self.sandbox.stop()
        self.names.stop()
        self.guard.close()

    # -- Asking ------------------------------------------------------------------------------------

    def client(self, source: str = TRUSTED) -> requests.Session:
        """A client at an address; from the trusted one it says that its own client came by TLS."""
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", _From(source))
        session.headers["Host"] = HOST
        if source == TRUSTED:
            session.headers["X-Forwarded-Proto"] = "https"
        return session

    def servers_up(self) -> int:
        """How many web servers the proxy sends requests to."""
        try:
            text = self._inside("metrics")
        except requests.RequestException:
            return 0
        wanted = [line for line in text.splitlines() if line.startswith("haproxy_server_status{")]
        return sum(
            line.endswith(" 1") for line in wanted if 'proxy="web"' in line and 'state="UP"' in line
        )

    def check(self, service: str, *, address: str = "127.0.0.1") -> int:
        """Run a service's health check; returns its exit code."""
        command = compose.check_of(self.services[service])
        return self.complete(
            [self.here(word, address=address) for word in command], self.environment(service)
        ).returncode

    def manage_like(self, service: str, code: str | None = None) -> str:
        """Run a command that ends: the service's own, or Python ``code`` with its environment."""
        command = compose.command_of(self.services[service])
        if code is not None:
            command = ["python", "manage.py", "shell", "--no-imports", "-c", code]
        done = self.complete(command, self.environment(service))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    # -- Here instead of there ---------------------------------------------------------------------

    def here(self, text: str, *, address: str = "127.0.0.1") -> str:
        """A command or configuration with the hosts, ports and paths of this stack."""
        # All at once: what was put in is not looked at again.
        text = re.sub("|".join(map(re.escape, self.replaced)), self._ours, text)
        return text.replace("0.0.0.0", address).replace("WEB", address)  # noqa: S104

    def _ours(self, found: "re.Match[str]") -> str:
        return self.replaced[found[0]]

    def environment(self, service: str) -> dict[str, str]:
        """Nothing of this process's, but what the service has, and PATH."""
        defined = dict(self.services[service].get("environment", {}))
        if "env_file" in self.services[service]:
            defined = {**compose.image_environment(), **self._dot_env(), **defined}
        path = os.pathsep.join(
            [
                *(str(self._bin), str(Path(sys.executable).parent), os.environ["PATH"]),
                *("/usr/sbin", str(postgres._wheel_folder() / "pginstall" / "bin")),
            ]
        )
        own = {name: self.here(str(value)) for name, value in defined.items()}
        base = {
            "PATH": path,
            "HOME": str(self.folder),
            "HOSTNAME": os.uname().nodename,
            "PGPORT": str(self.postgres.port),
        }
        return {**base, **own, "TMPDIR": str(self.folder)}

    def _dot_env(self) -> dict[str, str]:
        return {
            "SECRET_KEY": KEY,
            "STRIPE_SECRET_KEY": "sk_test_sandbox",
            "STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "STRIPE_API_BASE": self.sandbox.base_url,
            "ALLOWED_HOSTS": f"{HOST},www.{HOST}",
            "FRONTEND_URL": f"https://{HOST}",
            "TRUSTED_PROXIES": TRUSTED,
            "POSTGRES_PASSWORD": self.postgres.url.split(":")[2].split("@")[0],
            "CONTENT_DIR": str(self.folder / "content"),
            "DRAIN_SECONDS": "3",
            "LOG_LEVEL": "INFO",
            **self.env,
        }

    def _replaced(self) -> dict[str, str]:
        ports = self.ports
        return {
            "host=postgres port=5432": f"host=127.0.0.1 port={self.postgres.port}",
            "listen_addr = *": "listen_addr = 127.0.0.1",
            "6432": str(ports["pgbouncer"]),
            "@pgbouncer:": "@127.0.0.1:",
            "@postgres:5432": f"@127.0.0.1:{self.postgres.port}",
            "valkey:6379": f"127.0.0.1:{ports['valkey']}",
            "/etc/pgbouncer/pgbouncer.ini": str(self.folder / "pgbouncer.ini"),
            "/etc/haproxy/haproxy.cfg": str(self.folder / "haproxy.cfg"),
            "/tmp/": f"{self.folder}/",  # noqa: S108 - the container's
            "find /tmp ": f"find {self.folder} ",
            "127.0.0.11:53": f"127.0.0.1:{self.names.port}",
            "web:8000": f"web:{ports['web']}",
            "bind :8000": f"bind 127.0.0.1:{ports['public']}",
            "bind :8025": f"bind 127.0.0.1:{ports['mail']}",
            "bind :8405": f"bind 127.0.0.1:{ports['inside']}",
            "127.0.0.1:8405": f"127.0.0.1:{ports['inside']}",
            "'127.0.0.1', 8000": f"'WEB', {ports['web']}",
            "8000": str(ports["web"]),
            "/data": str(self.folder / "data"),
        }

    def _find_programs(self) -> None:
        self._bin.mkdir()
        (self._bin / "valkey-server").symlink_to(valkey._program())
        client = self._bin / "valkey-cli"
        client.write_text(f'#!/bin/sh\nexec redis-cli -p {self.ports["valkey"]} "$@"\n')
        client.chmod(0o755)

    def _inside(self, path: str) -> str:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://127.0.0.1:{self.ports['inside']}/{path}", timeout=5).text

    def complete(
        self, command: Iterable[str], env: dict[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            list(command), cwd=ROOT, env=env, capture_output=True, text=True, timeout=START_SECONDS
        )


class _From(HTTPAdapter):
    """Connections from one of this machine's addresses."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__(pool_maxsize=64)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._source, 0), **kwargs)


def _not_root() -> Privileges:
    return Privileges(user_namespace=True) if os.geteuid() == 0 else UNCHANGED
