"""``/content/<token>``: what was bought, for whoever has the link, in whole or in parts."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.files import File
from django.db import connection
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date
from django.views.decorators.http import require_safe

from fulfillment.digital import links, ranges
from fulfillment.digital.errors import ContentOutOfReach
from fulfillment.digital.models import DigitalContent, DigitalDelivery
from offers.error_texts import in_words
from purchases.activity import alert

BLOCK = 128 * 1024
PRIVATE = {
    # The link is the right: neither a cache nor the next site may learn it.
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
INERT = {
    # Some organizer's HTML or SVG, at our address: it is saved, and if it were shown it could run
    # nothing, load nothing and would be of no origin.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


@require_safe
def content_page(request: HttpRequest, token: str) -> HttpResponseBase:
    """Send the file, or lead to the address; each time the purchase is looked at again.

    Raises what ``links.opened_by`` and ``links.count`` do, and ``ContentOutOfReach``.
    """
    now = timezone.now()
    delivery = links.opened_by(token)
    if delivery.content.url:
        if request.method == "GET":
            links.count(delivery, now=now)
        answer: HttpResponseBase = HttpResponseRedirect(delivery.content.url)
    else:
        answer = _file(request, delivery, now=now)
    for name, value in PRIVATE.items():
        answer[name] = value
    return answer


def _file(request: HttpRequest, delivery: DigitalDelivery, *, now: datetime) -> HttpResponseBase:
    content = delivery.content
    modified = int((content.uploaded_at or now).timestamp())
    etag = _etag(content)
    headers = INERT | {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": http_date(modified),
        # One type for all: the name says what it is, and nothing is shown in the browser.
        "Content-Type": "application/octet-stream",
        "Content-Disposition": content_disposition_header(
            as_attachment=True, filename=content.file_name
        )
        or "attachment",
    }
    refused = get_conditional_response(request, etag=etag, last_modified=modified)
    if refused is not None:
        return refused
    if request.method == "HEAD":
        return HttpResponse(headers=headers | {"Content-Length": str(_size(delivery))})
    asked = request.headers.get("Range")
    if not ranges.is_of_this_version(request.headers.get("If-Range"), etag=etag, modified=modified):
        asked = None
    file = _opened(delivery)
    try:
        return _part(asked, file, delivery, headers=headers, now=now)
    except BaseException:
        file.close()
        raise


def _part(
    asked: str | None,
    file: File,
    delivery: DigitalDelivery,
    *,
    headers: dict[str, str],
    now: datetime,
) -> HttpResponseBase:
    size = file.size
    try:
        part = ranges.wanted(asked, size=size)
    except ranges.Unsatisfiable:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    if part.start == 0:
        # What continues a download, or seeks within a film, is no other download.
        links.count(delivery, now=now)
    # Whoever reads slowly shall not keep one of the few connections meanwhile.
    _give_connection_back()
    answer = StreamingHttpResponse(
        Blocks(file, part), status=200 if part.is_whole else 206, headers=headers
    )
    answer["Content-Length"] = str(part.length)
    if not part.is_whole:
        answer["Content-Range"] = part.content_range(size)
    return answer


class Blocks:
    """The bytes of a part, a block at a time; closing it closes the file, read or not."""

    def __init__(self, file: File, part: ranges.Part) -> None:
        self._file = file
        self._left = part.length
        if part.start:
            file.seek(part.start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self._file.read(min(BLOCK, self._left)) if self._left else b""
        if not block:
            raise StopIteration
        self._left -= len(block)
        return block

    def close(self) -> None:
        self._file.close()


def _etag(content: DigitalContent) -> str:
    """Strong: a file never changes under its name, which is kept from the outside."""
    return f'"{hashlib.sha256((content.file.name or "").encode()).hexdigest()[:32]}"'


def _opened(delivery: DigitalDelivery) -> File:
    name = delivery.content.file.name
    _give_connection_back()
    try:
        opened: File = _storage(delivery).open(name, "rb")
        return opened
    except Exception as error:
        raise _out_of_reach(delivery, error) from error


def _size(delivery: DigitalDelivery) -> int:
    name = delivery.content.file.name
    _give_connection_back()
    try:
        return int(_storage(delivery).size(name))
    except Exception as error:
        raise _out_of_reach(delivery, error) from error


def _storage(delivery: DigitalDelivery) -> Any:
    return delivery.content.file.storage


def _out_of_reach(delivery: DigitalDelivery, error: Exception) -> ContentOutOfReach:
    """Whatever a storage raises; each has errors of its own."""
    alert("content_out_of_reach", delivery.fulfillment.purchase, detail=in_words(error))
    return ContentOutOfReach()


def _give_connection_back() -> None:
    # In a test's transaction it stays.
    if not connection.in_atomic_block:
        connection.close()
