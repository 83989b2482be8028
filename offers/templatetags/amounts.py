from decimal import Decimal

from django import template

from offers import money

register = template.Library()


@register.filter
def amount(value: Decimal, currency: str) -> str:
    """``{{ offer.price|amount:offer.currency }}``: `50.00 USD`."""
    return f"{money.format_amount(value, currency)} {currency}"
