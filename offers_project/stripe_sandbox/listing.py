"""Stripe's lists: newest first, by cursor, with filters. https://docs.stripe.com/api/pagination"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from .errors import missing
from .store import Record

DEFAULT_LIMIT = 10


def page(
    records: dict[str, Record],
    params: dict[str, Any],
    *,
    url: str,
    kind: str,
    matches: Callable[[Record], bool] = lambda _: True,
) -> Record:
    """One page of `records` (oldest first) that match, as Stripe's list object for `url`.

    `kind` names the objects in the refusal of an unknown cursor. Raises ApiError for such a cursor.
    """
    limit = params.get("limit") or DEFAULT_LIMIT
    created = params.get("created", {})

    def wanted(record: Record) -> bool:
        return _within(record.get("created", 0), created) and matches(record)

    before = params.get("ending_before")
    if before:
        found = _after(before, records.values(), records, kind=kind, param="ending_before")
        chosen = list(islice(filter(wanted, found), limit + 1))
        has_more = len(chosen) > limit
        data = chosen[:limit][::-1]
    else:
        newest_first: Iterable[Record] = reversed(records.values())
        after = params.get("starting_after")
        if after:
            newest_first = _after(after, newest_first, records, kind=kind, param="starting_after")
        chosen = list(islice(filter(wanted, newest_first), limit + 1))
        has_more = len(chosen) > limit
        data = chosen[:limit]
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def _after(
    cursor: str, ordered: Iterable[Record], records: dict[str, Record], *, kind: str, param: str
) -> Iterable[Record]:
    if cursor not in records:
        raise missing(kind, cursor, param=param, status=400)
    rest = iter(ordered)
    for record in rest:
        if record["id"] == cursor:
            break
    return rest


def _within(moment: int, limits: dict[str, int]) -> bool:
    return (
        ("gt" not in limits or moment > limits["gt"])
        and ("gte" not in limits or moment >= limits["gte"])
        and ("lt" not in limits or moment < limits["lt"])
        and ("lte" not in limits or moment <= limits["lte"])
    )
