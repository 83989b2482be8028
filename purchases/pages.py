"""The attendee's pages of what is on sale: the events, an event's offers, one offer, Buy.

Plain HTML forms over the same functions as the API; a login session instead of a token.
"""

import uuid

from django.contrib.auth.views import redirect_to_login
from django.db.models import Case, When
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from offers import catalog, impressions, replica, targeting
from offers.errors import EventNotFound, OfferNotFound
from offers.models import Event, Offer
from offers.offer_card import Card
from purchases import buy_button
from purchases.offer_cards import Visit

# An event has a dozen; whoever imports thousands gets pages of them.
OFFERS_ON_A_PAGE = 200
# The placements that are shown on the event's page, in this order.
ON_THE_EVENTS_PAGE = (Offer.Placement.IN_EVENT, Offer.Placement.CHECKOUT)


@require_safe
def events_page(request: HttpRequest) -> HttpResponse:
    """The front door: the events that the visitor may see, those that are over at the end."""
    is_over = Case(When(ends_at__lt=timezone.now(), then=1), default=0)
    events = targeting.visible_events(request.user).annotate(is_over=is_over)
    shown = events.order_by("is_over", "starts_at", "title")[:200]
    listed = replica.read(lambda database: list(shown.using(database)))
    return render(
        request,
        "events.html",
        {
            "events": [event for event in listed if not event.is_over],
            "past": [event for event in listed if event.is_over],
        },
    )


# -- What is on sale at an event ------------------------------------------------------------------


def offers_page(request: HttpRequest, slug: str) -> HttpResponse:
    """What can be bought at an event (GET), and the Buy button of its cards (POST).

    With ``?placement=CHECKOUT`` only what goes with a ticket: for the organizer's ticket shop.
    """
    if request.method == "POST":
        return buy_button.press(request, slug, offer_id=request.POST.get("offer", ""))
    return _show_offers(request, slug)


@never_cache
@require_safe
def _show_offers(request: HttpRequest, slug: str) -> HttpResponse:
    if moved := _moved(request, slug):
        return moved
    try:
        event = targeting.visible_event(request.user, slug)
    except EventNotFound:
        return _log_in_first(request)
    visit = _visit(request, event, chosen_id=request.GET.get("offer", ""))
    asked = request.GET.get("placement")
    placements = [each for each in ON_THE_EVENTS_PAGE if asked == each] or ON_THE_EVENTS_PAGE
    offers = targeting.offers_for(request.user, event).filter(placement__in=placements)
    page = _number(request.GET.get("page"))
    start = (page - 1) * OFFERS_ON_A_PAGE
    shown = catalog.on_display(offers, visit.now)[start : start + OFFERS_ON_A_PAGE + 1]
    found = replica.read(lambda database: list(shown.using(database)))
    cards = visit.cards(found[:OFFERS_ON_A_PAGE])
    _count(request, cards, visit)
    return render(
        request,
        "offers.html",
        {
            "event": event,
            "visit": visit,
            "in_event": [card for card in cards if card.offer.placement == "IN_EVENT"],
            "with_ticket": [card for card in cards if card.offer.placement == "CHECKOUT"],
            "more": page + 1 if len(found) > OFFERS_ON_A_PAGE else None,
            # What is told of live stock is of all offers: of thousands that would be too much.
            "is_whole": page == 1 and len(found) <= OFFERS_ON_A_PAGE,
            "placement": placements[0] if len(placements) == 1 else "",
        },
    )


def _moved(request: HttpRequest, slug: str) -> HttpResponse | None:
    """To the list with the offer that is asked for, if its event has another name by now.

    Who comes back from Stripe's page, or was refused, comes with the name of before.
    """
    try:
        offer = targeting.visible_offer(request.user, uuid.UUID(request.GET.get("offer", "")))
    except (ValueError, OfferNotFound):
        return None
    if offer.event.slug == slug:
        return None
    return redirect(f"{reverse('offers-page', args=[offer.event.slug])}?{request.GET.urlencode()}")


# -- One offer ------------------------------------------------------------------------------------


def offer_page(request: HttpRequest, slug: str, offer_id: uuid.UUID) -> HttpResponse:
    """One offer of any placement, on sale or not (GET), and its Buy button (POST).

    Its address is what organizers link to from anywhere, and what comes after a login.
    """
    if request.method == "POST":
        return buy_button.press(request, slug, offer_id=str(offer_id))
    return _show_offer(request, slug, offer_id)


@never_cache
@require_safe
def _show_offer(request: HttpRequest, slug: str, offer_id: uuid.UUID) -> HttpResponse:
    try:
        offer = targeting.visible_offer(request.user, offer_id)
    except OfferNotFound:
        return _log_in_first(request)
    if offer.event.slug != slug:  # the event has another name by now
        return redirect("offer-page", slug=offer.event.slug, offer_id=offer.pk)
    visit = _visit(request, offer.event)
    refusal = catalog.refusal(request.user, offer, quantity=1, now=visit.now)
    card = visit.card(offer, refusal)
    _count(request, [card], visit)
    return render(request, "offer.html", {"event": offer.event, "visit": visit, "card": card})


# -- What both do ---------------------------------------------------------------------------------


def _log_in_first(request: HttpRequest) -> HttpResponse:
    """Whoever isn't logged in may yet be allowed to see it; they don't learn whether it exists."""
    if request.user.is_authenticated:
        raise Http404
    return redirect_to_login(request.get_full_path())


def _visit(request: HttpRequest, event: Event, *, chosen_id: str | None = None) -> Visit:
    return Visit(
        request.user,
        event,
        now=timezone.now(),
        # One key is on the whole page; what is chosen on it makes it the purchase's own.
        key=str(uuid.uuid4()),
        chosen_id=chosen_id,
        quantity=_number(request.GET.get("quantity")),
        delivery_method=request.GET.get("delivery_method", ""),
    )


def _number(text: str | None) -> int:
    """A number from the address, which anybody may have written."""
    return max(1, int(text)) if text and text.isdecimal() and len(text) < 6 else 1


def _count(request: HttpRequest, cards: list[Card], visit: Visit) -> None:
    """Only what could be bought was shown, as in the API's list."""
    shown = ((card.offer.pk, card.offer.placement) for card in cards if card.refusal is None)
    impressions.note(request, shown, now=visit.now)
