"""In which format the API answers: in JSON, or with 406."""

from collections.abc import Sequence
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

USUAL = frozenset({"*/*", "application/json"})


class UsuallyJSON(DefaultContentNegotiation):
    """DRF's; with the headers that nearly everybody sends there is nothing to weigh."""

    def select_renderer(
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        """The renderer, and the media type that is answered. Raises ``NotAcceptable``."""
        first = renderers[0]
        asked = request.META
        if (
            asked.get("HTTP_ACCEPT", "*/*") in USUAL
            and not any(sign in asked.get("QUERY_STRING", "") for sign in ("format", "%"))
            and first.media_type == "application/json"
        ):
            return first, "application/json"
        found: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, format_suffix)
        return found
