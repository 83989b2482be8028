"""Amounts: how many digits a currency has, and what Stripe calls the same amount.

The only place that converts between our decimals (major units) and Stripe's integers (minor units).
Source: https://docs.stripe.com/currencies (zero-decimal, three-decimal and special-case currencies,
minimum charge amounts).
"""

from decimal import Decimal

ZERO_DECIMAL = frozenset("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split())
THREE_DECIMAL = frozenset("BHD JOD KWD OMR TND".split())
# No digits of their own any more, yet Stripe still counts them in hundredths, which must be 00.
WHOLE_BUT_IN_HUNDREDTHS = frozenset({"ISK", "UGX"})
TWO_DECIMAL = frozenset(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BWP BYN BZD CAD CDF "
    "CHF CNY COP CRC CVE CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR JMD KES KGS KHR KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MUR MVR "
    "MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR "
    "SEK SGD SHP SLE SOS SRD STD SZL THB TJS TOP TRY TTD TWD TZS UAH USD UYU UZS WST XCD YER ZAR "
    "ZMW".split()
)
CURRENCIES = ZERO_DECIMAL | THREE_DECIMAL | WHOLE_BUT_IN_HUNDREDTHS | TWO_DECIMAL

# Major units. A currency that isn't listed is checked by Stripe alone, at its rate of the day.
MINIMUM_CHARGE = {
    currency: Decimal(amount)
    for currency, amount in {
        "USD": "0.50", "AED": "2.00", "AUD": "0.50", "BRL": "0.50", "CAD": "0.50", "CHF": "0.50",
        "CZK": "15.00", "DKK": "2.50", "EUR": "0.50", "GBP": "0.30", "HKD": "4.00", "HUF": "175.00",
        "INR": "0.50", "JPY": "50", "MXN": "10", "MYR": "2", "NOK": "3.00", "NZD": "0.50",
        "PLN": "2.00", "RON": "2.00", "SEK": "3.00", "SGD": "0.50", "THB": "10",
    }.items()
}  # fmt: skip
# Stripe refuses a unit_amount of more than eight digits.
MAXIMUM_MINOR_UNITS = 99_999_999


def digits(currency: str) -> int:
    """How many digits after the point an amount in ``currency`` is written with.

    Raises ``ValueError`` for a currency that Stripe can't charge.
    """
    if currency in TWO_DECIMAL:
        return 2
    if currency in ZERO_DECIMAL or currency in WHOLE_BUT_IN_HUNDREDTHS:
        return 0
    if currency in THREE_DECIMAL:
        return 3
    raise ValueError(f"{currency!r} is not a currency that Stripe charges in.")


def format_amount(amount: Decimal, currency: str) -> str:
    """The API's form of an amount: ``"50.00"`` USD, ``"500"`` JPY, ``"1.250"`` KWD."""
    return f"{amount:.{digits(currency)}f}"


def grouped(amount: Decimal, currency: str) -> str:
    """An amount for people: thousands apart, as many digits as its currency has."""
    return f"{amount:,.{digits(currency)}f}"


def is_chargeable(amount: Decimal, currency: str) -> bool:
    """Whether ``amount`` has no more digits than ``currency`` and Stripe allow."""
    allowed = digits(currency)
    if currency in THREE_DECIMAL:
        allowed = 2  # Stripe wants the last of the three digits to be 0
    return amount == amount.quantize(Decimal(1).scaleb(-allowed))


def to_minor_units(amount: Decimal, currency: str) -> int:
    """``amount`` (major units) as the integer that Stripe's API takes.

    Raises ``ValueError`` when the amount has digits that can't be charged: rounding money silently
    would make what the buyer saw and what is charged differ.
    """
    if not is_chargeable(amount, currency):
        raise ValueError(f"{amount} {currency} has more digits than can be charged.")
    return int(amount.scaleb(_stripe_exponent(currency)))


def from_minor_units(minor: int, currency: str) -> Decimal:
    """The decimal amount (major units) behind one of Stripe's integers."""
    exponent = digits(currency)
    return Decimal(minor).scaleb(-_stripe_exponent(currency)).quantize(Decimal(1).scaleb(-exponent))


def _stripe_exponent(currency: str) -> int:
    return 2 if currency in WHOLE_BUT_IN_HUNDREDTHS else digits(currency)
