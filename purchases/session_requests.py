"""What Stripe is asked for a purchase: its Checkout Session, and how long that stays open."""

from datetime import timedelta
from typing import Any

from django.conf import settings

from offers import money
from offers.models import Offer
from purchases import delivery_methods
from purchases.models import Purchase

# Stripe's sessions live at least 30 minutes from their creation; the rest is for a late retry.
SESSION_LIFETIME = timedelta(minutes=35)


def session_lifetime() -> timedelta:
    """How long a purchase's session stays open: longer than its hold, and than Stripe's minimum."""
    return max(SESSION_LIFETIME, timedelta(minutes=settings.RESERVATION_MINUTES + 5))


def session_request(purchase: Purchase, offer: Offer, page: str) -> dict[str, Any]:
    """What Stripe is asked for this purchase; stored, because a retry has to ask the same.

    ``page`` is the address of the event's offers. The event may get another name while the buyer
    is at Stripe: the two pages that they come back to are also found under the old one.
    """
    reference = {"purchase": str(purchase.pk), "offer": str(offer.pk)}
    if offer.is_in_stripes_hands:
        item: dict[str, Any] = {"price": offer.stripe_price_id}
    else:
        item = {"price_data": inline_price(purchase)}
    return {
        "mode": "payment",
        "line_items": [item | {"quantity": purchase.quantity}],
        "client_reference_id": str(purchase.pk),
        "locale": purchase.language,
        "metadata": reference,
        "payment_intent_data": {"metadata": reference},
        "expires_at": int((purchase.created_at + session_lifetime()).timestamp()),
        "success_url": f"{page}/success?session_id={{CHECKOUT_SESSION_ID}}",
        "cancel_url": f"{page}?offer={offer.pk}",
        **delivery_methods.asked_of_stripe(offer, purchase.delivery_method),
    }


def inline_price(purchase: Purchase) -> dict[str, Any]:
    return {
        "currency": purchase.currency.lower(),
        "unit_amount": money.to_minor_units(purchase.unit_price, purchase.currency),
        "product_data": {"name": purchase.offer_title},
    }
