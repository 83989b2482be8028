"""Counters against purchases: does the stock on record equal what was held and sold?"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce

from offers.models import Offer
from purchases.states import STATUSES_IN_RESERVED_STOCK, STATUSES_IN_SOLD_STOCK


@dataclass(frozen=True)
class Difference:
    """An offer whose counters say something else than its purchases do."""

    offer: Offer
    reserved: int
    sold: int

    def __str__(self) -> str:
        return (
            f"{self.offer.pk} {self.offer.title}: reserved {self.offer.inventory_reserved}, "
            f"purchases hold {self.reserved}; sold {self.offer.inventory_sold}, "
            f"purchases paid {self.sold}"
        )


def counter_differences() -> Iterator[Difference]:
    """Compare in one statement, so that a purchase made meanwhile can't look like a difference."""
    held = Sum("purchases__quantity", filter=Q(purchases__status__in=STATUSES_IN_RESERVED_STOCK))
    paid = Sum("purchases__quantity", filter=Q(purchases__status__in=STATUSES_IN_SOLD_STOCK))
    offers = (
        Offer.objects.annotate(held=Coalesce(held, 0), paid=Coalesce(paid, 0))
        .exclude(held=F("inventory_reserved"), paid=F("inventory_sold"))
        .order_by("pk")
    )
    for offer in offers:
        yield Difference(offer, reserved=offer.held, sold=offer.paid)
