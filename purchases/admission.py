"""Whether a buyer may hold more: open holds, units of an offer, and what a key has made before."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, IntegerField, Q, QuerySet, Sum, TextField, UUIDField
from django.db.models.functions import Coalesce

from offers.errors import DomainError
from offers.models import Offer
from offers.prepared import Given, Query, Row
from purchases.errors import PurchaseLimitReached, TooManyOpenHolds
from purchases.models import Purchase
from purchases.states import OPEN_HOLDS, STATUSES_IN_RESERVED_STOCK, STATUSES_IN_SOLD_STOCK

_BUYER = Row(
    lambda: (
        User.objects.select_for_update(no_key=True)
        .filter(pk=Given("user", IntegerField()))
        .values_list("pk")
    )
)
_EARLIER = Query(
    lambda: Purchase.objects.filter(
        user=Given("user", IntegerField()), idempotency_key=Given("key", TextField())
    )
)


def _standing() -> QuerySet[Purchase, Any]:
    """A buyer's open holds, their units of an offer, and whether they used this key before."""
    of_offer = Q(offer=Given("offer", UUIDField()))
    occupying = Q(status__in=(*STATUSES_IN_RESERVED_STOCK, *STATUSES_IN_SOLD_STOCK))
    return (
        Purchase.objects.filter(user=Given("user", IntegerField()))
        .values("user")
        .annotate(
            open_holds=Count("pk", filter=Q(status__in=OPEN_HOLDS)),
            units=Coalesce(Sum("quantity", filter=of_offer & occupying), 0),
            with_key=Count("pk", filter=Q(idempotency_key=Given("key", TextField()))),
        )
        .values_list("open_holds", "units", "with_key")
    )


_STANDING = Row(_standing)


def admit(user: User, offer: Offer, quantity: int, idempotency_key: str | None) -> Purchase | None:
    """Check what concerns all purchases of this user; return the one this key has made, if any.

    The user's row is locked until the hold is committed, so that of two requests at once the
    second sees the first's hold: neither cap can be raced past, and one key makes one hold.
    Called by checkout in its transaction. Raises ``TooManyOpenHolds`` or ``PurchaseLimitReached``.
    """
    _BUYER.get(user=user.pk)
    standing = _STANDING.get(user=user.pk, offer=offer.pk, key=idempotency_key)
    open_holds, have, is_repeated = standing or (0, 0, 0)
    if is_repeated:
        return made_with(user, idempotency_key)
    _refuse_beyond_caps(offer, quantity, open_holds=open_holds, have=have)
    return None


def refusal(user: User | AnonymousUser, offer: Offer, quantity: int) -> DomainError | None:
    """What ``admit`` would raise just now, for who only asks; locks nothing."""
    known = user.is_authenticated
    standing = _STANDING.get(user=user.pk, offer=offer.pk, key=None) if known else None
    open_holds, have, _ = standing or (0, 0, 0)
    try:
        _refuse_beyond_caps(offer, quantity, open_holds=open_holds, have=have)
    except (TooManyOpenHolds, PurchaseLimitReached) as error:
        return error
    return None


def _refuse_beyond_caps(offer: Offer, quantity: int, *, open_holds: int, have: int) -> None:
    if open_holds >= settings.MAX_OPEN_HOLDS_PER_USER:
        raise TooManyOpenHolds(limit=settings.MAX_OPEN_HOLDS_PER_USER)
    if offer.max_per_user is not None and have + quantity > offer.max_per_user:
        raise PurchaseLimitReached(limit=offer.max_per_user, have=have)


def made_with(user: User, idempotency_key: str | None) -> Purchase | None:
    """Return the purchase that this key has made before, if any; locks nothing."""
    if idempotency_key is None:
        return None
    return _EARLIER.first(user=user.pk, key=idempotency_key)
