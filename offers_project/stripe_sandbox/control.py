"""The control calls under /sandbox: what a buyer, a bank, time or a bad day would do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import checkout, payments, refunds
from .errors import ApiError, ControlError
from .faults import Faults
from .sandbox import Cause, Sandbox
from .store import Record

Act = Callable[[Sandbox, Record, Cause, dict[str, Any]], None]

# What the JSON body of a session's control call may name, and of which type.
_OPTIONS: dict[str, type] = {
    "amount_total": int,
    "currency": str,
    "created": int,
    "email": str,
    "name": str,
    "address": dict,
    "reason": str,
}
_REFUND_OPTIONS: dict[str, type] = {"amount": int, "created": int}


def _pay(sandbox: Sandbox, session: Record, cause: Cause, options: dict[str, Any]) -> None:
    _misstate(session, options)
    payments.pay(sandbox, session, cause, _buyer(options))


def _pay_async(sandbox: Sandbox, session: Record, cause: Cause, options: dict[str, Any]) -> None:
    _misstate(session, options)
    payments.pay_later(sandbox, session, cause, _buyer(options))


def _misstate(session: Record, options: dict[str, Any]) -> None:
    """Let a test charge another amount or currency than was asked for."""
    if session["status"] == "open":
        session.update(
            {key: options[key] for key in ("amount_total", "currency") if key in options}
        )


def _buyer(options: dict[str, Any]) -> payments.Buyer:
    return payments.Buyer(**{k: options[k] for k in ("email", "name", "address") if k in options})


def _decline(sandbox: Sandbox, session: Record, cause: Cause, options: dict[str, Any]) -> None:
    payments.decline(sandbox, session, cause, _buyer(options))


def _dispute(sandbox: Sandbox, session: Record, cause: Cause, options: dict[str, Any]) -> None:
    payments.dispute(sandbox, session, cause, reason=options.get("reason", "fraudulent"))


ACTS: dict[str, Act] = {
    "pay": _pay,
    "pay_async": _pay_async,
    "settle_async": lambda sandbox, session, cause, _: payments.settle(sandbox, session, cause),
    "fail_async": lambda sandbox, session, cause, _: payments.fail(sandbox, session, cause),
    "decline": _decline,
    "expire": lambda sandbox, session, cause, _: checkout.expire(sandbox, session, cause),
    "dispute": _dispute,
}


def _sandbox(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    if checkout.expire_due(sandbox, now=int(time.time())):
        sandbox.store.commit()
    return sandbox


async def _json(request: Request) -> dict[str, Any]:
    """The JSON object of a body, {} for an empty one; raises ControlError (400) otherwise."""
    body = await request.body()
    try:
        given = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise ControlError(f"The body is not JSON: {error}.", status=400) from error
    if not isinstance(given, dict):
        raise ControlError("The body must be a JSON object.", status=400)
    return given


def _record(sandbox: Sandbox, kind: str, record_id: str) -> Record:
    record = sandbox.store.get(kind, record_id)
    if record is None:
        raise ControlError(f"There is no {kind.rstrip('s')} {record_id!r} here.", status=404)
    return record


async def _options(request: Request, known: dict[str, type]) -> dict[str, Any]:
    """The options in a body; raises ControlError (400) for an unknown one or a wrong type."""
    options = await _json(request)
    for name, value in options.items():
        if name not in known:
            raise ControlError(
                f"There is no option {name!r}; there are {', '.join(known)}.", status=400
            )
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise ControlError(f"{name} must be of type {known[name].__name__}.", status=400)
    return options


async def session_act(request: Request) -> Response:
    """`POST /sandbox/sessions/{id}/{act}`: answers the session; 409 in the wrong state.

    The body may be empty or name options: `created`, the time of the act in seconds since 1970, for
    all; `email`, `name` and `address` of the buyer for pay, pay_async and decline; `amount_total`
    and `currency` for pay and pay_async, which charge something else than was asked for, so that
    a test can see such an event refused; `reason` for dispute.

    A payment made in the last moment is a `pay` with that moment as `created`, while the session is
    still open here (an expired one can't be paid). The payment intent, unless an earlier attempt
    made it, its charge and all events of the payment bear that time; the session itself, which
    has no field for when it was paid, keeps its `created` and `expires_at`. The time is taken as it
    is given, so one outside the session's life is the test's own doing.
    """
    options = await _options(request, _OPTIONS)
    sandbox = _sandbox(request)
    act = ACTS.get(request.path_params["act"])
    if act is None:
        raise ControlError(f"There is no such act; there are {', '.join(ACTS)}.", status=404)
    session = _record(sandbox, "sessions", request.path_params["id"])
    act(sandbox, session, Cause(now=options.get("created", int(time.time()))), options)
    sandbox.store.commit()
    return JSONResponse(session)


async def session(request: Request) -> Response:
    """`GET /sandbox/sessions/{id}`"""
    return JSONResponse(_record(_sandbox(request), "sessions", request.path_params["id"]))


async def session_refund(request: Request) -> Response:
    """`POST /sandbox/sessions/{id}/refund`: somebody refunds in Stripe's dashboard.

    Answers the refund, which has no metadata; 409 when there is nothing to refund, or less than
    that. The body may name `amount` in minor units (else all that is left) and `created`.
    """
    options = await _options(request, _REFUND_OPTIONS)
    if options.get("amount", 1) < 1:
        raise ControlError("amount must be at least 1.", status=400)
    sandbox = _sandbox(request)
    session = _record(sandbox, "sessions", request.path_params["id"])
    cause = Cause(now=options.get("created", int(time.time())))
    try:
        refund = refunds.refund_session(sandbox, session, cause, amount=options.get("amount"))
    except ApiError as error:
        raise ControlError(error.message, status=409) from error
    sandbox.store.commit()
    return JSONResponse(refund)


async def list_refunds(request: Request) -> Response:
    """`GET /sandbox/refunds`: every refund, oldest first."""
    return _list(list(_sandbox(request).store.all("refunds").values()))


async def refund_settle(request: Request) -> Response:
    """`POST /sandbox/refunds/{id}/settle`: a pending refund succeeds; 409 for any other."""
    return _refund_act(request, refunds.settle_refund)


async def refund_fail(request: Request) -> Response:
    """`POST /sandbox/refunds/{id}/fail`: the bank sends the money of a refund back.

    409 unless the refund is pending or has succeeded.
    """
    return _refund_act(request, refunds.fail_refund)


def _refund_act(request: Request, act: Callable[[Sandbox, Record, Cause], None]) -> Response:
    sandbox = _sandbox(request)
    refund = _record(sandbox, "refunds", request.path_params["id"])
    act(sandbox, refund, Cause(now=int(time.time())))
    sandbox.store.commit()
    return JSONResponse(refund)


async def dispute_close(request: Request) -> Response:
    """`POST /sandbox/disputes/{id}/close` `{"status": "won" | "lost"}`"""
    status = (await _json(request)).get("status")
    if status not in {"won", "lost"}:
        raise ControlError('status must be "won" or "lost".', status=400)
    sandbox = _sandbox(request)
    dispute = _record(sandbox, "disputes", request.path_params["id"])
    payments.close_dispute(sandbox, dispute, Cause(now=int(time.time())), won=status == "won")
    sandbox.store.commit()
    return JSONResponse(dispute)


async def get_faults(request: Request) -> Response:
    """`GET /sandbox/faults`: those in force."""
    return JSONResponse(_sandbox(request).faults.as_json())


async def set_faults(request: Request) -> Response:
    """`POST /sandbox/faults`: these and no others from now on; answers those in force."""
    faults = Faults.from_json(await _json(request))
    sandbox = _sandbox(request)
    sandbox.inflict(faults)
    return JSONResponse(faults.as_json())


def _list(records: list[Record]) -> Response:
    return JSONResponse({"object": "list", "data": records, "has_more": False})


async def webhooks(request: Request) -> Response:
    """`GET /sandbox/webhooks`: every delivery, oldest first."""
    return _list(list(_sandbox(request).store.all("deliveries").values()))


async def resend(request: Request) -> Response:
    """`POST /sandbox/webhooks/{event_id}/resend`: answers the delivery once the attempt is over."""
    sandbox = _sandbox(request)
    delivery = await sandbox.deliveries.resend(request.path_params["event_id"])
    sandbox.store.commit()
    return JSONResponse(delivery)


async def webhook_endpoint(request: Request) -> Response:
    """`POST /sandbox/webhook-endpoint` `{"url", "secret"}`: where webhooks go from now on."""
    given = await _json(request)
    sandbox = _sandbox(request)
    url, secret = given.get("url"), given.get("secret", sandbox.deliveries.secret)
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ControlError("url must be an http or https address.", status=400)
    if not isinstance(secret, str) or not secret:
        raise ControlError("secret must be text that is not empty.", status=400)
    sandbox.deliveries.send_to(url, secret)
    return JSONResponse({"url": url})


async def requests(request: Request) -> Response:
    """`GET /sandbox/requests`: the API requests received, oldest first."""
    return _list(list(_sandbox(request).store.all("requests").values()))


async def reset(request: Request) -> Response:
    """`POST /sandbox/reset`: forget everything but where webhooks go."""
    _sandbox(request).reset()
    return JSONResponse({"reset": True})


ROUTES = [
    Route("/sandbox/sessions/{id}", session, methods=["GET"]),
    Route("/sandbox/sessions/{id}/refund", session_refund, methods=["POST"]),
    Route("/sandbox/sessions/{id}/{act}", session_act, methods=["POST"]),
    Route("/sandbox/refunds", list_refunds, methods=["GET"]),
    Route("/sandbox/refunds/{id}/settle", refund_settle, methods=["POST"]),
    Route("/sandbox/refunds/{id}/fail", refund_fail, methods=["POST"]),
    Route("/sandbox/disputes/{id}/close", dispute_close, methods=["POST"]),
    Route("/sandbox/faults", get_faults, methods=["GET"]),
    Route("/sandbox/faults", set_faults, methods=["POST"]),
    Route("/sandbox/webhooks", webhooks, methods=["GET"]),
    Route("/sandbox/webhooks/{event_id}/resend", resend, methods=["POST"]),
    Route("/sandbox/webhook-endpoint", webhook_endpoint, methods=["POST"]),
    Route("/sandbox/requests", requests, methods=["GET"]),
    Route("/sandbox/reset", reset, methods=["POST"]),
]
