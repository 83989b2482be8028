"""`expand[]`: ids in an answer replaced by their objects.

https://docs.stripe.com/api/expanding_objects
"""

from __future__ import annotations

from typing import Any

from .errors import ApiError
from .listing import page
from .store import Record, Store

# Which field holds the id of which kind of record, by the object it stands on.
_EXPANDABLE = {
    ("checkout.session", "payment_intent"): "payment_intents",
    ("payment_intent", "latest_charge"): "charges",
    ("charge", "payment_intent"): "payment_intents",
    ("refund", "charge"): "charges",
    ("refund", "payment_intent"): "payment_intents",
    ("dispute", "charge"): "charges",
    ("dispute", "payment_intent"): "payment_intents",
    ("price", "product"): "products",
    ("product", "default_price"): "prices",
}


def expanded(store: Store, answer: Record, paths: list[str]) -> Record:
    """A copy of `answer` with the objects at `paths` in it; no record is changed.

    Raises ApiError for a path that can't be expanded, here or at Stripe.
    """
    for path in paths:
        answer = _expand(store, answer, path.split("."), path)
    return answer


def _expand(store: Store, record: Any, steps: list[str], path: str) -> Any:
    if record is None:
        return None
    step, rest = steps[0], steps[1:]
    if record.get("object") == "list":
        if step != "data" or not rest:
            raise _not_expandable(path)
        return {**record, "data": [_expand(store, each, rest, path) for each in record["data"]]}
    value = record.get(step)
    if record.get("object") == "checkout.session" and step == "line_items":
        value = value or line_items_of(store, record["id"], {})
    elif isinstance(value, str | None):
        kind = _EXPANDABLE.get((record.get("object", ""), step))
        if kind is None:
            raise _not_expandable(path)
        value = store.get(kind, value) if value else None
    elif not isinstance(value, dict):
        raise _not_expandable(path)
    return {**record, step: _expand(store, value, rest, path) if rest else value}


def line_items_of(store: Store, session_id: str, params: dict[str, Any]) -> Record:
    """The list object with the lines of a session."""
    lines = (store.get("line_items", session_id) or {}).get("data", [])
    # Stripe lists the lines in the order they were given, unlike every other list.
    in_reverse = {line["id"]: line for line in reversed(lines)}
    return page(
        in_reverse, params, url=f"/v1/checkout/sessions/{session_id}/line_items", kind="item"
    )


def _not_expandable(path: str) -> ApiError:
    # The work is done by now, and a repetition under the same key must not do it again.
    return ApiError(f"This property cannot be expanded ({path}).", param="expand", executed=True)
