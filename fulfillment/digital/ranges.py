"""Parts of a file, as RFC 9110, section 14, has them: https://www.rfc-editor.org/rfc/rfc9110#range

One part at a time; whoever asks for several gets the whole, which the RFC allows.
"""

import re
from dataclasses import dataclass

from django.utils.http import parse_http_date_safe

ONE_RANGE = re.compile(r"(?P<first>[0-9]*)-(?P<last>[0-9]*)")
# Longer than any file, and numbers with more digits mean the same.
DIGITS = 18


class Unsatisfiable(Exception):
    """The part begins behind the file's end: 416, with the size."""


@dataclass(frozen=True)
class Part:
    """The bytes from ``start`` up to, without, ``end``; ``is_whole`` if nothing less was asked."""

    start: int
    end: int
    is_whole: bool

    @property
    def length(self) -> int:
        return self.end - self.start

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.end - 1}/{size}"


def wanted(header: str | None, *, size: int) -> Part:
    """The part that a ``Range`` header asks of a file of ``size`` bytes.

    The whole if there is no header, or one that makes no sense (14.2). Raises ``Unsatisfiable``.
    """
    whole = Part(0, size, is_whole=True)
    unit, _, specs = (header or "").strip(" \t").partition("=")
    ranges = [spec.strip(" \t") for spec in specs.split(",") if spec.strip(" \t")]
    if unit.lower() != "bytes" or len(ranges) != 1:
        return whole
    asked = ONE_RANGE.fullmatch(ranges[0])
    if asked is None:
        return whole
    first, last = _number(asked["first"]), _number(asked["last"])
    if first is None:
        return _suffix(last, size=size, whole=whole)
    if last is not None and last < first:
        return whole
    if first >= size:
        raise Unsatisfiable
    return Part(first, size if last is None else min(last + 1, size), is_whole=False)


def _suffix(length: int | None, *, size: int, whole: Part) -> Part:
    """The last ``length`` bytes. Of an empty file that is all of it, which has no first byte."""
    if length is None:
        return whole
    if length == 0:
        raise Unsatisfiable
    return Part(max(size - length, 0), size, is_whole=False) if size else whole


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= DIGITS else int("9" * DIGITS)


def is_of_this_version(if_range: str | None, *, etag: str, modified: int) -> bool:
    """Whether an ``If-Range`` header, if there is one, is about what we have (13.1.5).

    An entity tag must be the very same and strong, a date the very ``Last-Modified`` (Unix time).
    """
    if if_range is None:
        return True
    if_range = if_range.strip()
    if if_range.startswith(('"', "W/")):
        return if_range == etag
    return parse_http_date_safe(if_range) == modified
