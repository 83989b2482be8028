"""The attendee's pages: an event's offers, the way back from Stripe, my purchases.

Plain HTML forms over the same functions as the API; a login session instead of a token.
"""

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError as FormError
from django.db import OperationalError
from django.forms import UUIDField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from rest_framework import serializers

from offers import catalog, impressions, targeting
from offers.errors import Busy, DomainError, EventNotFound, database_is_busy
from offers.throttling import PurchasesPerAddress, PurchasesPerUser
from purchases import checkout, holds
from purchases.models import Purchase
from purchases.serializers import PurchaseRequestSerializer
from purchases.states import OPEN_HOLDS, Status
from purchases.viewsets import buyer, site_url

View = Callable[..., HttpResponse]

# While the purchase is one of these, the page looks again by itself.
WAITING = (*OPEN_HOLDS, Status.PAYMENT_PROCESSING)


def telling_why_not(back_to: Callable[..., HttpResponse]) -> Callable[[View], View]:
    """A form whose refusal is shown on the page that ``back_to`` leads to."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                return view(request, *args, **kwargs)
            except DomainError as refusal:
                messages.error(request, str(refusal))
            except OperationalError as error:
                if not database_is_busy(error):
                    raise
                messages.error(request, Busy.message)
            except FormError:
                messages.error(request, "This form is damaged: load the page again.")
            except serializers.ValidationError as refusal:
                fields: Any = refusal.detail
                for reasons in fields.values():
                    messages.error(request, " ".join(reasons))
            return back_to(*args, **kwargs)

        return guarded

    return decorate


@require_safe
def events_page(request: HttpRequest) -> HttpResponse:
    """The front door: the events that the visitor may see."""
    events = targeting.visible_events(request.user).order_by("starts_at", "title")[:200]
    return render(request, "events.html", {"events": events})


def offers_page(request: HttpRequest, slug: str) -> HttpResponse:
    """What can be bought at an event (GET), and the Buy button (POST)."""
    if request.method == "POST":
        return _buy(request, slug)
    return _show_offers(request, slug)


@never_cache
@require_safe
def _show_offers(request: HttpRequest, slug: str) -> HttpResponse:
    try:
        event = targeting.visible_event(request.user, slug)
    except EventNotFound:
        raise Http404 from None
    now = timezone.now()
    offers = catalog.showable(targeting.offers_for(request.user, event), now).order_by("created_at")
    impressions.note(request, ((offer.pk, offer.placement) for offer in offers), now=now)
    registration = targeting.registration_of(request.user, event)
    return render(
        request,
        "offers.html",
        # A key with the form: a double click on Buy, or a reload, is one purchase.
        {
            "event": event,
            "offers": offers,
            "paused": not catalog.is_selling(),
            "key": uuid.uuid4(),
            "most": settings.MAX_QUANTITY_PER_PURCHASE,
            # Who has a tier needs no upgrade to it, and one upgrade is all that one ticket takes.
            "tier": registration and registration.ticket_tier_id,
        },
    )


@login_required
@telling_why_not(lambda slug: redirect("offers-page", slug=slug))
def _buy(request: HttpRequest, slug: str) -> HttpResponse:
    for limit in (PurchasesPerUser(), PurchasesPerAddress()):
        if not limit.allow_request(request, None):
            messages.error(request, f"Too many tries: wait {limit.wait():.0f} seconds.")
            return redirect("offers-page", slug=slug)
    wanted = PurchaseRequestSerializer(data=request.POST)
    wanted.is_valid(raise_exception=True)
    method = wanted.validated_data.get("delivery_method")
    key = UUIDField(required=False).clean(request.POST.get("key"))
    offer_id, quantity = wanted.validated_data["offer"], wanted.validated_data["quantity"]
    chosen = (key, offer_id, quantity, method)
    started = checkout.start(
        user=buyer(request),
        offer_id=offer_id,
        quantity=quantity,
        delivery_method=method,
        # One key is on the whole page; what was chosen on it makes it the purchase's own.
        idempotency_key=":".join(map(str, filter(None, chosen))) if key else None,
        site_url=site_url(request),
        now=timezone.now(),
    )
    if started.purchase.status == Status.AWAITING_PAYMENT:
        return redirect(started.purchase.checkout_url)
    return redirect("purchases-page")


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
    messages.success(request, "Cancelled. Nothing was charged.")
    return redirect("purchases-page")
