"""From seen to paid, by placement."""

from collections import Counter

from django.db.models import Count, Q, Sum

from offers.impressions import Impression
from offers.models import Offer
from offers_project.back_office.dashboard.period import Period
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.tables import Row, Table, count, rate, text
from purchases.models import Purchase

COLUMNS = (
    "Placement", "Seen", "Checkout", "% of seen", "Paid", "% of checkouts", "Refunded", "% of paid",
)  # fmt: skip


def table(scope: Scope, period: Period) -> Table:
    """Two queries: showings of the period, and what became of the holds made in it."""
    seen = dict(
        Impression.objects.filter(
            scope.of("offer__event"), day__gte=period.first, day__lte=period.last
        )
        .values_list("placement")
        .annotate(Sum("seen"))
        .order_by()
    )
    held = {
        row["offer__placement"]: Counter(row)
        for row in Purchase.objects.filter(
            scope.of("event"), created_at__gte=period.start, created_at__lt=period.end
        )
        .values("offer__placement")
        .annotate(
            held=Count("pk"),
            paid=Count("pk", filter=Q(paid_at__isnull=False)),
            refunded=Count("pk", filter=Q(refunded_amount__gt=0)),
        )
        .order_by()
    }
    found = [
        (
            placement.label,
            seen.get(placement, 0),
            *(held.get(placement, Counter())[step] for step in ("held", "paid", "refunded")),
        )
        for placement in Offer.Placement
    ]
    sums = [sum(step) for step in list(zip(*found, strict=True))[1:]]
    return Table(
        "placements",
        "Conversion by placement",
        COLUMNS,
        [_row(*steps) for steps in found if any(steps[1:])],
        totals=_row("All", *sums),
        about=(
            "Seen: how often an offer was listed, in the placement it had then, by the API or on "
            "the attendees' page; robots that say so aren't counted, and a few counts may be lost "
            "when Redis or the worker fails. Checkout: holds made in these days, by the placement "
            "that the offer has now. Paid and refunded (in full or in part): what became of them, "
            "also after these days. What is bought by a link or the API without a list makes more "
            "than 100 % of seen possible."
        ),
        empty="Nothing was seen or bought in this period.",
    )


def _row(placement: str, seen: int, held: int, paid: int, refunded: int) -> Row:
    return [
        text(placement),
        count(seen),
        count(held),
        rate(held, seen),
        count(paid),
        rate(paid, held),
        count(refunded),
        rate(refunded, paid),
    ]
