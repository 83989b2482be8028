"""The web application of the sandbox: the API, the control calls and the pages on one address."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import api, checkout, control, paypage, refunds
from .errors import ControlError
from .sandbox import Sandbox

TICK_SECONDS = 0.5


def create_app(sandbox: Sandbox) -> Starlette:
    """The ASGI application over `sandbox`; its lifespan runs the webhooks and the clock."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sandbox.deliveries.start()
        clock = asyncio.create_task(_keep_time(sandbox))
        try:
            yield
        finally:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)
            await sandbox.deliveries.stop()
            sandbox.store.close()

    app = Starlette(
        routes=[
            Route("/v1/{path:path}", api.answer, methods=["GET", "POST", "DELETE", "PUT", "PATCH"]),
            *control.ROUTES,
            *paypage.ROUTES,
        ],
        exception_handlers={
            ControlError: _refuse,
            ClientDisconnect: _ignore,
            Exception: _report,
        },
        lifespan=lifespan,
    )
    app.state.sandbox = sandbox
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ControlError):
        raise error
    return JSONResponse({"error": {"message": error.message}}, status_code=error.status)


async def _ignore(request: Request, error: Exception) -> Response:
    """The client left before its request was whole: there is nobody to answer."""
    return Response(status_code=400)


async def _report(request: Request, error: Exception) -> Response:
    """A bug of the sandbox: said on stderr, since uvicorn's own log is switched off."""
    traceback.print_exception(error)
    message = f"The sandbox has failed: {type(error).__name__}: {error}"
    return JSONResponse({"error": {"type": "api_error", "message": message}}, status_code=500)


async def _keep_time(sandbox: Sandbox) -> None:
    """Let happen what happens by itself: sessions that expire, refunds that fail."""
    while True:
        expired = checkout.expire_due(sandbox, now=int(time.time()))
        failed = refunds.fail_due(sandbox, at=time.time())
        if expired or failed:
            sandbox.store.commit()
        await asyncio.sleep(TICK_SECONDS)
