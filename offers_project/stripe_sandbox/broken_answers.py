"""Answers that never arrive: a request left hanging, and a connection closed in its face."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_connections: dict[tuple[str, int], asyncio.Transport] = {}


class TrackedConnection(H11Protocol):
    """uvicorn's HTTP protocol, which also lets `ClosedConnection` find the socket of its request.

    ASGI has no way to close a connection without an answer; the client's address names it.
    """

    _peer: tuple[str, int] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")
        if self._peer is not None:
            _connections[self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._peer is not None:
            _connections.pop(self._peer, None)
        super().connection_lost(exc)


class NoAnswer(Response):
    """Says nothing until the client goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class ClosedConnection(NoAnswer):
    """Closes the connection without a byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _connections.get(tuple(scope["client"]))
        if transport is not None:
            transport.close()
        await super().__call__(scope, receive, send)
