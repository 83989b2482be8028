"""What is offered to somebody who has just bought: on the pages after it, and in the confirmation.

What is on the event's own page is in ``pages.py``.
"""

import uuid
from datetime import datetime

from django.db.models import (
    DateTimeField,
    Exists,
    IntegerField,
    OuterRef,
    QuerySet,
    TextField,
    UUIDField,
)
from django.http import HttpRequest
from django.utils import timezone

from offers import catalog, impressions, targeting
from offers.models import Offer, Registration
from offers.offer_card import Card
from offers.prepared import Given, Query
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
    offers = going_with(purchase, Offer.Placement.POST_PURCHASE, now=now)
    if not offers:
        return []
    impressions.note(request, ((offer.pk, offer.placement) for offer in offers), now=now)
    # With a key of their own, as every form that buys.
    key = str(uuid.uuid4())
    visit = Visit(purchase.user, purchase.event, now=now, key=key, posts_elsewhere=True)
    return visit.cards(offers)


def going_with(purchase: Purchase, placement: Offer.Placement, *, now: datetime) -> list[Offer]:
    """Up to three offers of the purchase's event that its buyer can buy and has nothing of.

    Also called when a confirmation is written. None while sales are paused.
    """
    if not catalog.is_selling():
        return []
    return _GOING_WITH.all(
        user=purchase.user_id, event=purchase.event_id, placement=placement, now=now
    )


def _going_with() -> QuerySet[Offer]:
    user, event = Given("user", IntegerField()), Given("event", UUIDField())
    has_some = Purchase.objects.filter(
        user=user,
        offer=OuterRef("pk"),
        status__in=(*STATUSES_IN_RESERVED_STOCK, *STATUSES_IN_SOLD_STOCK),
    )
    # Who has a tier needs no upgrade to it.
    has_the_tier = Registration.objects.filter(
        user=user, event=event, ticket_tier=OuterRef("ticket_tier")
    )
    meant = targeting.buyable_by(user).filter(
        ~Exists(has_some),
        ~Exists(has_the_tier),
        event=event,
        placement=Given("placement", TextField()),
    )
    shown = catalog.showable(meant, Given("now", DateTimeField()))
    return shown.order_by("created_at", "pk")[:AT_MOST]


_GOING_WITH = Query(_going_with)
