"""The Buy button: straight to Stripe's page, or back with the reason and what was chosen."""

import uuid
from collections.abc import Callable
from functools import partial
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.forms import UUIDField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language

from purchases import checkout, held_already
from purchases.checkout import Started
from purchases.models import DeliveryMethod, Purchase
from purchases.page_refusals import on_to_paying, telling_why_not, too_many_tries
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
    if too_many_tries(request):
        return redirect(_same_page(request, offer_id))
    wanted = PurchaseRequestSerializer(data={**request.POST.dict(), "offer": offer_id})
    wanted.is_valid(raise_exception=True)
    key = UUIDField(required=False).clean(request.POST.get("key"))
    now = timezone.now()
    held = held_already.find(
        buyer(request),
        offer_id=wanted.validated_data["offer"],
        quantity=wanted.validated_data["quantity"],
        delivery_method=wanted.validated_data.get("delivery_method"),
        now=now,
    )
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
    return on_to_paying(
        request,
        lambda: _start(start, [key, *wanted.validated_data.values()] if key else None),
    )


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
