"""Currencies as Stripe counts them: minor units, minimum charges, and amounts for people.

https://docs.stripe.com/currencies
"""

from __future__ import annotations

from decimal import Decimal

from .errors import ApiError

SUPPORTED = frozenset({
    "aed", "afn", "all", "amd", "ang", "aoa", "ars", "aud", "awg", "azn", "bam", "bbd", "bdt",
    "bgn", "bhd", "bif", "bmd", "bnd", "bob", "brl", "bsd", "bwp", "byn", "bzd", "cad", "cdf",
    "chf", "clp", "cny", "cop", "crc", "cve", "czk", "djf", "dkk", "dop", "dzd", "egp", "etb",
    "eur", "fjd", "fkp", "gbp", "gel", "gip", "gmd", "gnf", "gtq", "gyd", "hkd", "hnl", "htg",
    "huf", "idr", "ils", "inr", "isk", "jmd", "jod", "jpy", "kes", "kgs", "khr", "kmf", "krw",
    "kwd", "kyd", "kzt", "lak", "lbp", "lkr", "lrd", "lsl", "mad", "mdl", "mga", "mkd", "mmk",
    "mnt", "mop", "mur", "mvr", "mwk", "mxn", "myr", "mzn", "nad", "ngn", "nio", "nok", "npr",
    "nzd", "omr", "pab", "pen", "pgk", "php", "pkr", "pln", "pyg", "qar", "ron", "rsd", "rub",
    "rwf", "sar", "sbd", "scr", "sek", "sgd", "shp", "sle", "sos", "srd", "std", "szl", "thb",
    "tjs", "tnd", "top", "try", "ttd", "twd", "tzs", "uah", "ugx", "usd", "uyu", "uzs", "vnd",
    "vuv", "wst", "xaf", "xcd", "xof", "xpf", "yer", "zar", "zmw",
})  # fmt: skip
ZERO_DECIMAL = frozenset({
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf",
    "xof", "xpf",
})  # fmt: skip
THREE_DECIMAL = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})

# Kept with two decimals at Stripe for old integrations although they have none, so the two must be
# zero.
WHOLE_UNITS_ONLY = frozenset({"isk", "ugx"})

# What must be charged at least, in minor units. Currencies that Stripe doesn't list are judged by
# their value in the settlement currency, which the sandbox doesn't know: they pass.
MINIMUM_CHARGE = {
    "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250,
    "eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200,
    "nok": 300, "nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000, "usd": 50,
}  # fmt: skip

MAXIMUM_CHARGE = 99_999_999

_SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "inr": "₹", "krw": "₩"}


def decimals(currency: str) -> int:
    """How many digits of an amount in minor units stand after the point."""
    if currency in ZERO_DECIMAL:
        return 0
    return 3 if currency in THREE_DECIMAL else 2


def formatted(amount: int, currency: str) -> str:
    """`amount` (minor units) as a person reads it: `$12.50`, `¥500`, `CHF 12.50`."""
    digits = decimals(currency)
    number = f"{Decimal(amount).scaleb(-digits):,.{digits}f}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{number}" if symbol else f"{currency.upper()} {number}"


def check_currency(currency: str, *, param: str) -> None:
    """Raise ApiError when Stripe does not charge in `currency` (three lower-case letters)."""
    if currency not in SUPPORTED:
        raise ApiError(
            f"Invalid currency: {currency}. Stripe currently supports these currencies: "
            f"{', '.join(sorted(SUPPORTED))}",
            param=param,
        )


def check_unit_amount(amount: int, currency: str, *, param: str) -> None:
    """Raise ApiError when `amount` (minor units) has digits that the currency doesn't have."""
    step = 10 if currency in THREE_DECIMAL else 100 if currency in WHOLE_UNITS_ONLY else 1
    if amount % step:
        raise ApiError(
            f"Invalid amount: {amount}. Amounts in {currency.upper()} must be divisible by {step}.",
            code="parameter_invalid_integer",
            param=param,
        )


def check_total(amount: int, currency: str) -> None:
    """Raise ApiError when a Checkout Session's total (minor units) can't be charged.

    A total of zero passes: Stripe completes it without a payment.
    """
    least = MINIMUM_CHARGE.get(currency, 1)
    if 0 < amount < least:
        raise ApiError(
            "The Checkout Session's total amount due must add up to at least "
            f"{formatted(least, currency)} {currency}",
            code="amount_too_small",
        )
    if amount > MAXIMUM_CHARGE:
        raise ApiError(
            "The Checkout Session's total amount due must be no more than "
            f"{formatted(MAXIMUM_CHARGE, currency)} {currency}",
            code="amount_too_large",
        )
