"""Whether a buyer may hold more: open holds, units of an offer, and what a key has made before."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, IntegerField, Q, QuerySet, Sum, TextField, UUIDField
from django.db.models.functions import Coalesce

from offers.errors import DomainError
from offers.models import Offer
from offers.prepared import Among, Given, Query, Row
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


# SKIP LOCKED: nobody waits for what another buyer is doing elsewhere.
_BUYERS = Row(
    lambda: (
        User.objects.select_for_update(no_key=True, skip_locked=True)
        .filter(Among("pk", "users", IntegerField()))
        .values_list("pk")
    )
)


def _standing() -> QuerySet[Purchase, Any]:
    """A buyer's open holds, their units of an offer, and whether they used this key before."""
    whose = Q(user=Given("user", IntegerField()))
    counted = _counted(Q(idempotency_key=Given("key", TextField())))
    return _by_user(whose, counted).values_list(*counted)


def _standings() -> QuerySet[Purchase, Any]:
    """The same of several buyers; as used before counts any of their keys."""
    whose = Q(Among("user", "users", IntegerField()))
    counted = _counted(Q(Among("idempotency_key", "keys", TextField())))
    return _by_user(whose, counted).values_list("user", *counted)


def _by_user(whose: Q, counted: dict[str, Any]) -> QuerySet[Purchase, Any]:
    return Purchase.objects.filter(whose).values("user").annotate(**counted)


def _counted(is_repeated: Q) -> dict[str, Any]:
    of_offer = Q(offer=Given("offer", UUIDField()))
    occupying = Q(status__in=(*STATUSES_IN_RESERVED_STOCK, *STATUSES_IN_SOLD_STOCK))
    return {
        "open_holds": Count("pk", filter=Q(status__in=OPEN_HOLDS)),
        "units": Coalesce(Sum("quantity", filter=of_offer & occupying), 0),
        "with_key": Count("pk", filter=is_repeated),
    }


_STANDING = Row(_standing)
_STANDINGS = Row(_standings)


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
    refused = _beyond_caps(offer, quantity, open_holds=open_holds, have=have)
    if refused is not None:
        raise refused
    return None


def admit_all(offer: Offer, wishes: Sequence[tuple[User, int, str | None]]) -> list[bool]:
    """Whether ``admit`` would let each through: buyer, quantity and key of a hold of ``offer``.

    Their rows are locked as there, so what is true of those it lets through stays true. All others
    are left to ``admit``: who is refused, or repeats a request, and who is in the list twice, or at
    another purchase at this moment. So it waits for nobody, and raises nothing of its own.
    Called by checkout in its transaction.
    """
    users = [user.pk for user, _, _ in wishes]
    keys = [key for _, _, key in wishes if key is not None]
    locked = {user for (user,) in _BUYERS.all(users=users)}
    rows = _STANDINGS.all(users=users, offer=offer.pk, keys=keys)
    standing = {user: counts for user, *counts in rows}
    admitted = []
    for user, quantity, _ in wishes:
        open_holds, have, is_repeated = standing.get(user.pk, (0, 0, 0))
        is_free = user.pk in locked and not is_repeated
        caps = _beyond_caps(offer, quantity, open_holds=open_holds, have=have)
        admitted.append(is_free and caps is None)
        locked.discard(user.pk)
    return admitted


def refusal(user: User | AnonymousUser, offer: Offer, quantity: int) -> DomainError | None:
    """What ``admit`` would raise just now, for who only asks; locks nothing."""
    known = user.is_authenticated
    standing = _STANDING.get(user=user.pk, offer=offer.pk, key=None) if known else None
    open_holds, have, _ = standing or (0, 0, 0)
    return _beyond_caps(offer, quantity, open_holds=open_holds, have=have)


def _beyond_caps(
    offer: Offer, quantity: int, *, open_holds: int, have: int
) -> TooManyOpenHolds | PurchaseLimitReached | None:
    if open_holds >= settings.MAX_OPEN_HOLDS_PER_USER:
        return TooManyOpenHolds(limit=settings.MAX_OPEN_HOLDS_PER_USER)
    if offer.max_per_user is not None and have + quantity > offer.max_per_user:
        return PurchaseLimitReached(limit=offer.max_per_user, have=have)
    return None


def made_with(user: User, idempotency_key: str | None) -> Purchase | None:
    """Return the purchase that this key has made before, if any; locks nothing."""
    if idempotency_key is None:
        return None
    return _EARLIER.first(user=user.pk, key=idempotency_key)
