"""The gateway of the /v1 API: a table of endpoints behind keys, faults, idempotency and a log."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from . import catalog, checkout, event_log, forms, refunds
from .broken_answers import ClosedConnection, NoAnswer
from .errors import ApiError
from .expansion import expanded
from .faults import error_body
from .objects import API_VERSION, new_id
from .parameters import Group, endpoint
from .sandbox import Cause, Sandbox
from .store import Record

# Longer runs keep the newest requests: enough for any test, small enough for a laptop.
REQUESTS_KEPT = 50_000

# Says which of Stripe's limits was hit: https://docs.stripe.com/rate-limits
RATE_LIMITED = {"Stripe-Rate-Limited-Reason": "global-rate"}

_EXPAND_ONLY = endpoint()


@dataclass(frozen=True)
class Endpoint:
    """A method and a path, what it accepts, and the function that does it."""

    method: str
    path: re.Pattern[str]
    accepts: Group
    run: Callable[[Sandbox, Cause, list[str], dict[str, Any]], Record]


def _endpoint(
    method: str,
    path: str,
    run: Callable[[Sandbox, Cause, list[str], dict[str, Any]], Record],
    accepts: Group = _EXPAND_ONLY,
) -> Endpoint:
    return Endpoint(method, re.compile(path.replace("{id}", "([^/]+)")), accepts, run)


ENDPOINTS = (
    _endpoint("POST", "/v1/checkout/sessions", checkout.create_session, checkout.CREATE_SESSION),
    _endpoint("GET", "/v1/checkout/sessions", checkout.list_sessions, checkout.LIST_SESSIONS),
    _endpoint("GET", "/v1/checkout/sessions/{id}", checkout.get_session),
    _endpoint(
        "POST", "/v1/checkout/sessions/{id}", checkout.update_session, checkout.UPDATE_SESSION
    ),
    _endpoint(
        "POST",
        "/v1/checkout/sessions/{id}/expire",
        checkout.expire_session,
        checkout.EXPIRE_SESSION,
    ),
    _endpoint(
        "GET",
        "/v1/checkout/sessions/{id}/line_items",
        checkout.list_line_items,
        checkout.LIST_LINE_ITEMS,
    ),
    _endpoint("POST", "/v1/products", catalog.create_product, catalog.CREATE_PRODUCT),
    _endpoint("GET", "/v1/products", catalog.list_products, catalog.LIST_PRODUCTS),
    _endpoint("GET", "/v1/products/{id}", catalog.get_product),
    _endpoint("POST", "/v1/products/{id}", catalog.update_product, catalog.UPDATE_PRODUCT),
    _endpoint("POST", "/v1/prices", catalog.create_price, catalog.CREATE_PRICE),
    _endpoint("GET", "/v1/prices", catalog.list_prices, catalog.LIST_PRICES),
    _endpoint("GET", "/v1/prices/{id}", catalog.get_price),
    _endpoint("POST", "/v1/prices/{id}", catalog.update_price, catalog.UPDATE_PRICE),
    _endpoint("POST", "/v1/refunds", refunds.create_refund, refunds.CREATE_REFUND),
    _endpoint("GET", "/v1/refunds", refunds.list_refunds, refunds.LIST_REFUNDS),
    _endpoint("GET", "/v1/refunds/{id}", refunds.get_refund),
    _endpoint("POST", "/v1/refunds/{id}", refunds.update_refund, refunds.UPDATE_REFUND),
    _endpoint("GET", "/v1/payment_intents/{id}", refunds.get_payment_intent),
    _endpoint("GET", "/v1/charges/{id}", refunds.get_charge),
    _endpoint("GET", "/v1/disputes/{id}", refunds.get_dispute),
    _endpoint("GET", "/v1/events", event_log.list_events, event_log.LIST_EVENTS),
    _endpoint("GET", "/v1/events/{id}", event_log.get_event),
)


async def answer(request: Request) -> Response:
    """Answer any request under /v1, and note it in the request log from the moment it came in."""
    sandbox: Sandbox = request.app.state.sandbox
    call = Call(sandbox, request)
    response = await call.answer(await request.body())
    sandbox.store.commit()
    return response


class Call:
    """One API request on its way through the gateway."""

    def __init__(self, sandbox: Sandbox, request: Request) -> None:
        self.sandbox = sandbox
        self.request = request
        self.id = new_id("req", 14)
        self.path: str = request.scope["path"]
        self.key = request.headers.get("idempotency-key") if request.method == "POST" else None
        self.raw: dict[str, Any] = {}
        self.entry: Record = {
            "id": self.id,
            "time": round(time.time(), 3),
            "method": request.method,
            "path": self.path,
            "params": {},
            "idempotency_key": self.key,
            "status": None,
            "replayed": False,
            "fault": None,
        }
        self._log()

    async def answer(self, body: bytes) -> Response:
        try:
            _check_key(self.request.headers.get("authorization"))
            encoded = body if self.request.method == "POST" else self.request.scope["query_string"]
            self.raw = self.entry["params"] = forms.decode(encoded)
            throttle, limit = self.sandbox.throttle, self.sandbox.faults.rate_limit
            if not throttle.admits(limit=limit, at=time.monotonic()):
                # Before the idempotency key is looked at: nothing is kept under it or replayed.
                self.entry["fault"] = "rate_limit"
                return self._respond(429, error_body(429), RATE_LIMITED)
            return await self._through_faults()
        except ApiError as error:
            return self._respond(error.status, error.body())

    async def _through_faults(self) -> Response:
        faults = self.sandbox.faults
        hangs = faults.strikes(faults.hang_rate)
        if hangs and not faults.hang_after_work:
            return self._broken(NoAnswer(), "hang")
        response = await self._idempotently()
        if hangs:
            return self._broken(NoAnswer(), "hang_after_work")
        if faults.strikes(faults.drop_rate):
            return self._broken(ClosedConnection(), "drop")
        return response

    async def _idempotently(self) -> Response:
        now = int(time.time())
        keys = self.sandbox.keys
        resets = self.sandbox.resets
        kept = None
        if self.key is not None:
            kept = keys.begin(self.key, path=self.path, params=self.raw, now=now)
        try:
            if self.sandbox.faults.latency_ms:
                await asyncio.sleep(self.sandbox.faults.latency_ms / 1000)
                if self.sandbox.resets != resets:
                    return ClosedConnection()
            if kept is not None:
                self.entry["replayed"] = True
                replayed = {"Idempotent-Replayed": "true", "Original-Request": kept["request_id"]}
                return self._respond(kept["status"], kept["body"], replayed)
            status, body, keep = self._work()
            if self.key is not None and keep:
                keys.finish(
                    self.key,
                    path=self.path,
                    params=self.raw,
                    now=now,
                    request_id=self.id,
                    status=status,
                    body=body,
                )
            return self._respond(status, body)
        finally:
            if self.key is not None and kept is None and self.sandbox.resets == resets:
                keys.abandon(self.key)

    def _work(self) -> tuple[int, Record, bool]:
        """The status and body of the answer, and whether Stripe would keep them under the key."""
        faults = self.sandbox.faults
        if faults.strikes(faults.error_rate):
            self.entry["fault"] = "error"
            return faults.error_status, error_body(faults.error_status), faults.error_status >= 500
        now = int(time.time())
        checkout.expire_due(self.sandbox, now=now)
        try:
            found, ids = self._find()
            params = found.accepts.read(self.raw, "")
            cause = Cause(now=now, request_id=self.id, idempotency_key=self.key)
            record = found.run(self.sandbox, cause, ids, params)
            return 200, expanded(self.sandbox.store, record, params.get("expand", [])), True
        except ApiError as error:
            return error.status, error.body(), error.executed

    def _find(self) -> tuple[Endpoint, list[str]]:
        for candidate in ENDPOINTS:
            if candidate.method == self.request.method:
                match = candidate.path.fullmatch(self.path)
                if match is not None:
                    return candidate, list(match.groups())
        raise ApiError(
            f"Unrecognized request URL ({self.request.method}: {self.path}). Please see "
            "https://stripe.com/docs or we can help at https://support.stripe.com/.",
            status=404,
        )

    def _respond(
        self, status: int, body: Record, headers: dict[str, str] | None = None
    ) -> Response:
        self.entry["status"] = status
        self._log()
        sent = {"Request-Id": self.id, "Stripe-Version": API_VERSION, **(headers or {})}
        if self.key is not None:
            sent["Idempotency-Key"] = self.key
        return JSONResponse(body, status_code=status, headers=sent)

    def _broken(self, response: Response, fault: str) -> Response:
        self.entry["status"], self.entry["fault"] = None, fault
        self._log()
        return response

    def _log(self) -> None:
        store = self.sandbox.store
        logged = store.all("requests")
        if self.id not in logged and len(logged) >= REQUESTS_KEPT:
            store.remove("requests", next(iter(logged)))
        store.put("requests", self.id, self.entry)


def _check_key(authorization: str | None) -> None:
    """Raise ApiError (401) for anything but a test key. https://docs.stripe.com/keys"""
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise ApiError(
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            status=401,
        )
    if key.startswith(("sk_live", "rk_live")):
        raise ApiError(
            "This is the Stripe sandbox of a local run, and the key is a live one. Use a test key "
            "here, and keep live keys out of local settings.",
            status=401,
        )
    if not key.startswith(("sk_test_", "rk_test_")):
        hidden = f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 16 else "*" * len(key)
        raise ApiError(f"Invalid API Key provided: {hidden}", status=401)
