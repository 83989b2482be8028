"""Amounts on both sides: our decimals in major units, Stripe's integers in minor units."""

from decimal import Decimal

import pytest

from offers import money

EVERY_CURRENCY = sorted(money.CURRENCIES)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("50.00", "USD", 5000),
        ("0.50", "USD", 50),
        ("500", "JPY", 500),
        ("1.250", "KWD", 1250),
        ("2000", "ISK", 200_000),
        ("5000", "UGX", 500_000),
        ("175.50", "HUF", 17_550),
        ("30.25", "TWD", 3025),
        ("0", "EUR", 0),
        ("999999.99", "USD", 99_999_999),
    ],
)
def test_amount_is_the_integer_that_stripe_takes(amount: str, currency: str, minor: int) -> None:
    assert money.to_minor_units(Decimal(amount), currency) == minor
    assert money.from_minor_units(minor, currency) == Decimal(amount)


@pytest.mark.parametrize("stored", ["50", "50.0", "50.000", "5E+1"])
def test_trailing_zeros_of_a_stored_price_are_no_digits(stored: str) -> None:
    assert money.to_minor_units(Decimal(stored), "USD") == 5000
    assert money.to_minor_units(Decimal(stored), "JPY") == 50


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0.001", "USD"),
        ("10.005", "EUR"),
        ("0.5", "JPY"),
        ("0.01", "ISK"),
        ("0.5", "UGX"),
        ("1.251", "KWD"),  # three digits, but Stripe wants the last to be 0
        ("0.0001", "KWD"),
        ("175.505", "HUF"),
        ("30.255", "TWD"),
    ],
)
def test_amount_that_would_have_to_be_rounded_is_refused(amount: str, currency: str) -> None:
    assert not money.is_chargeable(Decimal(amount), currency)
    with pytest.raises(ValueError, match="more digits than can be charged"):
        money.to_minor_units(Decimal(amount), currency)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("50.000", "USD", "50.00"),
        ("50", "USD", "50.00"),
        ("500.000", "JPY", "500"),
        ("1.25", "KWD", "1.250"),
        ("2000.000", "ISK", "2000"),
        ("5000.000", "UGX", "5000"),
        ("175.5", "HUF", "175.50"),
        ("30", "TWD", "30.00"),
        ("0", "JPY", "0"),
        ("1E+3", "USD", "1000.00"),
    ],
)
def test_amount_is_written_with_the_currencys_own_digits(
    amount: str, currency: str, text: str
) -> None:
    assert money.format_amount(Decimal(amount), currency) == text


@pytest.mark.parametrize("currency", EVERY_CURRENCY)
def test_every_currency_comes_back_from_stripe_as_it_went(currency: str) -> None:
    # Major units; with the smallest step that may be charged, so that no digit is lost unseen.
    step = Decimal(1).scaleb(-min(money.digits(currency), 2))
    smallest = 100 if currency in {"ISK", "UGX"} else 10 if money.digits(currency) == 3 else 1
    assert money.to_minor_units(step, currency) == smallest
    for amount in (step, Decimal(1), Decimal(7) + step, Decimal(12_345) + step, Decimal(99_999)):
        minor = money.to_minor_units(amount, currency)
        assert isinstance(minor, int)
        back = money.from_minor_units(minor, currency)
        assert back == amount
        assert Decimal(money.format_amount(back, currency)) == amount


@pytest.mark.parametrize("unknown", ["XXX", "usd", "", "US", "BTC", "EURO"])
def test_unknown_currency_is_refused(unknown: str) -> None:
    for function in (money.to_minor_units, money.format_amount):
        with pytest.raises(ValueError, match="not a currency that Stripe charges in"):
            function(Decimal(1), unknown)


def test_currency_belongs_to_exactly_one_kind() -> None:
    kinds = (
        money.ZERO_DECIMAL,
        money.TWO_DECIMAL,
        money.THREE_DECIMAL,
        money.WHOLE_BUT_IN_HUNDREDTHS,
    )
    assert sum(map(len, kinds)) == len(money.CURRENCIES)


@pytest.mark.parametrize(
    ("currency", "minimum"),
    [("USD", "0.50"), ("EUR", "0.50"), ("GBP", "0.30"), ("JPY", "50"), ("HUF", "175.00")],
)
def test_minimum_charge_is_stripes(currency: str, minimum: str) -> None:
    assert Decimal(minimum) == money.MINIMUM_CHARGE[currency]


def test_every_minimum_charge_can_be_charged() -> None:
    for currency, minimum in money.MINIMUM_CHARGE.items():
        assert money.is_chargeable(minimum, currency)
        assert 0 < money.to_minor_units(minimum, currency) < money.MAXIMUM_MINOR_UNITS
