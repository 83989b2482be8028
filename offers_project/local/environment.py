"""The environment of a local run: what `make run` supplies, and how other commands find it.

Imports neither Django nor anything that starts a process: settings and `manage.py` come here first.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import environ

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_DATA_DIR = ROOT / ".local"
RUN_FILE = "run.json"
LOCK_FILE = "lock"

# What a run writes down for commands in other shells, where it has a value for it.
SETTINGS = (
    "LOCAL_RUN",
    "SECRET_KEY",
    "DEBUG",
    "ALLOWED_HOSTS",
    "DATABASE_URL",
    "REDIS_URL",
    "STRIPE_SECRET_KEY",
    "STRIPE_WEBHOOK_SECRETS",
    "STRIPE_API_BASE",
    "FRONTEND_URL",
    "RESERVATION_MINUTES",
    "PURCHASE_RATE_LIMIT",
    "PURCHASE_RATE_LIMIT_IP",
    "MAX_QUANTITY_PER_PURCHASE",
    "MAX_OPEN_HOLDS_PER_USER",
    "LOGIN_RATE_LIMIT",
    "LOGIN_RATE_LIMIT_IP",
    "LETTER_RATE_LIMIT",
    "LETTER_RATE_LIMIT_IP",
    "ACCESS_TOKEN_MINUTES",
    "EMAIL_URL",
    "CONTENT_DIR",
    "CONTENT_STORAGE",
    "CONTENT_STORAGE_OPTIONS",
    "CONTENT_LINK_HOURS",
    "LOG_LEVEL",
    "LOG_FORMAT",
)


class NoLocalRun(Exception):
    """No run is up in DATA_DIR. The text is one sentence for the person at the terminal."""


def dotenv_values() -> dict[str, str]:
    """The values of the repository's `.env`; none if there is no such file."""
    path = ROOT / ".env"
    if not path.is_file():
        return {}
    values: dict[str, str] = {}

    class DotEnv(environ.Env):
        """Reads the file as the settings do, but into `values` instead of the environment."""

        ENVIRON = values

    DotEnv.read_env(path)
    return values


def data_dir() -> Path:
    """DATA_DIR as an absolute path, `.local` in the repository when it is not set."""
    value = os.environ.get("DATA_DIR") or dotenv_values().get("DATA_DIR")
    return Path(value).absolute() if value else DEFAULT_DATA_DIR


def adopt() -> None:
    """Let this process use the embedded parts of the run that is up in DATA_DIR.

    Called before the settings are read. Values that are set already stay; a DATABASE_URL, in the
    environment or in `.env`, may be of another installation, so that only a run which uses that
    database, too, is adopted then. Raises NoLocalRun where nothing says which database to use.
    """
    folder = data_dir()
    run = read_run(folder)
    database = os.environ.get("DATABASE_URL") or dotenv_values().get("DATABASE_URL")
    if database and (run is None or run["env"].get("DATABASE_URL") != database):
        return
    if run is None:
        raise NoLocalRun(
            f"No local run is up in {_shown(folder)}: "
            f'start one with "make run", or set DATABASE_URL.'
        )
    for name, value in run["env"].items():
        if not os.environ.get(name):
            os.environ[name] = value


def read_run(folder: Path) -> dict[str, Any] | None:
    """What the run in `folder` says about itself, or None if none is up there (or not yet): `pid`,
    `started_at`, `url`, `sandbox_url`, `env`."""
    if not _is_locked(folder / LOCK_FILE):
        return None
    try:
        run: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # The lock outlives a killed run for the seconds in which its children end.
    return run if is_alive(run["pid"]) else None


def is_alive(pid: int) -> bool:
    """Whether there is such a process, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that only this user may read, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
    new.replace(path)


def supplied(*, folder: Path, host: str, url: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """The settings a local run gives its processes where nobody set them, apart from the addresses
    of the embedded parts. `secrets` are this folder's, kept from run to run."""
    hosts = ["127.0.0.1", "localhost", "[::1]"]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - asked for with --host
        hosts.append("*")
    elif host not in hosts and f"[{host}]" not in hosts:
        hosts.append(host)
    return {
        "SECRET_KEY": secrets["SECRET_KEY"],
        "STRIPE_SECRET_KEY": secrets["STRIPE_SECRET_KEY"],
        "STRIPE_WEBHOOK_SECRETS": secrets["STRIPE_WEBHOOK_SECRETS"],
        "ALLOWED_HOSTS": ",".join(hosts),
        "FRONTEND_URL": url,
        # django-environ takes everything after the third slash as the path: here, an absolute one.
        "EMAIL_URL": f"filemail:///{quote_plus(str(folder / 'mail'), safe='/')}",
        "CONTENT_DIR": str(folder / "content"),
        "LOG_FORMAT": "console",
    }


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as lock:
            # Ours for a moment if it is free; a run that starts just then tries more than once.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _shown(path: Path) -> str:
    """The path as a person would type it in the repository."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
