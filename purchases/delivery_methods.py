"""How merchandise can reach its buyer: what an offer has, and which of it a buyer gets."""

from typing import Any

from offers.models import Offer
from purchases.errors import DeliveryMethodNotOffered
from purchases.models import DeliveryMethod


def chosen(offer: Offer, wanted: str | None) -> str:
    """The method that a purchase of ``offer`` gets: ``wanted``, or else what the offer does first.

    Empty for what is neither sent nor collected. Called by checkout, of the offer as it
    was read; a later edit makes it look again. Raises ``DeliveryMethodNotOffered``, which says what
    is possible.
    """
    possible = ways(offer)
    if wanted is None:
        return possible[0] if possible else ""
    if wanted not in possible:
        raise DeliveryMethodNotOffered(possible=[str(method) for method in possible])
    return wanted


def ways(offer: Offer) -> list[DeliveryMethod]:
    """What a buyer of ``offer`` can choose from, the default first; also asked by the pages.

    An offer of old that has neither is for its organizer to hand over.
    """
    if offer.offer_type != Offer.Type.MERCHANDISE:
        return []
    # Where a parcel goes is asked on Stripe's page, which a free offer never sees.
    ships = [DeliveryMethod.SHIPPING] if offer.shipping_countries and offer.price else []
    is_collected = offer.allows_collection or not ships
    return [*ships, *([DeliveryMethod.COLLECTION] if is_collected else [])]


def asked_of_stripe(offer: Offer, method: str) -> dict[str, Any]:
    """What a Checkout Session's request has beside the rest, so that its page asks the address.

    https://docs.stripe.com/payments/collect-addresses
    """
    if method != DeliveryMethod.SHIPPING:
        return {}
    countries = list(dict.fromkeys(offer.shipping_countries))
    return {"shipping_address_collection": {"allowed_countries": countries}}
