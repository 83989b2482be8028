"""Middleware about headers that Django has no setting for, and a log without query strings."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

from csp.constants import HEADER
from csp.middleware import CSPMiddleware, PolicyParts
from csp.utils import build_policy
from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject
from django_structlog.middlewares import RequestMiddleware

# No page asks for any of these; an injected script or a frame shall not either.
PERMISSIONS_POLICY = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


def closed_doors(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable:
    """Middleware: no device access, and no other site may embed what we answer."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response

    return answer


def unkept_unless_said(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable:
    """Middleware: an answer that doesn't say who may keep it is kept by nobody.

    Tokens, purchases, refusals: a cache may otherwise think for itself how long they are good.
    """

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    return answer


class ContentSecurityPolicy(CSPMiddleware):
    """django-csp's; the policy that nearly all answers have is put together once a process."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Leave to django-csp what asks for something of its own, be it a decorator or a nonce."""
        asked = [name for name in vars(response) if name.startswith("_csp")]
        if asked or hasattr(request, "_csp_nonce"):
            return super().process_response(request, response)
        response.headers.setdefault(HEADER, _usual_policy())
        return response


@cache
def _usual_policy() -> str:
    return build_policy(**asdict(PolicyParts()))


class RequestLog(RequestMiddleware):
    """django-structlog's lines about requests, without what people search for or are sent with."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {request.path}"

    @staticmethod
    def bind_user_id(request: HttpRequest) -> None:
        """Name whom the view has asked for. To ask only for the log would be two queries."""
        is_lazy = isinstance(getattr(request, "user", None), SimpleLazyObject)
        if not is_lazy or hasattr(request, "_cached_user"):  # where Django keeps the answer
            RequestMiddleware.bind_user_id(request)
