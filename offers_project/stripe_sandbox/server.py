"""The command line, for `python -m offers_project.stripe_sandbox` and for manage.py."""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from .app import create_app
from .broken_answers import TrackedConnection
from .sandbox import Sandbox
from .store import Store

DEFAULT_PORT = 12111
DEFAULT_SECRET = "whsec_sandbox"  # noqa: S105 - signs the fake webhooks of a local run
_SHUTDOWN_SECONDS = 1


def build_parser() -> argparse.ArgumentParser:
    """The options, with their environment variables as defaults."""
    parser = argparse.ArgumentParser(
        prog="stripe_sandbox", description="A stand-in for Stripe on loopback."
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--data", type=Path, help="SQLite file; without one all is in memory")
    parser.add_argument(
        "--webhook-url",
        default=os.environ.get("STRIPE_SANDBOX_WEBHOOK_URL") or None,
        help="where webhooks go [STRIPE_SANDBOX_WEBHOOK_URL]; without one events are only recorded",
    )
    parser.add_argument(
        "--webhook-secret",
        default=os.environ.get("STRIPE_WEBHOOK_SECRETS", "").split(",")[0].strip()
        or DEFAULT_SECRET,
        help="signs the webhooks [the first of STRIPE_WEBHOOK_SECRETS]",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sandbox until SIGTERM or SIGINT; the exit status, 0 after such a signal.

    Prints `stripe sandbox: http://127.0.0.1:PORT` once it listens. A port in use, a host that is
    not loopback and a data file that is none end it with one sentence on stderr and status 1.
    """
    options = build_parser().parse_args(argv)
    if not _is_loopback(options.host):
        return _fail(f"The sandbox listens on loopback only, and {options.host} is not.")
    try:
        listener = _listen(options.host, options.port)
    except (OSError, OverflowError) as error:
        return _fail(
            f"The Stripe sandbox can't listen on {options.host}:{options.port}: "
            f"{str(getattr(error, 'strerror', None) or error).rstrip('.')}."
        )
    try:
        store = Store(options.data)
    except sqlite3.Error as error:
        listener.close()
        return _fail(f"The Stripe sandbox can't keep its data in {options.data}: {error}.")
    sandbox = Sandbox(store, webhook_url=options.webhook_url, webhook_secret=options.webhook_secret)
    host = f"[{options.host}]" if ":" in options.host else options.host
    sandbox.base_url = f"http://{host}:{listener.getsockname()[1]}"
    # uvicorn raises the signal that ended it once more after its shutdown; the exit status says
    # enough.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        create_app(sandbox),
        http=TrackedConnection,
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        # Longer than any client keeps a connection in its pool, so that none is closed under a
        # request.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    _Server(config, announce=f"stripe sandbox: {sandbox.base_url}").run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """uvicorn's server, which says where it is once it accepts requests."""

    def __init__(self, config: uvicorn.Config, *, announce: str) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            print(self._announce, flush=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio sets TCP_NODELAY only where the protocol is TCP by name; without it
    # every answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Lets a restart have the port at once; a port that is listened on stays refused.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1
