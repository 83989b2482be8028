"""The Buy button: straight to Stripe's page, or back with the reason and what was chosen."""

import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.db.models import F
from django.forms import UUIDField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from offers.throttling import PurchasesPerAddress, PurchasesPerUser
from purchases import checkout
from purchases.checkout import Started
from purchases.errors import IdempotencyKeyInUse
from purchases.models import DeliveryMethod, Purchase
from purchases.page_refusals import telling_why_not
from purchases.serializers import PurchaseRequestSerializer
from purchases.states import Status
from purchases.viewsets import buyer, site_url


def press(request: HttpRequest, slug: str, *, offer_id: str) -> HttpResponse:
    """Buy what the form of a card says; called by every page that has one.

    Whoever isn't logged in does that first, and comes to the offer's own page, with what they chose
    filled in. A refusal is told on the page from which the form was sent.
    """
    if not request.user.is_authenticated:
        return redirect_to_login(_own_page(request, slug, offer_id))
    refused = telling_why_not(lambda *_: redirect(_same_page(request, offer_id)))
    return refused(_buy)(request, offer_id)


def _buy(request: HttpRequest, offer_id: str) -> HttpResponse:
    for limit in (PurchasesPerUser(), PurchasesPerAddress()):
        if not limit.allow_request(request, None):
            messages.error(request, _too_many_tries(round(limit.wait())))
            return redirect(_same_page(request, offer_id))
    wanted = PurchaseRequestSerializer(data={**request.POST.dict(), "offer": offer_id})
    wanted.is_valid(raise_exception=True)
    key = UUIDField(required=False).clean(request.POST.get("key"))
    now = timezone.now()
    held = _held(buyer(request), wanted.validated_data, now=now)
    if held is not None:
        return redirect(held.checkout_url)
    start = partial(
        checkout.start,
        user=buyer(request),
        offer_id=wanted.validated_data["offer"],
        quantity=wanted.validated_data["quantity"],
        delivery_method=wanted.validated_data.get("delivery_method"),
        site_url=site_url(request),
        language=get_language() or settings.LANGUAGE_CODE,
        now=now,
    )
    try:
        purchase = _start(start, [key, *wanted.validated_data.values()] if key else None)
    except IdempotencyKeyInUse:
        messages.info(request, _("You pressed Buy twice: your purchase is being prepared."))
        return redirect("purchases-page")
    if purchase.status == Status.AWAITING_PAYMENT:
        return redirect(purchase.checkout_url)
    return redirect("purchase-page", purchase_id=purchase.pk)


def _held(user: User, wanted: dict[str, Any], *, now: datetime) -> Purchase | None:
    """The user's own unpaid hold of the same, at the price that is asked now.

    Who came back from Stripe's page and presses Buy again means that one: a second hold would take
    units from others, and might be paid as well. The browser may have kept the form with its key,
    or asked for the page anew; other pages may be open, too.
    """
    same = Purchase.objects.filter(
        user=user,
        offer=wanted["offer"],
        quantity=wanted["quantity"],
        unit_price=F("offer__price"),
        currency=F("offer__currency"),
        status=Status.AWAITING_PAYMENT,
        reserved_until__gt=now,
        ending_until=None,
    )
    if "delivery_method" in wanted:
        same = same.filter(delivery_method=wanted["delivery_method"])
    return same.order_by("-reserved_until").first()


def _start(start: Callable[..., Started], chosen: list[object] | None) -> Purchase:
    """Start the purchase, or find the one that an earlier click on the same form has started.

    ``chosen`` is the form's key, and what was chosen: one key is on the whole page. If what the
    first click had made was given back since, the form of a page that was left open means another.
    """
    key = ":".join(map(str, chosen)) if chosen else None
    started = start(idempotency_key=key)
    while started.replayed and started.purchase.status == Status.RELEASED:
        started = start(idempotency_key=f"{key}:{started.purchase.pk}")
    return started.purchase


# -- Where it leads otherwise ---------------------------------------------------------------------


def _own_page(request: HttpRequest, slug: str, offer_id: str) -> str:
    """The offer's own page with what was chosen, or this one if the form names no offer."""
    try:
        page = reverse("offer-page", kwargs={"slug": slug, "offer_id": uuid.UUID(offer_id)})
    except ValueError:
        return request.get_full_path()
    return f"{page}?{urlencode(_choice(request))}"


def _same_page(request: HttpRequest, offer_id: str) -> str:
    """The page from which the form was sent, with what was chosen."""
    query = request.GET.dict() | _choice(request)
    if "offer" in request.POST:
        query["offer"] = offer_id
    return f"{request.path}?{urlencode(query)}"


def _choice(request: HttpRequest) -> dict[str, str]:
    """Quantity and way of delivery as far as they make sense, for the address of a page."""
    choice = {}
    quantity, method = request.POST.get("quantity", ""), request.POST.get("delivery_method")
    if quantity.isdecimal() and len(quantity) < 6:
        choice["quantity"] = quantity
    if method in DeliveryMethod.values:
        choice["delivery_method"] = method
    return choice


def _too_many_tries(seconds: int) -> str:
    said = ngettext(
        "Too many tries: wait %(seconds)d second.",
        "Too many tries: wait %(seconds)d seconds.",
        seconds,
    )
    return said % {"seconds": seconds}
