"""Handing out content: codes from the pool, and the right to open the file or the address."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import UUIDField
from django.urls import reverse

from fulfillment.digital import codes, links
from fulfillment.digital.models import AccessCode, DigitalContent, DigitalDelivery
from fulfillment.errors import CannotDeliver
from fulfillment.models import Fulfillment
from offers.models import Offer
from offers.prepared import Given, Insert, Query
from purchases import mail

# What ``describe`` reads, as lookups from the fulfilment.
PREFETCH: tuple[str, ...] = ("digital_delivery__content", "access_codes")

_CONTENT = Query(lambda: DigitalContent.objects.filter(offer=Given("offer", UUIDField())))
_NEW = Insert(DigitalDelivery)

NOTHING_SET_UP = (
    "There is no content yet: upload a file, give an address or import access codes on the offer's "
    "page."
)


def deliver(fulfillment: Fulfillment, *, now: datetime) -> bool:
    """Give the codes, note that the content may be opened, and tell the buyer.

    Raises ``CannotDeliver``. A second time it gives the same codes and sends no second e-mail.
    """
    purchase = fulfillment.purchase
    content = _CONTENT.first(offer=purchase.offer_id)
    if content is None or not (content.can_be_opened or content.gives_access_codes):
        raise CannotDeliver(NOTHING_SET_UP)
    if content.gives_access_codes:
        codes.give(fulfillment, quantity=purchase.quantity, now=now)
    # By its id, or the fulfilment would take this for its delivery where it has one already.
    _NEW.run_once(DigitalDelivery(fulfillment_id=fulfillment.pk, content=content))
    mail.enqueue(purchase, "content_ready", now=now)
    return True


def letter(fulfillment: Fulfillment, *, now: datetime) -> mail.Letter | None:
    return mail.Letter("content_ready") if _handed_out(fulfillment) else None


def missing(offer: Offer, *, now: datetime) -> str | None:
    content = DigitalContent.objects.filter(offer=offer).first()
    if content is None or not (content.can_be_opened or content.gives_access_codes):
        return "there is no file, no address and no access codes for its buyers yet."
    if (
        content.gives_access_codes
        and not AccessCode.objects.filter(offer=offer, fulfillment=None).exists()
    ):
        return "there is no access code left for its buyers: import some."
    return None


def revoke(fulfillment: Fulfillment, *, now: datetime) -> None:
    """Nothing to write: links ask the fulfilment and the purchase at each use.

    Codes stay this fulfilment's, since the buyer has seen them; admin lists them as revoked, for
    the organizer to block them wherever they are redeemed.
    """


def describe(fulfillment: Fulfillment, *, absolute: Callable[[str], str]) -> dict[str, Any]:
    """For the API: a link that is fresh at each look, and the codes; null unless handed out."""
    handed = _handed_out(fulfillment)
    given = [code.code for code in fulfillment.access_codes.all()] if handed else None
    return {
        "content_url": absolute(_path(handed)) if handed and _opens(handed) else None,
        "access_code": given[0] if given else None,
        "access_codes": given,
        "downloads": handed.downloads if handed else None,
    }


def page(fulfillment: Fulfillment, *, now: datetime) -> dict[str, Any]:
    """The same for the attendee's page."""
    handed = _handed_out(fulfillment)
    if handed is None:
        return {}
    return {
        "handed": handed,
        "content": handed.content,
        "content_url": _path(handed) if _opens(handed) else None,
        "access_codes": list(fulfillment.access_codes.all()),
        "link_until": now + timedelta(hours=settings.CONTENT_LINK_HOURS),
    }


def _handed_out(fulfillment: Fulfillment) -> DigitalDelivery | None:
    """The delivery while it is the buyer's; none of what staff delivered by other means."""
    if not fulfillment.is_handed_out:
        return None
    return getattr(fulfillment, "digital_delivery", None)


def _opens(handed: DigitalDelivery) -> bool:
    return handed.content.can_be_opened


def _path(handed: DigitalDelivery) -> str:
    return reverse("content", args=[links.token_for(handed.fulfillment_id)])
