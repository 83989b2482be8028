"""The attendee's pages of what is on sale: the events, an event's offers, Buy.

Plain HTML forms over the same functions as the API; a login session instead of a token.
"""

import uuid

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.forms import UUIDField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from offers import catalog, impressions, targeting
from offers.errors import EventNotFound
from offers.throttling import PurchasesPerAddress, PurchasesPerUser
from purchases import checkout
from purchases.page_refusals import telling_why_not
from purchases.serializers import PurchaseRequestSerializer
from purchases.states import Status
from purchases.viewsets import buyer, site_url


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
