"""Somebody's server that gets webhooks: real HTTP on loopback, as well or badly behaved as told."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# How long a server that never stops goes on at most, so that no test leaves threads behind.
FOR_EVER = 30.0


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Receiver"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.received.append(Received(self.path, headers, self.rfile.read(length)))
            behave = self.server.behaviours.pop(0) if self.server.behaviours else answer(200)
        behave(self)

    def do_GET(self) -> None:
        """Where a redirect would lead."""
        self.do_POST()

    def log_message(self, *args: Any) -> None:
        """Tests look at ``received``."""


class Receiver(ThreadingHTTPServer):
    """Answers 200, but first does what ``behaviours`` say, one for each request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, certificate: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[Received] = []
        self.behaviours: list[Callable[[Handler], None]] = []
        self.lock = threading.Lock()
        self.is_closing = threading.Event()
        self.scheme = "http"
        if certificate:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/hook"

    def url_of(self, host: str) -> str:
        return f"{self.scheme}://{host}:{self.server_port}/hook"

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.received]

    def handle_error(self, *args: Any) -> None:
        """Whoever called may have hung up."""


@contextlib.contextmanager
def receiving(certificate: str | None = None) -> Iterator[Receiver]:
    server = Receiver(certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.is_closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    def behave(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def hang(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.server.is_closing.wait(FOR_EVER)


def go_on_for_ever(head: bytes, piece: bytes, pause: float = 0.0) -> Callable[[Handler], None]:
    """Say ``head``, then ``piece`` again and again."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(head)
        until = time.monotonic() + FOR_EVER
        while time.monotonic() < until and not handler.server.is_closing.wait(pause):
            handler.wfile.write(piece)

    return behave
