from copy import copy
from decimal import Decimal

from babel import Locale
from django import template
from django.utils.translation import get_language, to_locale

from offers import money

register = template.Library()


@register.filter
def amount(value: Decimal, currency: str) -> str:
    """``{{ offer.price|amount:offer.currency }}``: `$50.00`, or `50,00 $` in German.

    The digits are Stripe's (``offers.money``): Babel has none for currencies whose coins nobody
    uses any more, and would round what is charged.
    """
    locale = Locale.parse(to_locale(get_language() or "en"))
    pattern = copy(locale.currency_formats["standard"])
    pattern.frac_prec = (money.digits(currency),) * 2
    return str(pattern.apply(value, locale, currency=currency, currency_digits=False))
