"""What an endpoint accepts, declared as data, and the reading of it into typed values.

`forms.decode` supplies nested text; a `Group` turns it into Python values or refuses it as Stripe
does. An absent parameter is absent from the result; one that was sent empty, which is how Stripe's
clients unset a field, is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from .errors import ApiError


class Parameter(Protocol):
    """One kind of parameter: reads decoded form values called `name` or raises ApiError."""

    @property
    def required(self) -> bool: ...

    def read(self, raw: Any, name: str) -> Any: ...


def _text(raw: Any, name: str) -> str:
    if not isinstance(raw, str):
        raise ApiError(f"Invalid string: {name} is a group of values", param=name)
    return raw


@dataclass(frozen=True)
class Text:
    """Text of at most `longest` characters, or one of `choices` where there are any."""

    required: bool = False
    longest: int = 5000
    choices: tuple[str, ...] = ()
    url: bool = False

    def read(self, raw: Any, name: str) -> str | None:
        text = _text(raw, name)
        if not text:
            if self.required:
                raise ApiError(
                    f"You passed an empty string for '{name}'. We assume empty values are an "
                    f"attempt to unset a parameter; however '{name}' cannot be unset.",
                    code="parameter_invalid_empty",
                    param=name,
                )
            return None
        if len(text) > self.longest:
            raise ApiError(
                f"Invalid string: {text[:12]}…; must be at most {self.longest} characters",
                param=name,
            )
        if self.choices and text not in self.choices:
            raise ApiError(f"Invalid {name}: must be one of {', '.join(self.choices)}", param=name)
        if self.url and not _is_web_address(text):
            raise ApiError("Not a valid URL", code="url_invalid", param=name)
        return text


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


@dataclass(frozen=True)
class Whole:
    """A whole number between `least` and `most`."""

    required: bool = False
    least: int | None = None
    most: int | None = None

    def read(self, raw: Any, name: str) -> int | None:
        text = _text(raw, name)
        if not text and not self.required:
            return None
        # Twenty digits are above every limit of Stripe's, and `int` of a megabyte of digits is
        # slow.
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
            raise ApiError(
                f"Invalid integer: {text[:40]}", code="parameter_invalid_integer", param=name
            )
        number = int(text)
        if self.least is not None and number < self.least:
            raise ApiError(
                f"This value must be greater than or equal to {self.least}.",
                code="parameter_invalid_integer",
                param=name,
            )
        if self.most is not None and number > self.most:
            raise ApiError(
                f"This value must be less than or equal to {self.most}.",
                code="parameter_invalid_integer",
                param=name,
            )
        return number


@dataclass(frozen=True)
class Flag:
    """`true` or `false`."""

    required: bool = False

    def read(self, raw: Any, name: str) -> bool:
        text = _text(raw, name)
        if text not in {"true", "false"}:
            raise ApiError(f"Invalid boolean: {text[:40]}", param=name)
        return text == "true"


@dataclass(frozen=True)
class Metadata:
    """Up to 50 pairs, keys of 40 and values of 500 characters (https://docs.stripe.com/metadata).

    An empty value removes its key when an object is updated, so it is kept here and dropped by
    `merged`.
    """

    required: bool = False

    def read(self, raw: Any, name: str) -> dict[str, str] | None:
        if raw == "":
            return None
        if not isinstance(raw, dict):
            raise ApiError("Invalid object", param=name)
        if len(raw) > 50:
            raise ApiError(
                f"You can have up to 50 keys in metadata; this request has {len(raw)}.",
                param=name,
            )
        for key, value in raw.items():
            where = f"{name}[{key}]"
            if len(key) > 40:
                raise ApiError(
                    f"Metadata keys can have up to 40 characters; '{key[:12]}…' has {len(key)}.",
                    param=name,
                )
            if len(_text(value, where)) > 500:
                raise ApiError(
                    "Metadata values can have up to 500 characters, but you passed in a value "
                    f"that is {len(value)} characters.",
                    param=where,
                )
        return dict(raw)


@dataclass(frozen=True)
class ListOf:
    """A list, in the order of its positions."""

    item: Parameter
    required: bool = False
    most: int = 100

    def read(self, raw: Any, name: str) -> list[Any]:
        if raw == "":
            return []
        if not isinstance(raw, dict) or not all(k.isascii() and k.isdigit() for k in raw):
            raise ApiError("Invalid array", param=name)
        if len(raw) > self.most:
            raise ApiError(f"Invalid array: at most {self.most} items are allowed", param=name)
        return [self.item.read(raw[key], f"{name}[{key}]") for key in sorted(raw, key=int)]


@dataclass(frozen=True)
class Group:
    """Named parameters. What is not named is refused, as Stripe refuses it."""

    fields: Mapping[str, Parameter] = field(default_factory=dict)
    required: bool = False

    def read(self, raw: Any, name: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise ApiError("Invalid object", param=name)
        values: dict[str, Any] = {}
        for key, value in raw.items():
            where = f"{name}[{key}]" if name else key
            if key not in self.fields:
                raise ApiError(
                    f"Received unknown parameter: {where}", code="parameter_unknown", param=where
                )
            values[key] = self.fields[key].read(value, where)
        for key, parameter in self.fields.items():
            if parameter.required and key not in raw:
                where = f"{name}[{key}]" if name else key
                raise ApiError(
                    f"Missing required param: {where}.", code="parameter_missing", param=where
                )
        return values


@dataclass(frozen=True)
class Moment:
    """A filter on a time: a number of seconds since 1970, or limits `gt`, `gte`, `lt`, `lte`."""

    required: bool = False

    def read(self, raw: Any, name: str) -> dict[str, int]:
        if isinstance(raw, str):
            number = Whole(required=True).read(raw, name)
            return {"gte": number, "lte": number} if number is not None else {}
        limits = Group({limit: Whole(required=False) for limit in ("gt", "gte", "lt", "lte")})
        return {limit: v for limit, v in limits.read(raw, name).items() if v is not None}


EXPAND = ListOf(Text(required=True))


def endpoint(**fields: Parameter) -> Group:
    """The parameters of an endpoint; `expand` belongs to every one of them."""
    return Group({**fields, "expand": EXPAND})


def listing(**fields: Parameter) -> Group:
    """The parameters of a list, with those of Stripe's pagination."""
    return endpoint(
        limit=Whole(least=1, most=100), starting_after=Text(), ending_before=Text(), **fields
    )


def merged(current: dict[str, str], change: dict[str, str] | None) -> dict[str, str]:
    """`current` metadata with `change` applied: None clears it, an empty value removes its key."""
    if change is None:
        return {}
    return {key: value for key, value in {**current, **change}.items() if value != ""}
