"""The Stripe sandbox as tests use it, a real process, and a receiver for its webhooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
import stripe

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 20.0
CONTROL_SECONDS = 30.0
_ANNOUNCEMENT = "stripe sandbox: "


class SandboxProcess:
    """One sandbox. `start` it, steer it with `control` and `get`, and `stop` it.

    A `kill` is a SIGKILL; a `restart` afterwards comes back on the same port, and with the same
    state where `data` names a file. What it wrote to stderr is in `errors()`.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.port = 0
        self._arguments: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._http = requests.Session()
        # The environment's proxies have no business between a test and loopback.
        self._http.trust_env = False
        self._stderr = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed by `stop`

    def start(
        self,
        port: int = 0,
        data: Path | str | None = None,
        webhook_url: str | None = None,
        webhook_secret: str = "whsec_test",  # noqa: S107 - signs the webhooks of a test
    ) -> SandboxProcess:
        """Start and wait until it listens; raises RuntimeError with its stderr when it doesn't."""
        self._arguments = ["--webhook-secret", webhook_secret]
        if data is not None:
            self._arguments += ["--data", str(data)]
        if webhook_url is not None:
            self._arguments += ["--webhook-url", webhook_url]
        self._run(port)
        return self

    def restart(self) -> SandboxProcess:
        """Start again on the same port with the same options, after `kill` or while it runs."""
        self._end()
        self._run(self.port)
        return self

    def client(self, **options: Any) -> Any:
        """The real SDK's client for this sandbox; `options` are those of stripe.StripeClient.

        Typed Any, because the SDK types nearly every field as optional or expandable.
        """
        return stripe.StripeClient(
            "sk_test_sandbox", base_addresses={"api": self.base_url}, **options
        )

    def control(self, path: str, json: Any = None) -> Any:
        """POST to `/sandbox/{path}`, return the JSON; raises requests.HTTPError unless 2xx."""
        return self._checked(
            self._http.post(f"{self.base_url}/sandbox/{path}", json=json, timeout=CONTROL_SECONDS)
        )

    def get(self, path: str) -> Any:
        """GET `/sandbox/{path}` and return the JSON; raises requests.HTTPError unless it is 2xx."""
        return self._checked(
            self._http.get(f"{self.base_url}/sandbox/{path}", timeout=CONTROL_SECONDS)
        )

    @property
    def pid(self) -> int:
        return self._running().pid

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, nothing written any more."""
        self._running().kill()
        self._running().wait()

    def terminate(self) -> int:
        """Ask it to end (SIGTERM) and return its exit status; it takes about a second at most."""
        process = self._running()
        process.terminate()
        return process.wait(timeout=START_SECONDS)

    def stop(self) -> None:
        """End it, if it runs, and let go of everything."""
        self._end()
        self._http.close()
        self._stderr.close()

    def errors(self) -> str:
        """What it has written to stderr so far, over all its starts."""
        self._stderr.seek(0)
        return self._stderr.read()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("The sandbox was not started.")
        return self._process

    def _run(self, port: int) -> None:
        command = [sys.executable, "-m", "offers_project.stripe_sandbox", "--port", str(port)]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("STRIPE_")}
        self._process = subprocess.Popen(
            command + self._arguments,
            cwd=ROOT,
            env={**inherited, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.base_url = self._announced(self._process)
        self.port = int(self.base_url.rpartition(":")[2])

    def _announced(self, process: subprocess.Popen[str]) -> str:
        output = process.stdout
        if output is None:
            raise RuntimeError("The sandbox has no stdout to read its address from.")
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        try:
            line = output.readline()
        finally:
            timer.cancel()
        # It prints nothing else, so the pipe can't fill up; closed, it would be an error to write
        # to.
        if not line.startswith(_ANNOUNCEMENT):
            process.kill()
            process.wait()
            output.close()
            raise RuntimeError(f"The sandbox did not start: {line!r}\n{self.errors()}")
        return line.removeprefix(_ANNOUNCEMENT).strip()

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._process = None

    def _checked(self, response: requests.Response) -> Any:
        if not response.ok:
            raise requests.HTTPError(
                f"{response.status_code} from {response.request.method} {response.url}: "
                f"{response.text}",
                response=response,
            )
        return response.json()


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of `condition`, asked over and over; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "The condition did not come true in time."
        time.sleep(0.02)


class WebhookReceiver:
    """A real HTTP server on loopback that keeps what it gets, while it is entered with `with`.

    `answers` are the statuses of the next requests, 200 once they are used up; `delay` is how many
    seconds each answer takes. `received` holds (signature header, raw body), in the order of
    arrival.
    """

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.answers: list[int] = []
        self.delay = 0.0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._lock:
                    receiver.received.append((self.headers["Stripe-Signature"], body))
                    status = receiver.answers.pop(0) if receiver.answers else 200
                time.sleep(receiver.delay)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet: the tests look at `received`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhooks"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> WebhookReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The events received so far, all or those of one type, in the order of arrival."""
        with self._lock:
            events = [json.loads(body) for _, body in self.received]
        return [event for event in events if kind in (None, event["type"])]
