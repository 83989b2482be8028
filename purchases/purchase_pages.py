"""The attendee's pages of what they bought: the way back from Stripe, my purchases, Cancel.

Plain HTML forms over the same functions as the API; a login session instead of a token.
"""

import uuid

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from purchases import holds
from purchases.models import Purchase
from purchases.page_refusals import telling_why_not
from purchases.states import OPEN_HOLDS, Status
from purchases.viewsets import buyer

# While the purchase is one of these, the page looks again by itself.
WAITING = (*OPEN_HOLDS, Status.PAYMENT_PROCESSING)


@never_cache
@login_required
@require_safe
def success_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Where Stripe sends the buyer after paying; the webhook may come a moment later."""
    session_id = request.GET.get("session_id", "")
    purchase = Purchase.objects.filter(
        user=buyer(request),
        event__slug=slug,
        checkout_session_id=session_id if session_id.isprintable() else "",
    ).first()
    if purchase is None:
        raise Http404
    return render(
        request, "success.html", {"purchase": purchase, "waiting": purchase.status in WAITING}
    )


@never_cache
@login_required
@require_safe
def purchases_page(request: HttpRequest) -> HttpResponse:
    """My purchases, newest first, with what is still to be paid."""
    purchases = Purchase.objects.filter(user=buyer(request)).select_related("event")
    return render(request, "purchases.html", {"purchases": purchases.order_by("-created_at")[:200]})


@login_required
@require_POST
@telling_why_not(lambda purchase_id: redirect("purchases-page"))
def cancel(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """The Cancel button of an unpaid hold."""
    holds.cancel(purchase_id=purchase_id, user=buyer(request), now=timezone.now())
    messages.success(request, _("Cancelled. Nothing was charged."))
    return redirect("purchases-page")
