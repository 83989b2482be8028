"""The clients: a process of its own that sends requests over keep-alive connections.

A closed loop: each connection sends the next request as soon as it has the answer to its last one.
Requests are bytes made beforehand, and of an answer no more is read than its status and where it
ends, because the clients share the processors with what they measure.
"""

import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

LONGEST_WAIT = 60.0  # seconds for any answer at all; then the run is broken
READ_BYTES = 262_144
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Job:
    """Requests, sent in their order until there are no more or time is up.

    The connections are to each of the ``ports`` in turn: as many to one server as to another, as a
    proxy has them that sends each request to the server with the fewest.
    """

    ports: Sequence[int]
    connections: int
    requests: Sequence[bytes]
    seconds: float | None = None


@dataclass
class Outcome:
    """What came of it. ``seconds`` are from the first request to the last answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    # One answer of each status, for whoever has to find out what is wrong with it.
    examples: dict[int, bytes] = field(default_factory=dict)


class BrokenAnswer(Exception):
    """A server that closed a connection, fell silent, or answered what can't be read."""


class LoadGenerator:
    """The process with the clients. ``start`` it, ``run`` jobs, ``stop`` it."""

    def __init__(self) -> None:
        spawn = get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,), daemon=True)

    def start(self) -> None:
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def run(
        self,
        job: Job,
        *,
        before: Callable[[], None] = lambda: None,
        meanwhile: Callable[[], None] | None = None,
        after: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Do a job; ``before`` and ``after`` are called while every client is connected and idle.

        ``meanwhile`` is called four times a second. Raises ``BrokenAnswer``.
        """
        self._pipe.send(job)
        self._expect("connected")
        before()
        self._pipe.send("go")
        while meanwhile is not None and not self._pipe.poll(0.25):
            meanwhile()
        self._expect("done")
        after()
        outcome = self._pipe.recv()
        assert isinstance(outcome, Outcome)
        return outcome

    def stop(self) -> None:
        if self._process.is_alive():
            self._pipe.send(None)
            self._process.join(5)
            self._process.kill()

    def _expect(self, word: str) -> None:
        said = self._pipe.recv()
        if said != word:
            raise BrokenAnswer(said)


def _serve(pipe: Connection) -> None:
    while (job := pipe.recv()) is not None:
        clients = []
        try:
            clients = [_Client(port) for port in islice(cycle(job.ports), job.connections)]
            pipe.send("connected")
            pipe.recv()
            outcome = _drive(clients, job)
        except (BrokenAnswer, OSError) as error:
            pipe.send(f"{type(error).__name__}: {error}")
            continue
        finally:
            for client in clients:
                client.socket.close()
        pipe.send("done")
        pipe.send(outcome)


class _Client:
    """One connection: what has come of an answer, how much is still to come, and since when."""

    __slots__ = ("began", "fileno", "left", "parts", "recv", "send", "socket", "status")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LONGEST_WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno()
        self.send: Any = self.socket.send
        self.recv: Any = self.socket.recv
        self.parts = b""
        self.left = -1  # bytes of the body; below zero while its head isn't complete
        self.status = 0
        self.began = 0.0

    def is_complete(self, data: bytes) -> bool:
        """Take in what was received; whether the answer ends with it."""
        if self.left >= 0:
            self.left -= len(data)
        else:
            if self.parts:
                data = self.parts + data
            end = data.find(HEAD_END)
            if end < 0:
                self.parts = data
                return False
            self.status = int(data[9:12])
            self.left = end + 4 + _length(data, end) - len(data)
            self.parts = data
        if self.left < 0:
            raise BrokenAnswer("more than one answer to a request")
        return self.left == 0


def _length(data: bytes, end: int) -> int:
    head = data[:end].lower()
    place = head.find(b"\r\ncontent-length:")
    if place >= 0:
        return int(head[place + 17 :].split(b"\r\n", 1)[0])
    if head[9:12] in (b"204", b"304"):
        return 0
    raise BrokenAnswer(f"an answer without Content-Length: {head!r}")


def _drive(clients: list[_Client], job: Job) -> Outcome:
    outcome = Outcome()
    statuses: dict[int, int] = {}
    latencies = outcome.latencies
    waiting = deque(job.requests)
    by_number = {client.fileno: client for client in clients}
    poller = select.epoll()
    clock = time.perf_counter
    begun = last = clock()
    end = begun + job.seconds if job.seconds else float("inf")
    under_way = 0
    for client in clients[: len(waiting)]:
        poller.register(client.fileno, select.EPOLLIN)
        client.began = clock()
        _send(client, waiting.popleft())
        under_way += 1
    while under_way:
        ready = poller.poll(LONGEST_WAIT)
        if not ready:
            raise BrokenAnswer(f"no answer for {LONGEST_WAIT:.0f} s")
        for number, _ in ready:
            client = by_number[number]
            data = client.recv(READ_BYTES)
            if not data:
                raise BrokenAnswer("a connection was closed")
            if not client.is_complete(data):
                continue
            last = clock()
            latencies.append(last - client.began)
            status = client.status
            if status in statuses:
                statuses[status] += 1
            else:
                statuses[status] = 1
                outcome.examples[status] = client.parts[:4000]
            client.parts = b""
            client.left = -1
            if waiting and last < end:
                client.began = last
                _send(client, waiting.popleft())
            else:
                under_way -= 1
    poller.close()
    outcome.statuses.update(statuses)
    outcome.seconds = last - begun
    return outcome


def _send(client: _Client, request: bytes) -> None:
    if client.send(request) != len(request):
        raise BrokenAnswer("a request that doesn't fit into the socket's buffer")
