"""How many are left of each offer on sale, and until when they will do."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Case, F, IntegerField, Max, Q, QuerySet, Sum, Value, When
from django.db.models.fields import FloatField
from django.db.models.functions import Cast
from django.urls import reverse

from offers.models import Offer
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.tables import NOTHING, Row, Table, count, text
from purchases.models import Purchase

# The rate of now, whatever period the other figures are of.
LATELY = timedelta(days=7)
SHOWN = 20
FAR_OFF = timedelta(days=365)
COLUMNS = (
    "Offer", "Event", "Left", "Of", "On hold", "Sold", "Sold in 7 days", "Runs out (UTC)",
)  # fmt: skip


@dataclass(frozen=True)
class Stock:
    """One offer on sale and the units paid for ``LATELY``."""

    offer: Offer
    sold_lately: int

    def runs_out_at(self, now: datetime) -> datetime | None:
        """When the last unit goes at this rate; ``None`` if no one can tell."""
        left = self.offer.inventory_available
        if left is None or not self.sold_lately:
            return None
        since = self.offer.starts_at or self.offer.created_at
        # An offer that came an hour ago has sold in an hour what it has sold.
        on_sale = min(LATELY, max(now - since, timedelta(hours=1)))
        days = left / self.sold_lately * (on_sale / timedelta(days=1))
        return now + timedelta(days=min(days, 2 * FAR_OFF.days))

    def forecast(self, now: datetime) -> str:
        """``runs_out_at`` in words."""
        if self.offer.inventory_available is None:
            return "unlimited"
        if self.offer.inventory_available <= 0:
            return "sold out" if not self.offer.inventory_reserved else "all sold or on hold"
        at = self.runs_out_at(now)
        if at is None:
            return "no sales in 7 days"
        ends = self.offer.expires_at
        if ends is not None and ends <= at:
            return "lasts until the sale ends"
        if at - now > FAR_OFF:
            return "in more than a year"
        if at - now < timedelta(days=2):
            return f"in {max(1, round((at - now) / timedelta(hours=1)))} h, {at:%d %b %H:%M}"
        return f"in {(at - now).days} days, {at:%d %b %Y}"


def of(scope: Scope, *, now: datetime, limit: int | None = SHOWN) -> list[Stock]:
    """The offers on sale, those that sell out soonest first: two queries."""
    sold = _selling(scope, now)
    units: dict[UUID, int] = dict(
        (sold if limit is None else sold[:limit]).values_list("offer_id", "units")
    )
    left = F("inventory_total") - F("inventory_reserved") - F("inventory_sold")
    offers = (
        Offer.objects.select_related("event")
        .filter(scope.of("event"), _on_sale(now))
        .annotate(left=left, is_selling=Q(pk__in=units))
        .order_by("-is_selling", _gone_last("left"), "left", "-created_at", "pk")
    )
    found = {offer.pk: offer for offer in (offers if limit is None else offers[:limit])}
    selling = [found.pop(key) for key in units if key in found]
    return [Stock(offer, units.get(offer.pk, 0)) for offer in [*selling, *found.values()]]


def _on_sale(now: datetime, prefix: str = "") -> Q:
    return Q(
        Q(**{f"{prefix}expires_at__isnull": True}) | Q(**{f"{prefix}expires_at__gt": now}),
        **{f"{prefix}is_active": True, f"{prefix}is_archived": False},
    )


def _selling(scope: Scope, now: datetime) -> QuerySet[Purchase, dict[str, Any]]:
    """Those that sold lately; what is gone and what never goes comes last."""
    total, gone = (
        Max("offer__inventory_total"),
        Max(F("offer__inventory_reserved") + F("offer__inventory_sold")),
    )
    return (
        Purchase.objects.filter(
            scope.of("event"), _on_sale(now, "offer__"), paid_at__gt=now - LATELY, paid_at__lte=now
        )
        .values("offer_id")
        .annotate(units=Sum("quantity"), left=total - gone)
        .order_by(_gone_last("left"), Cast("left", FloatField()) / F("units"), "offer_id")
    )


def _gone_last(left: str) -> Case:
    return Case(
        When(**{left: 0}, then=Value(1)),
        When(**{f"{left}__isnull": True}, then=Value(2)),
        default=Value(0),
        output_field=IntegerField(),
    )


def table(stocks: list[Stock], *, now: datetime, is_all: bool) -> Table:
    return Table(
        "stock",
        "Stock left",
        COLUMNS,
        [_row(stock, now) for stock in stocks],
        about=(
            "Offers on sale. The time is when the last unit goes if they sell on as in the last "
            "7 days, or since the sale began."
            + ("" if is_all or len(stocks) < SHOWN else f" The {SHOWN} first; the CSV has all.")
        ),
        empty="No offer is on sale.",
    )


def _row(stock: Stock, now: datetime) -> Row:
    offer, left = stock.offer, stock.offer.inventory_available
    return [
        text(offer.title, link=reverse("admin:offers_offer_change", args=[offer.pk])),
        text(offer.event.title),
        count(left) if left is not None else text(NOTHING),
        count(offer.inventory_total) if offer.inventory_total is not None else text("unlimited"),
        count(offer.inventory_reserved),
        count(offer.inventory_sold),
        count(stock.sold_lately),
        text(stock.forecast(now)),
    ]
