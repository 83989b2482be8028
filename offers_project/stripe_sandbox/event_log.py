"""The events of the last days, to find what webhooks missed: https://docs.stripe.com/api/events"""

from __future__ import annotations

from typing import Any

from .errors import ApiError, missing
from .listing import page
from .parameters import Flag, ListOf, Moment, Text, listing
from .sandbox import Cause, Sandbox
from .store import Record

LIST_EVENTS = listing(
    created=Moment(),
    delivery_success=Flag(),
    type=Text(),
    types=ListOf(Text(required=True), most=20),
)


def get_event(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/events/{id}`"""
    event = sandbox.store.get("events", ids[0])
    if event is None:
        raise missing("event", ids[0], param="id")
    return event


def list_events(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/events`; `delivery_success=false` names those that no webhook has delivered yet."""
    types = set(params.get("types", ()))
    if params.get("type"):
        if types:
            raise ApiError(
                "You may only specify one of these parameters: type, types.", param="type"
            )
        types = {params["type"]}
    delivered = params.get("delivery_success")
    return page(
        sandbox.store.all("events"),
        params,
        url="/v1/events",
        kind="event",
        matches=lambda event: (
            (not types or any(_is_of_type(event["type"], wanted) for wanted in types))
            and (delivered is None or delivered != sandbox.deliveries.undelivered(event["id"]))
        ),
    )


def _is_of_type(kind: str, wanted: str) -> bool:
    """Stripe takes `charge.*` for a whole group of types."""
    return kind == wanted or (wanted.endswith("*") and kind.startswith(wanted[:-1]))
