"""The page on which staff check codes, and a code as a picture for its buyer."""

import uuid
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe
from drf_spectacular.utils import extend_schema
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from fulfillment.codes import checking, qr, text
from fulfillment.codes.errors import CodeNotFound
from purchases.page_refusals import telling_why_not
from purchases.viewsets import buyer, site_url

View = Callable[..., HttpResponse]


def for_staff(view: View) -> View:
    """Log in; who works for no organization gets a 403, whatever code is asked for."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not checking.may_check(buyer(request)):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return never_cache(login_required(guarded))


@for_staff
@require_safe
def check_in(request: HttpRequest) -> HttpResponse:
    """A form to type a code that can't be scanned."""
    typed = request.GET.get("code", "")
    code = text.read(typed)
    if code is not None:
        return redirect("check-in-code", code=code)
    return _form(request, typed, str(CodeNotFound.message) if typed else "")


@for_staff
@require_http_methods(["GET", "HEAD", "POST"])
def check_in_code(request: HttpRequest, code: str) -> HttpResponse:
    """What a code is good for (GET); what can be picked up is handed over by its button (POST).

    Every member of the organization may look, owners and managers may hand over.
    """
    try:
        found = checking.find(code, caller=buyer(request))
    except CodeNotFound as refusal:
        return _form(request, code, str(refusal), status=404)
    if request.method == "POST":
        return _hand_over(request, code=code, found=found)
    context = {
        "fulfillment": found.fulfillment,
        "purchase": found.fulfillment.purchase,
        "kind": found.kind.TEMPLATE,
        "only_looks": not checking.may_hand_over(buyer(request), found),
        **found.kind.show(found.fulfillment),
    }
    return render(request, "fulfillment/check_in/page.html", context)


@telling_why_not(lambda code, found: redirect("check-in-code", code=code))
def _hand_over(request: HttpRequest, *, code: str, found: checking.Found) -> HttpResponse:
    if not hasattr(found.kind, "hand_over"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not checking.may_hand_over(buyer(request), found):
        raise PermissionDenied
    found.kind.hand_over(found.fulfillment.pk, actor=buyer(request), now=timezone.now())
    messages.success(request, "Handed over.")
    return redirect("check-in-code", code=code)


def _form(request: HttpRequest, typed: str, refusal: str, status: int = 200) -> HttpResponse:
    context = {"typed": typed, "refusal": refusal}
    return render(request, "fulfillment/check_in/page.html", context, status=status)


class AsItIs(DefaultContentNegotiation):
    """A picture is the only answer there is, whatever the browser would rather have.

    The renderer is for refusals.
    """

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type


@method_decorator(never_cache, name="dispatch")
class CodeImage(APIView):
    """A purchase's code as a QR code, for its buyer: logged in, or with a token of the API."""

    content_negotiation_class = AsItIs
    kind = "svg"
    drawn: ClassVar = {"svg": (qr.svg, "image/svg+xml"), "png": (qr.png, "image/png")}

    @extend_schema(exclude=True)
    def get(self, request: Request, purchase_id: uuid.UUID) -> HttpResponse:
        code = checking.code_for(buyer(request), purchase_id)
        draw, content_type = self.drawn[self.kind]
        picture = draw(text.address(code, site=site_url(request)))
        return HttpResponse(picture, content_type=content_type)
