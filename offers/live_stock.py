"""What is left of an event's offers, for a page that is open: ``live.js`` asks again and again."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from offers import catalog, targeting
from offers.errors import EventNotFound
from offers.http_caching import conditional
from offers.models import Offer
from offers.offer_card import FEW, left_in_words


@require_safe
def offers_live(request: HttpRequest, slug: str) -> HttpResponse:
    """The stock of the offers that the visitor's page of the event may show; others are over.

    In the language of the page (``?lang=``), by the page's rules of who sees what, and counted as a
    showing of nothing. Two queries for somebody who isn't logged in. A page that was made for
    somebody logged in (``?mine=1``) gets 403 once they aren't: what is for them alone isn't over.
    """
    if request.GET.get("mine") and not request.user.is_authenticated:
        return JsonResponse({"error": "logged out: load the page again"}, status=403)
    try:
        event = targeting.visible_event(request.user, slug)
    except EventNotFound:
        raise Http404 from None
    counters = ("inventory_total", "inventory_reserved", "inventory_sold")
    offers = catalog.on_display(targeting.offers_for(request.user, event), timezone.now())
    with translation.override(_language_of(request)):
        answer = JsonResponse(
            {
                "offers": {
                    str(offer.pk): _stock(offer) for offer in offers.only(*counters).order_by("pk")
                },
                # What the page says of an offer that isn't among them, or is there again.
                "over": _("This offer has ended."),
                "back": _("available again"),
            }
        )
        answer.headers["Content-Language"] = translation.get_language()
    return conditional(request, answer, shareable=event.is_public)


def _stock(offer: Offer) -> dict[str, object]:
    """``left`` is null where the card names no number: no page has to hear of each sale then."""
    left = offer.inventory_available
    few = left is not None and left <= FEW
    return {
        "left": left if few else None,
        "said": left_in_words(left),
        "sold_out": left == 0,
    }


def _language_of(request: HttpRequest) -> str:
    asked = request.GET.get("lang", "")
    return asked if asked in dict(settings.LANGUAGES) else translation.get_language()
