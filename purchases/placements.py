"""What is offered to somebody who has just bought: on the pages after it, and in the confirmation.

What is on the event's own page is in ``pages.py``.
"""

import uuid
from datetime import datetime

from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from offers import catalog, impressions, targeting
from offers.models import Offer, Registration
from offers.offer_card import Card
from purchases.models import Purchase
from purchases.offer_cards import Visit
from purchases.states import STATUSES_IN_RESERVED_STOCK, STATUSES_IN_SOLD_STOCK, Status

# More than these would be in the way of what the page or the letter is about.
AT_MOST = 3


def cards_going_with(request: HttpRequest, purchase: Purchase) -> list[Card]:
    """The cards below a paid purchase, counted as shown; called by ``{% goes_with purchase %}``.

    Seven queries, however many offers there are, and none for a purchase that isn't paid.
    """
    if purchase.status not in (Status.PAID, Status.PAYMENT_PROCESSING):
        return []
    now = timezone.now()
    offers = list(going_with(purchase, Offer.Placement.POST_PURCHASE, now=now))
    if not offers:
        return []
    impressions.note(request, ((offer.pk, offer.placement) for offer in offers), now=now)
    # With a key of their own, as every form that buys.
    key = str(uuid.uuid4())
    visit = Visit(purchase.user, purchase.event, now=now, key=key, posts_elsewhere=True)
    return visit.cards(offers)


def going_with(purchase: Purchase, placement: Offer.Placement, *, now: datetime) -> QuerySet[Offer]:
    """Up to three offers of the purchase's event that its buyer can buy and has nothing of.

    Also called when a confirmation is written. None while sales are paused.
    """
    if not catalog.is_selling():
        return Offer.objects.none()
    has_some = Purchase.objects.filter(
        user=purchase.user,
        offer=OuterRef("pk"),
        status__in=(*STATUSES_IN_RESERVED_STOCK, *STATUSES_IN_SOLD_STOCK),
    )
    # Who has a tier needs no upgrade to it.
    has_the_tier = Registration.objects.filter(
        user=purchase.user, event=purchase.event, ticket_tier=OuterRef("ticket_tier")
    )
    meant = targeting.buyable_by(purchase.user).filter(
        ~Exists(has_some), ~Exists(has_the_tier), event=purchase.event, placement=placement
    )
    return catalog.showable(meant, now).order_by("created_at", "pk")[:AT_MOST]
