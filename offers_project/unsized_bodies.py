"""Bodies whose length isn't said beforehand: chunked, or HTTP/2's without ``Content-Length``.

To Django no ``CONTENT_LENGTH`` is no body, as in CGI (RFC 3875, 4.1.2), and so a refund of a part,
sent that way, would be one of everything. A length is found by reading; no other request is read.
"""

import io
import json
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from django.conf import settings

# Answered without their body, if they have one.
READING = ("GET", "HEAD", "OPTIONS")
TOO_LARGE = {
    "code": "request_too_large",
    "detail": "This request is too large to be sent without its Content-Length.",
    "attr": None,
}


def with_length(application: WSGIApplication) -> WSGIApplication:
    """Let ``application`` see every body; called by ``wsgi.py``.

    At most ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes are read; more than that is answered with 413.
    """

    def measured(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("CONTENT_LENGTH") and environ["REQUEST_METHOD"] not in READING:
            body = _read(environ["wsgi.input"], settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
            if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                return _refuse(start_response)
            environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        return application(environ, start_response)

    return measured


def _read(stream: Any, most: int) -> bytearray:
    body = bytearray()
    while len(body) < most and (piece := stream.read(most - len(body))):
        body += piece
    return body


def _refuse(start_response: StartResponse) -> list[bytes]:
    answer = json.dumps({"type": "client_error", "errors": [TOO_LARGE]}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    start_response("413 Content Too Large", headers)
    return [answer]
