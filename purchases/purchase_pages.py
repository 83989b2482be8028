"""The attendee's pages of their purchases: the list, Cancel, Try again, and what scripts poll.

Plain HTML forms over the same functions as the API; a login session instead of a token. The pages
of one purchase, which also show what it brought, are in ``fulfillment.pages``.
"""

import uuid

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from purchases import bought, holds, mirror, status_links, trying_again
from purchases.errors import PurchaseNotFound
from purchases.models import Purchase
from purchases.page_refusals import on_to_paying, telling_why_not, too_many_tries
from purchases.states import OPEN_HOLDS, UNSETTLED
from purchases.viewsets import buyer, site_url

ON_A_PAGE = 20
# Nobody turns this many pages; PostgreSQL would have to read them all.
MOST_PAGES = 1000


@never_cache
@login_required
@require_safe
def purchases_page(request: HttpRequest) -> HttpResponse:
    """My purchases: what is still to be paid on top, then the others, newest first."""
    mine = Purchase.objects.filter(user=buyer(request)).select_related("event")
    page = _page_number(request)
    others = mine.exclude(status__in=OPEN_HOLDS).order_by("-created_at", "-pk")
    # One more than is shown tells whether there is another page: nothing is counted.
    found = list(others[(page - 1) * ON_A_PAGE : page * ON_A_PAGE + 1])
    held = mine.filter(status__in=OPEN_HOLDS).order_by("reserved_until")
    now = timezone.now()
    return render(
        request,
        "purchases.html",
        {
            "held": bought.show(buyer(request), held, now=now),
            "others": bought.show(buyer(request), found[:ON_A_PAGE], now=now),
            "page": page,
            "newer": page - 1,
            "older": page + 1 if len(found) > ON_A_PAGE else None,
        },
    )


def _page_number(request: HttpRequest) -> int:
    asked = request.GET.get("page", "1")
    number = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 5 else 0
    if not 1 <= number <= MOST_PAGES:
        raise Http404
    return number


@login_required
@require_POST
@telling_why_not(lambda purchase_id: redirect("purchases-page"))
def cancel(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """The Cancel button of an unpaid hold."""
    holds.cancel(purchase_id=purchase_id, user=buyer(request), now=timezone.now())
    messages.success(request, _("Cancelled. Nothing was charged."))
    return redirect("purchases-page")


@login_required
@require_POST
@telling_why_not(lambda purchase_id: redirect("purchases-page"))
def again(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """The Try again button of a purchase that ended unpaid: on to Stripe, in one tap."""
    if too_many_tries(request):
        return redirect("purchases-page")
    return on_to_paying(
        request,
        lambda: trying_again.start(
            purchase_id=purchase_id,
            user=buyer(request),
            site_url=site_url(request),
            language=get_language() or settings.LANGUAGE_CODE,
            now=timezone.now(),
        ),
    )


@never_cache
@require_safe
def status(request: HttpRequest, purchase_id: uuid.UUID) -> JsonResponse:
    """How a purchase is, for the script of its page: from the mirror, without a query.

    The token in the address says that somebody who may know was shown that page; nobody is logged
    in here, and the answer names nobody. 403 once it is too old, 404 if it is no token of this
    purchase.
    """
    try:
        status_links.check(purchase_id, request.GET.get("token", ""))
        state = mirror.read(purchase_id)
    except signing.SignatureExpired:
        return JsonResponse({"error": "expired: load the page again"}, status=403)
    except (signing.BadSignature, PurchaseNotFound):
        return JsonResponse({"error": "no such purchase, or not with this token"}, status=404)
    return JsonResponse(
        {
            "status": state.status,
            "reserved_until": state.reserved_until,
            "waiting": state.status in UNSETTLED,
            "page": reverse("purchase-page", kwargs={"purchase_id": purchase_id}),
        }
    )
