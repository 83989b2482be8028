"""Revenue, orders and units of some days, by currency: amounts are never summed over currencies.

An order counts on the day it was paid, whatever became of it later; a refund counts on the day it
reached the buyer, whenever the order was paid. Of money paid twice only the first payment counts,
and no refund of the second.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date
from decimal import Decimal
from typing import Self

from django.db.models import Count, F, Q, Sum
from django.db.models.functions import TruncDate

from offers_project.back_office.dashboard.period import Period
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.tables import Table, amount, count, text
from purchases.models import Purchase, Refund

ZERO = Decimal(0)


@dataclass
class Takings:
    """Of one currency, and of one day or of all of them."""

    gross: Decimal = ZERO
    refunded: Decimal = ZERO
    orders: int = 0
    # Those that cost something.
    priced: int = 0
    units: int = 0

    @property
    def net(self) -> Decimal:
        return self.gross - self.refunded

    @property
    def average(self) -> Decimal | None:
        """Of the orders that cost something; ``None`` if none did."""
        return self.gross / self.priced if self.priced else None

    def __iadd__(self, other: "Takings") -> Self:
        self.gross += other.gross
        self.refunded += other.refunded
        self.orders += other.orders
        self.priced += other.priced
        self.units += other.units
        return self


@dataclass
class Sales:
    """What ``of`` found; nothing is asked again."""

    period: Period
    by_day: dict[tuple[date, str], Takings] = field(default_factory=lambda: defaultdict(Takings))

    def currencies(self) -> dict[str, Takings]:
        """The sum of the period by currency, the one with the most orders first."""
        sums: dict[str, Takings] = defaultdict(Takings)
        for (_, currency), takings in self.by_day.items():
            sums[currency] += takings
        return dict(sorted(sums.items(), key=lambda item: (-item[1].orders, item[0])))

    def days_of(self, currency: str) -> list[Takings]:
        """A value for each day of the period, nothing sold or not."""
        return [self.by_day.get((day, currency), Takings()) for day in self.period.days()]

    def units(self) -> list[tuple[date, int, int]]:
        """Day, orders, units, of all currencies together and for each day of the period."""
        found: dict[date, Takings] = defaultdict(Takings)
        for (day, _), takings in self.by_day.items():
            found[day] += Takings(orders=takings.orders, units=takings.units)
        return [(day, found[day].orders, found[day].units) for day in self.period.days()]


def of(scope: Scope, period: Period) -> Sales:
    """The sales and refunds of the period: two queries."""
    sales = Sales(period)
    paid = (
        Purchase.objects.filter(
            scope.of("event"), paid_at__gte=period.start, paid_at__lt=period.end
        )
        .values("currency", day=TruncDate("paid_at", tzinfo=UTC))
        .annotate(
            gross=Sum("total_price"),
            units=Sum("quantity"),
            orders=Count("pk"),
            priced=Count("pk", filter=Q(total_price__gt=0)),
        )
        .order_by()
    )
    for row in paid:
        sales.by_day[row["day"], row["currency"]] += Takings(
            gross=row["gross"], orders=row["orders"], priced=row["priced"], units=row["units"]
        )
    back = (
        Refund.objects.filter(
            scope.of("purchase__event"),
            state=Refund.State.SUCCEEDED,
            settled_at__gte=period.start,
            settled_at__lt=period.end,
            payment_intent_id=F("purchase__payment_intent_id"),
        )
        .values("purchase__currency", day=TruncDate("settled_at", tzinfo=UTC))
        .annotate(refunded=Sum("amount"))
        .order_by()
    )
    for row in back:
        sales.by_day[row["day"], row["purchase__currency"]] += Takings(refunded=row["refunded"])
    return sales


def revenue_table(sales: Sales) -> Table:
    rows = [
        [
            text(day.isoformat()),
            text(currency),
            amount(takings.gross, currency),
            amount(takings.refunded, currency),
            amount(takings.net, currency),
            count(takings.orders),
        ]
        for (day, currency), takings in sorted(sales.by_day.items())
    ]
    return Table(
        "revenue",
        "Revenue per day",
        ["Day (UTC)", "Currency", "Gross", "Refunded", "Net", "Orders"],
        rows,
        about=(
            "Gross: what was paid on that day. Refunded: what reached buyers on that day, of "
            "whichever order. Disputed money isn't taken off. Days with neither are left out."
        ),
        empty="Nothing was paid or refunded in this period.",
    )


def units_table(sales: Sales) -> Table:
    rows = [
        [text(day.isoformat()), count(orders), count(units)]
        for day, orders, units in sales.units()
        if orders
    ]
    return Table(
        "units",
        "Units per day",
        ["Day (UTC)", "Orders", "Units"],
        rows,
        about="Paid on that day, refunded later or not. Days without an order are left out.",
        empty="Nothing was paid in this period.",
    )
