"""The servers that the test suite needs: a pytest plugin (`-p tests.servers` in pyproject.toml).

Before pytest-django reads the settings, it starts a real PostgreSQL and a real Valkey in a
temporary folder, unless DATABASE_URL or REDIS_URL is set in the environment, and sets the
environment that the settings read. They end with the test run, also when pytest is killed.

With pytest-xdist the controller starts them, and each worker takes a database of its own: in
PostgreSQL by pytest-django's name for it, in Valkey by its number.
"""

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from offers_project.local.children import ChildFailed, Guard
from offers_project.local.postgres import THROWAWAY, Postgres
from offers_project.local.valkey import ValkeyProcess

# Every setting, so that neither a developer's `.env` nor shell changes what the tests see.
ENVIRONMENT = {
    "LOCAL_RUN": "1",
    "DEBUG": "False",
    "SECRET_KEY": "tests-only-secret-key-that-signs-nothing-anybody-keeps",
    "ALLOWED_HOSTS": "testserver,127.0.0.1,localhost,[::1]",
    "STRIPE_SECRET_KEY": "sk_test_tests",
    "STRIPE_WEBHOOK_SECRETS": "whsec_tests",
    # The discard port: a test that forgets its sandbox fails, and never reaches Stripe.
    "STRIPE_API_BASE": "http://127.0.0.1:9",
    "FRONTEND_URL": "http://testserver",
    "EMAIL_URL": "memorymail://",
    "RESERVATION_MINUTES": "15",
    "PURCHASE_RATE_LIMIT": "10/m",
    "PURCHASE_RATE_LIMIT_IP": "600/m",
    "MAX_QUANTITY_PER_PURCHASE": "20",
    "MAX_OPEN_HOLDS_PER_USER": "3",
    "LOGIN_RATE_LIMIT": "10/m",
    "LOGIN_RATE_LIMIT_IP": "300/m",
    "LETTER_RATE_LIMIT": "5/h",
    "LETTER_RATE_LIMIT_IP": "300/h",
    "ACCESS_TOKEN_MINUTES": "60",
    "WEBHOOK_ALLOW_LOOPBACK": "True",
    # Other threads see nothing of what a test's transaction holds.
    "SWEEP_THREADS": "1",
    # Fifty threads share the processors with another worker's fifty: slow is no failure.
    "DB_POOL_SIZE": "60",
    "DB_POOL_TIMEOUT": "30",
    "LOCK_TIMEOUT_MS": "12000",
    "STATEMENT_TIMEOUT_MS": "50000",
    "DATABASE_REPLICA_URL": "",
    "PROMETHEUS_MULTIPROC_DIR": "",
    "WORKER_METRICS_PORT": "0",
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "console",
}
# Seconds, likewise: the settings' three are for a server that doesn't answer.
CONNECT_TIMEOUT = 30
MAX_CONNECTIONS = 300
# The database without xdist, and one for each of its workers.
VALKEY_DATABASES = 64


class Services:
    """What this process started, to be ended by it."""

    def __init__(self) -> None:
        self.postgres: Postgres | None = None
        self.valkey: ValkeyProcess | None = None
        self.guard: Guard | None = None

    def start(self) -> None:
        """Start what the environment does not name, and name it there."""
        folder = Path(tempfile.mkdtemp(prefix="offers-tests-"))
        self.guard = Guard()
        self.guard.remove(folder)
        os.environ["DATA_DIR"] = str(folder)
        os.environ["CONTENT_DIR"] = str(folder / "content")
        if "REDIS_URL" not in os.environ:
            self.valkey = ValkeyProcess(
                folder=folder / "valkey", guard=self.guard, databases=VALKEY_DATABASES
            )
            self.valkey.start()
            os.environ["REDIS_URL"] = f"{self.valkey.url}/0"
        if "DATABASE_URL" not in os.environ:
            self.postgres = Postgres(
                folder / "postgres",
                log=folder / "postgres.log",
                guard=self.guard,
                max_connections=MAX_CONNECTIONS,
                settings=THROWAWAY,
                stop_signal=signal.SIGQUIT,  # at once: nobody reads this data again
            )
            self.postgres.start()
            os.environ["DATABASE_URL"] = f"{self.postgres.url}?connect_timeout={CONNECT_TIMEOUT}"

    def stop(self) -> None:
        """End them and delete their folder. Nothing happens where nothing was started."""
        if self.postgres:
            self.postgres.stop()
        if self.valkey:
            self.valkey.stop()
        if self.guard:
            self.guard.close()


SERVICES = Services()


def _valkey_database_of(worker: str) -> int:
    """The number of the database of xdist's worker `gw0`, `gw1` …; 0 is the controller's."""
    return int(worker.removeprefix("gw")) + 1


# A wrapper, because pytest-django's own implementation, which loads the settings, asks to be first.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, object, object]:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As for what a script starts with `&`; what the tests start would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(ENVIRONMENT)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        server = os.environ["REDIS_URL"].rpartition("/")[0]
        os.environ["REDIS_URL"] = f"{server}/{_valkey_database_of(worker)}"
        # Files likewise: what the other worker stores is none of a test's business.
        os.environ["CONTENT_DIR"] += f"-{worker}"
    else:
        try:
            SERVICES.start()
        except ChildFailed as error:
            raise pytest.UsageError(str(error)) from error
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    SERVICES.stop()


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A running Valkey of the test's own, to be killed and started again in it."""
    valkey = ValkeyProcess(folder=tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()
