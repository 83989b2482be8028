"""Who may keep an answer and for how long, and 304 for whoever has it already (RFC 9110, 9111).

What is left of an offer is never more than two seconds old, whoever kept the answer on its way:
``docs/decisions.md`` has the sum.
"""

from functools import partial
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response, patch_vary_headers, set_response_etag
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

# A proxy keeps it for a second, and one that counts in whole seconds for less than two. A browser
# asks each time: its second would come on top of that of a proxy which sends no Age.
SHARED = "public, max-age=0, s-maxage=1, must-revalidate"
# For the browser of the one who asked, and even there only to be asked about again.
OWN = "private, no-cache"


def conditional(
    request: HttpRequest | Request, response: HttpResponse, *, shareable: bool
) -> HttpResponse:
    """``response`` with its validator, or the 304 for a caller who has exactly this body.

    Called with the finished body of a read, here and by ``live_stock``; a validator that it brings
    is kept, and must be a hash of that body. ``shareable`` says that
    everybody without credentials gets the same; whoever sends some is never answered publicly, not
    even if they are no good. An answer other than 200 is left as it is.
    """
    if response.status_code != 200:
        return response
    is_public = shareable and not _has_credentials(request)
    response.headers["Cache-Control"] = SHARED if is_public else OWN
    patch_vary_headers(response, ("Authorization", "Cookie"))
    if "ETag" not in response.headers:
        set_response_etag(response)
    etag = response.headers["ETag"]
    answer: Any = get_conditional_response(request, etag=etag, response=response)
    # If-Match and its like guard changes; a read that carries one is answered all the same.
    return answer if answer.status_code == 304 else response


def _has_credentials(request: HttpRequest | Request) -> bool:
    return "Authorization" in request.headers or settings.SESSION_COOKIE_NAME in request.COOKIES


class ConditionalAnswers:
    """Mixin of viewsets: the actions named in ``conditional_actions`` answer by ``conditional``.

    The value says whether a proxy may keep the answer to somebody without credentials.
    """

    conditional_actions: ClassVar[dict[str, bool]] = {}
    action: str

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        finished = super().finalize_response(  # type: ignore[misc]  # a mixin's: the view has it
            request, response, *args, **kwargs
        )
        shareable = self.conditional_actions.get(self.action)
        if shareable is None:
            return finished
        if not isinstance(finished, Response):
            return conditional(request, finished, shareable=shareable)
        # The body exists only once it is rendered.
        finished.add_post_render_callback(partial(conditional, request, shareable=shareable))
        return finished


def not_modified(answer: Any) -> dict[int, Any]:
    """The answers of a conditional operation for its OpenAPI schema, ``answer`` and the 304."""
    return {
        200: answer,
        304: OpenApiResponse(description="What you have is still right; there is no body."),
    }


# The headers of such an operation, for its OpenAPI schema.
CONDITIONAL_HEADERS = [
    OpenApiParameter(
        "If-None-Match",
        str,
        OpenApiParameter.HEADER,
        description="The `ETag` of the answer that you have, to be told 304 if it is still right.",
    ),
    OpenApiParameter(
        "ETag",
        str,
        OpenApiParameter.HEADER,
        required=True,
        response=[200, 304],
        description="Changes with the body; send it back as `If-None-Match`.",
    ),
    OpenApiParameter(
        "Cache-Control",
        str,
        OpenApiParameter.HEADER,
        required=True,
        response=[200, 304],
        description="Public and for one second, or your own and to be asked about each time.",
    ),
]
