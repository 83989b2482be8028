"""The cards of an event's offers for one visitor, at as few queries for fifty as for one."""

from collections import Counter
from datetime import datetime, timedelta

from django.db.models import Q
from django.urls import reverse

from offers import catalog, targeting
from offers.errors import DomainError, PurchasesDisabled
from offers.models import Event, Offer
from offers.offer_card import Card
from purchases import delivery_methods, trying_again
from purchases.models import Purchase
from purchases.states import (
    STATUSES_IN_RESERVED_STOCK,
    STATUSES_IN_SOLD_STOCK,
    ReleaseReason,
    Status,
)

# As long as this, who let the time run out is told so on the way back from Stripe's page.
MISSED_FOR = timedelta(hours=1)


class Visit:
    """Somebody looking at an event's offers: what they have of it decides what they can buy.

    Made by the pages; two queries for whoever is logged in (two more for who has just missed the
    time to pay), none for anybody else. ``quantity`` and ``delivery_method`` are what was filled in
    before, for the offer ``chosen_id`` or for all. ``posts_elsewhere`` is for cards on a page that
    isn't about buying: their forms are sent to the offers' own pages.
    """

    def __init__(
        self,
        caller: targeting.Caller,
        event: Event,
        *,
        now: datetime,
        key: str = "",
        chosen_id: str | None = None,
        quantity: int = 1,
        delivery_method: str = "",
        posts_elsewhere: bool = False,
    ) -> None:
        self.event = event
        self.now = now
        self.key = key
        self.chosen_id = chosen_id
        self.quantity = quantity
        self.delivery_method = delivery_method
        self.posts_elsewhere = posts_elsewhere
        self.is_selling = catalog.is_selling()
        registration = targeting.registration_of(caller, event)
        self.tier_id = registration.ticket_tier_id if registration else None
        self._mine, self.missed = self._purchases_of(caller)
        self._owned: Counter[object] = Counter()
        for purchase in self._mine:
            self._owned[purchase.offer_id] += purchase.quantity

    def _purchases_of(self, caller: targeting.Caller) -> tuple[list[Purchase], list[Purchase]]:
        """What the caller has or holds of the event, and what they missed and can try again."""
        if not caller.is_authenticated:
            return [], []
        has = Q(status__in=(*STATUSES_IN_RESERVED_STOCK, *STATUSES_IN_SOLD_STOCK))
        missed = Q(
            status=Status.RELEASED,
            release_reason=ReleaseReason.EXPIRED,
            reserved_until__gt=self.now - MISSED_FOR,
        )
        found = list(
            Purchase.objects.filter(has | missed, user=caller, event=self.event).order_by(
                "reserved_until"
            )
        )
        mine = [each for each in found if each.status != Status.RELEASED]
        had = {each.offer_id for each in mine}
        ended = {each.offer_id: each for each in found if each.offer_id not in had}  # the last ones
        again = trying_again.possible(caller, ended.values(), now=self.now)
        return mine, [each for each in ended.values() if each.pk in again]

    @property
    def holds(self) -> list[Purchase]:
        """What the visitor has still to pay for, the most urgent first."""
        return [each for each in self._mine if each.is_open_hold and each.reserved_until > self.now]

    def cards(self, offers: list[Offer]) -> list[Card]:
        """The cards of offers that are on display and meant for the visitor."""
        return [self.card(offer, offer.refusal(self.now, quantity=1)) for offer in offers]

    def card(self, offer: Offer, refusal: DomainError | None) -> Card:
        """The card of one offer, which can't be bought for the reason ``refusal``, if there is one.

        While sales are paused nothing can be bought, whatever else there is to say.
        """
        was_chosen = self.chosen_id in (None, str(offer.pk))
        return Card(
            offer=offer,
            now=self.now,
            refusal=PurchasesDisabled() if refusal is None and not self.is_selling else refusal,
            owned=self._owned[offer.pk],
            tier_id=self.tier_id,
            quantity=self.quantity if was_chosen else 1,
            delivery_method=self.delivery_method if was_chosen else "",
            chooses_delivery=len(delivery_methods.ways(offer)) > 1,
            address=self._address(offer),
            posts_to=self._address(offer) if self.posts_elsewhere else "",
            key=self.key,
        )

    def _address(self, offer: Offer) -> str:
        return reverse("offer-page", kwargs={"slug": self.event.slug, "offer_id": offer.pk})
