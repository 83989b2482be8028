"""The page a person pays on, and the front page that lists what there is."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from . import checkout, forms, payments
from .currencies import formatted
from .errors import ApiError, WrongState
from .sandbox import Cause, Sandbox
from .store import Record

SESSIONS_LISTED = 50
_SESSION_ID = "{CHECKOUT_SESSION_ID}"
_ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["money"] = formatted


def _sandbox(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    if checkout.expire_due(sandbox, now=int(time.time())):
        sandbox.store.commit()
    return sandbox


def _html(template: str, *, status: int = 200, **values: object) -> Response:
    page = _templates.get_template(template).render(**values)
    # The countdown would go on from a stale moment in a page out of the browser's cache.
    return HTMLResponse(page, status_code=status, headers={"Cache-Control": "no-store"})


def _pay_page(sandbox: Sandbox, session: Record, *, declined: bool = False) -> Response:
    lines = (sandbox.store.get("line_items", session["id"]) or {"data": []})["data"]
    allowed = (session["shipping_address_collection"] or {}).get("allowed_countries")
    return _html(
        "pay.html" if session["status"] == "open" else "closed.html",
        session=session,
        lines=lines,
        seconds_left=max(0, session["expires_at"] - int(time.time())),
        declined=declined,
        countries=allowed,
        address=payments.demo_address(session) if allowed else None,
        buyer=payments.Buyer(),
        success_url=_success_url(session),
    )


def _success_url(session: Record) -> str:
    return str(session["success_url"] or "").replace(_SESSION_ID, quote(session["id"]))


async def show(request: Request) -> Response:
    """`GET /c/pay/{id}`"""
    sandbox = _sandbox(request)
    session = sandbox.store.get("sessions", request.path_params["id"])
    if session is None:
        return _html("closed.html", status=404, session=None)
    return _pay_page(sandbox, session)


async def act(request: Request) -> Response:
    """`POST /c/pay/{id}`, the page's form: `action` is pay, pay_later or decline.

    Paid leads to the success page of the shop; declined, and a session that has just ended, to this
    page.
    """
    body = await request.body()
    sandbox = _sandbox(request)
    session = sandbox.store.get("sessions", request.path_params["id"])
    if session is None:
        return _html("closed.html", status=404, session=None)
    try:
        form = forms.decode(body)
    except ApiError as error:
        return Response(error.message, status_code=400, media_type="text/plain")
    acts = {"pay": payments.pay, "pay_later": payments.pay_later, "decline": payments.decline}
    action = form.get("action")
    if action not in acts:
        return Response("There is no such button.", status_code=400, media_type="text/plain")
    try:
        acts[action](sandbox, session, Cause(now=int(time.time())), _buyer(session, form))
    except WrongState:
        return _pay_page(sandbox, session)
    finally:
        sandbox.store.commit()
    if action == "decline":
        return _pay_page(sandbox, session, declined=True)
    return RedirectResponse(_success_url(session), status_code=303)


def _buyer(session: Record, form: dict[str, object]) -> payments.Buyer:
    demo = payments.Buyer()
    typed = {name: str(form.get(name) or "")[:200] or None for name in _ADDRESS_FIELDS}
    return payments.Buyer(
        email=str(form.get("email") or demo.email)[:200],
        name=str(form.get("name") or demo.name)[:200],
        address=typed if session["shipping_address_collection"] and typed["line1"] else None,
    )


async def front(request: Request) -> Response:
    """`GET /`: the newest sessions and the faults in force."""
    sandbox = _sandbox(request)
    newest = list(sandbox.store.all("sessions").values())[: -SESSIONS_LISTED - 1 : -1]
    return _html("front.html", sessions=newest, base_url=sandbox.base_url, **sandbox.overview())


ROUTES = [
    Route("/", front, methods=["GET"]),
    Route("/c/pay/{id}", show, methods=["GET"]),
    Route("/c/pay/{id}", act, methods=["POST"]),
]
