"""What `dashboard.js` draws, and the same in a sentence for who doesn't see it."""

from dataclasses import dataclass
from typing import Any

from offers.money import grouped
from offers_project.back_office.dashboard.sales import Sales

# Currencies that get a chart of their own; the table and the file have all of them.
MOST_CURRENCIES = 3


@dataclass(frozen=True)
class Chart:
    """``figures`` is sent as JSON. A series' ``tone`` is a colour of admin.css."""

    id: str
    title: str
    said: str
    figures: dict[str, Any]

    @property
    def script_id(self) -> str:
        """Of the element that has the figures."""
        return f"figures-{self.id}"


def revenue(sales: Sales) -> list[Chart]:
    """One chart a currency, since amounts of two can't stand on one axis."""
    labels = [f"{day:%d %b}" for day in sales.period.days()]
    charts = []
    for currency, total in list(sales.currencies().items())[:MOST_CURRENCIES]:
        days = sales.days_of(currency)
        best = max(range(len(days)), key=lambda n, days=days: days[n].gross)
        gross = {"name": "Gross", "tone": "strong", "values": [float(day.gross) for day in days]}
        back = {"name": "Refunded", "tone": "back", "values": [-float(d.refunded) for d in days]}
        charts.append(
            Chart(
                f"revenue-{currency}",
                f"Revenue per day, {currency}",
                f"Bars, one a day: {grouped(total.gross, currency)} {currency} paid and "
                f"{grouped(total.refunded, currency)} refunded in all; the most on {labels[best]}, "
                f"{grouped(days[best].gross, currency)}. The table below has each day.",
                {"labels": labels, "unit": currency, "series": [gross, back]},
            )
        )
    return charts


def units(sales: Sales) -> Chart:
    days = sales.units()
    total = sum(units for _, _, units in days)
    day, _, most = max(days, key=lambda each: each[2])
    return Chart(
        "units",
        "Units per day",
        f"Bars, one a day: {total:,} units in all; the most on {day:%d %b}, {most:,}. The table "
        "below has each day.",
        {
            "labels": [f"{day:%d %b}" for day, _, _ in days],
            "unit": "units",
            "series": [
                {"name": "Units", "tone": "strong", "values": [units for _, _, units in days]}
            ],
        },
    )
