"""Stripe's form encoding: `line_items[0][price_data][currency]=usd`.

Decoding nests the names and leaves every value the text it was; `parameters` knows the types. A
list arrives as a mapping from its positions, because only the type tells `images[0]` from
`metadata[0]`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from .errors import ApiError

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_PART = re.compile(r"\[([^\[\]]*)\]")

# Far above any request of the SDK, far below what would let one request hold up the others.
_MAX_FIELDS = 5000


def decode(encoded: bytes) -> dict[str, Any]:
    """The nested parameters of a form body or a query string.

    Raises ApiError for text that is not UTF-8, for malformed names, and where one name is used for
    a value and for a group.
    """
    try:
        pairs = parse_qsl(
            encoded.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError as error:
        raise ApiError("Invalid request: the parameters are not form-encoded UTF-8.") from error
    nested: dict[str, Any] = {}
    for name, value in pairs:
        _insert(nested, name, value)
    return nested


def _insert(nested: dict[str, Any], name: str, value: str) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ApiError(f"Invalid parameter name: {name}", param=name)
    *parents, last = [match[1], *_PART.findall(match[2])]
    group = nested
    for parent in parents:
        key = parent or str(len(group))
        group = group.setdefault(key, {})
        if not isinstance(group, dict):
            raise ApiError(
                f"Invalid parameter: {name} is given as a value and as a group", param=name
            )
    key = last or str(len(group))
    if isinstance(group.get(key), dict):
        raise ApiError(f"Invalid parameter: {name} is given as a value and as a group", param=name)
    group[key] = value
