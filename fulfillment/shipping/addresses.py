"""Postal addresses as a label has them."""

from typing import Any

from fulfillment.shipping.models import ShippingOrder
from offers import countries

# Of an address, in the order in which people write them.
PARTS = ("name", "line1", "line2", "postal_code", "city", "state", "country")
# Where the region stands in the line of the town, before the code:
# https://www.upu.int/en/postal-solutions/programmes-services/addressing-solutions
TOWN_REGION_CODE = frozenset({"US", "CA", "AU", "BR", "MX", "IN"})
# Where the code has a line of its own, below the town.
CODE_BELOW = frozenset({"GB", "GG", "IM", "JE", "IE", "NZ", "ZA", "SG", "HK"})


def label(order: ShippingOrder) -> list[str]:
    """The lines to print: name, street, town in the country's own order, and the country's name."""
    return [
        line
        for line in (order.name, order.line1, order.line2, *_town(order), _country(order))
        if line
    ]


def copied(address: dict[str, Any]) -> dict[str, str]:
    """The columns of an order for the address that a purchase has."""
    return {part: str(address.get(part) or "") for part in PARTS}


def _town(order: ShippingOrder) -> list[str]:
    if order.country in TOWN_REGION_CODE:
        return [" ".join(filter(None, [order.city, order.state, order.postal_code]))]
    if order.country in CODE_BELOW:
        return [order.city, order.state, order.postal_code]
    return [" ".join(filter(None, [order.postal_code, order.city])), order.state]


def _country(order: ShippingOrder) -> str:
    return countries.name(order.country).upper() if order.country else ""
