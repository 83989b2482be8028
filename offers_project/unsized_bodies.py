"""Bodies whose length isn't said beforehand: chunked ones.

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
TOO_LARGE = (
    "413 Content Too Large",
    "request_too_large",
    "This request is too large to be sent without its Content-Length.",
)
BROKEN_OFF = ("400 Bad Request", "parse_error", "This request broke off before its body.")


def with_length(application: WSGIApplication) -> WSGIApplication:
    """Let ``application`` see every body; called by ``wsgi.py``.

    At most ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes are read; more than that is answered with 413. A
    body that was announced and has nothing in it is answered with 400: the connection may have
    broken off, which looks the same.
    """

    def measured(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("CONTENT_LENGTH") and environ["REQUEST_METHOD"] not in READING:
            body = _read(environ["wsgi.input"], settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
            if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                return _refuse(start_response, *TOO_LARGE)
            if not body and "HTTP_TRANSFER_ENCODING" in environ:
                return _refuse(start_response, *BROKEN_OFF)
            environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        return application(environ, start_response)

    return measured


def _read(stream: Any, most: int) -> bytearray:
    body = bytearray()
    while len(body) < most and (piece := stream.read(most - len(body))):
        body += piece
    return body


def _refuse(start_response: StartResponse, status: str, code: str, why: str) -> list[bytes]:
    error = {"code": code, "detail": why, "attr": None}
    answer = json.dumps({"type": "client_error", "errors": [error]}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    start_response(status, headers)
    return [answer]
