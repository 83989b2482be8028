"""What an offer may not say of itself: errors by field, for ``Offer.clean``."""

from typing import TYPE_CHECKING

from offers import countries, money

if TYPE_CHECKING:
    from offers.models import Offer


def price_errors(offer: "Offer") -> dict[str, str]:
    """The price and the one struck through; the currency is one of Stripe's."""
    errors = {}
    minimum = money.MINIMUM_CHARGE.get(offer.currency)
    if not money.is_chargeable(offer.price, offer.currency):
        errors["price"] = f"This has more digits than can be charged in {offer.currency}."
    elif minimum and 0 < offer.price < minimum:
        errors["price"] = (
            f"Stripe charges no less than {money.format_amount(minimum, offer.currency)} "
            f"{offer.currency}: ask for that much, or make the offer free with 0."
        )
    elif money.to_minor_units(offer.price, offer.currency) > money.MAXIMUM_MINOR_UNITS:
        errors["price"] = f"Stripe charges no such amount in {offer.currency}: it is too large."
    if offer.original_price is not None:
        if not money.is_chargeable(offer.original_price, offer.currency):
            errors["original_price"] = f"This has more digits than an amount in {offer.currency}."
        elif offer.original_price < offer.price:
            errors["original_price"] = "The original price can't be below the price."
    return errors


def delivery_errors(offer: "Offer") -> dict[str, str]:
    """How what is bought reaches its buyer, as far as the offer itself says."""
    errors = {}
    if offer.ticket_tier is not None:
        if offer.offer_type != offer.Type.TICKET_UPGRADE:
            errors["ticket_tier"] = "Only a ticket upgrade moves its buyers to a tier."
        elif offer.event_id and offer.ticket_tier.event_id != offer.event_id:
            errors["ticket_tier"] = "This tier belongs to another event."
    unknown = sorted(set(offer.shipping_countries) - countries.SHIPPABLE)
    if unknown:
        errors["shipping_countries"] = (
            f"Stripe asks no address for {', '.join(unknown)}: use two capital letters for "
            "each country (ISO 3166), for example DE, AT."
        )
    elif offer.shipping_countries and offer.offer_type != offer.Type.MERCHANDISE:
        errors["shipping_countries"] = "Only merchandise is sent anywhere."
    elif offer.shipping_countries and offer.price == 0:
        errors["shipping_countries"] = (
            "Where a parcel goes is asked on Stripe's page, which a free offer never sees: "
            "let it be collected at the event, or ask a price."
        )
    if (
        offer.offer_type == offer.Type.MERCHANDISE
        and not offer.shipping_countries
        and not offer.allows_collection
    ):
        errors["allows_collection"] = (
            "Let merchandise be collected at the event, or say which countries it is sent to."
        )
    return errors
