"""The attendee's pages of one purchase: what became of it, and what there is to do."""

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from fulfillment import delivery
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from purchases import bought
from purchases.models import Purchase
from purchases.states import Status as PurchaseStatus
from purchases.viewsets import buyer


@never_cache
@login_required
@require_safe
def success_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Where Stripe sends the buyer after paying; the webhook may come a moment later.

    Stripe has the address of when the session was opened; whose session it is tells the purchase.
    """
    session_id = request.GET.get("session_id", "")
    purchase = _mine(request, checkout_session_id=session_id if session_id.isprintable() else "")
    if purchase.event.slug != slug:  # the event has another name by now
        page = reverse("success-page", kwargs={"slug": purchase.event.slug})
        return redirect(f"{page}?{urlencode({'session_id': session_id})}")
    return render(request, "success.html", _context(purchase, comes_from_stripe=True))


@never_cache
@login_required
@require_safe
def purchase_page(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """What was bought, what was paid, and how to get it: content, code, tracking, time."""
    return render(request, "purchase.html", _context(_mine(request, pk=purchase_id)))


def _mine(request: HttpRequest, **which: object) -> Purchase:
    """The caller's purchase, or raise ``Http404``: of others' nobody learns whether they exist."""
    mine = Purchase.objects.filter(user=buyer(request)).select_related("event", "user")
    purchase = mine.filter(**which).first()
    if purchase is None:
        raise Http404
    return purchase


def _context(purchase: Purchase, *, comes_from_stripe: bool = False) -> dict[str, Any]:
    now = timezone.now()
    fulfillment = Fulfillment.objects.filter(purchase=purchase).first()
    context: dict[str, Any] = {
        "purchase": purchase,
        "fulfillment": fulfillment,
        "bought": bought.show_one(purchase, now=now, comes_from_stripe=comes_from_stripe),
        "comes_from_stripe": comes_from_stripe,
        "is_coming": _is_coming(purchase, fulfillment),
    }
    if fulfillment is not None:
        fulfillment.purchase = purchase
        deliverer = delivery.DELIVERERS[fulfillment.type]
        context |= deliverer.page(fulfillment, now=now)
        context["how_to_get_it"] = f"fulfillment/{fulfillment.type.lower()}.html"
    return context


def _is_coming(purchase: Purchase, fulfillment: Fulfillment | None) -> bool:
    """Whether a worker is about to deliver it, so that the page had better look again."""
    if purchase.status != PurchaseStatus.PAID:
        return False
    if fulfillment is None or fulfillment.status == Status.PENDING:
        return True
    return fulfillment.status == Status.PROCESSING and fulfillment.is_due
