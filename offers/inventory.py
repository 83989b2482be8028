"""The stock of an offer: the only writer of its counters.

Each function runs inside the caller's ``transaction.atomic`` (Django refuses ``select_for_update``
outside one), takes the offer's row lock, and keeps it until that transaction ends. At every commit
``inventory_reserved`` and ``inventory_sold`` equal the sums over the offer's purchases; the CHECK
constraints on the table are the second line of defence.

Lock order: a purchase's row before its offer's row, never the other way round.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import IntegrityError
from django.db.models import Case, F, IntegerField, Q, UUIDField, When

from offers import metrics
from offers.errors import (
    NotEnoughReserved,
    NotEnoughSold,
    OfferNotFound,
    TotalBelowCommitted,
)
from offers.models import Offer
from offers.prepared import Change, Given, Query, Row, Update

_CHANGE = Change(Offer)
# NO KEY: a purchase that is being inserted refers to this row and need not wait for it.
_LOCKED = Query(
    lambda: Offer.objects.select_for_update(of=("self",), no_key=True).filter(
        pk=Given("offer", UUIDField())
    )
)
# The same lock, for a message whose answer nobody reads.
_GUARD = Row(
    lambda: (
        Offer.objects.select_for_update(no_key=True)
        .filter(pk=Given("offer", UUIDField()))
        .values_list("pk")
    )
)


def _more(counter: str) -> Update:
    """So many units more for the counter, if there are as many and the offer has that version.

    Otherwise NULL, which the column refuses: the CHECK against overselling is never needed, and
    PostgreSQL's log names it only if we are wrong.
    """
    quantity = Given("quantity", IntegerField())
    taken = F("inventory_reserved") + F("inventory_sold") + quantity
    units = Case(
        When(
            Q(inventory_total__isnull=True) | Q(inventory_total__gte=taken),
            catalog_version=Given("version", IntegerField()),
            then=quantity,
        )
    )
    return Update(
        lambda: (
            Offer.objects.filter(pk=Given("offer", UUIDField())),
            {counter: F(counter) + units},
        )
    )


_HOLD, _SELL = _more("inventory_reserved"), _more("inventory_sold")


def lock(offer_id: uuid.UUID) -> Offer:
    """Return the offer with its row locked until the transaction ends.

    Raises ``OfferNotFound``; waits at most ``LOCK_TIMEOUT_MS`` (then PostgreSQL's
    ``LockNotAvailable``, which the API answers as ``busy``).
    """
    with metrics.lock_wait.time():
        offer = _LOCKED.first(offer=offer_id)
    if offer is None:
        raise OfferNotFound
    return offer


def reserve(*, offer_id: uuid.UUID, quantity: int) -> Offer:
    """Hold ``quantity`` units for a purchase and return the locked offer.

    Called for a new hold. Says nothing about whether the offer may be sold now: that is for the
    caller, who then still holds the lock. Raises ``SoldOut`` or ``InsufficientInventory``.
    """
    _refuse_nonsense(quantity)
    offer = lock(offer_id)
    offer.refuse_more_than_is_left(quantity)
    return _move(offer, reserved=quantity)


def sell(*, offer_id: uuid.UUID, quantity: int) -> Offer:
    """Sell ``quantity`` units that nobody has held and return the locked offer; see ``reserve``.

    Called for what costs nothing, and for a payment that came after its hold had ended.
    """
    _refuse_nonsense(quantity)
    offer = lock(offer_id)
    offer.refuse_more_than_is_left(quantity)
    return _move(offer, sold=quantity)


def take_with_commit(*, seen: Offer, quantity: int, sold: bool) -> None:
    """Hold (or sell, if ``sold``) units of an offer that is as it was ``seen`` without the lock.

    Called by checkout within ``as_seen``, when all else is written. The lock on the row, the
    counters and the commit are one trip to the server, so that the row is held for as long as the
    disk takes, and for no word of ours. That leaves nobody to judge under the lock but SQL: of
    units that are gone, or of an offer that was edited meanwhile, it takes NULL, which is refused.
    """
    _refuse_nonsense(quantity)
    _GUARD.send_with_commit(offer=seen.pk, timer=metrics.lock_wait)
    take = _SELL if sold else _HOLD
    take.send_with_commit(offer=seen.pk, version=seen.catalog_version, quantity=quantity)


class NotAsSeen(Exception):
    """An offer was edited, or its units went, between the look at it and the lock on its row."""


@contextmanager
def as_seen() -> Iterator[None]:
    """Around the ``transaction.atomic`` that takes units ``with_commit``.

    Raises ``NotAsSeen`` when the offer's table refused them: nothing of the transaction is there.
    """
    try:
        yield
    except IntegrityError as error:
        cause = error.__cause__
        if isinstance(cause, psycopg.Error) and cause.diag.table_name == Offer._meta.db_table:
            raise NotAsSeen from error
        raise


def confirm(*, offer_id: uuid.UUID, quantity: int) -> Offer:
    """Turn ``quantity`` reserved units into sold ones: all of them, or ``NotEnoughReserved``."""
    _refuse_nonsense(quantity)
    offer = lock(offer_id)
    _refuse_unreserved(offer, quantity)
    return _move(offer, reserved=-quantity, sold=quantity)


def release(*, offer_id: uuid.UUID, quantity: int) -> Offer:
    """Put ``quantity`` reserved units back on sale. Raises ``NotEnoughReserved``."""
    _refuse_nonsense(quantity)
    offer = lock(offer_id)
    _refuse_unreserved(offer, quantity)
    return _move(offer, reserved=-quantity)


def restock(*, offer_id: uuid.UUID, quantity: int) -> Offer:
    """Put ``quantity`` sold units back on sale, after a refund. Raises ``NotEnoughSold``."""
    _refuse_nonsense(quantity)
    offer = lock(offer_id)
    _refuse_unsold(offer, quantity)
    return _move(offer, sold=-quantity)


def write_off(*, offer_id: uuid.UUID, quantity: int) -> Offer:
    """Take ``quantity`` sold units out of the stock for good: refunded, but not to be sold again.

    The total shrinks with them, so that no purchase need stand for them. Raises ``NotEnoughSold``.
    """
    _refuse_nonsense(quantity)
    offer = lock(offer_id)
    _refuse_unsold(offer, quantity)
    if offer.inventory_total is not None:
        offer.inventory_total -= quantity
    offer.inventory_sold -= quantity
    offer.save(update_fields=["inventory_total", "inventory_sold", "updated_at"])
    return offer


def correct(*, offer_id: uuid.UUID, reserved: int, sold: int) -> Offer:
    """Write the counters that the offer's purchases add up to; for ``check_inventory --repair``.

    The caller has counted after it took the lock, in the same transaction. More than the total
    raises ``TotalBelowCommitted``: that many were promised, and only a larger total makes it true.
    """
    offer = lock(offer_id)
    if offer.inventory_total is not None and reserved + sold > offer.inventory_total:
        raise TotalBelowCommitted(committed=reserved + sold)
    return _move(
        offer, reserved=reserved - offer.inventory_reserved, sold=sold - offer.inventory_sold
    )


def set_total(*, offer_id: uuid.UUID, total: int | None) -> Offer:
    """Change how many units there are in all; ``None`` is unlimited.

    Called when an organizer edits an offer. Raises ``TotalBelowCommitted``.
    """
    offer = lock(offer_id)
    offer.refuse_total(total)
    offer.inventory_total = total
    offer.save(update_fields=["inventory_total", "updated_at"])
    return offer


def _refuse_nonsense(quantity: int) -> None:
    if quantity < 1:
        raise ValueError(f"A quantity is at least 1, not {quantity}.")


def _refuse_unreserved(offer: Offer, quantity: int) -> None:
    if offer.inventory_reserved < quantity:
        raise NotEnoughReserved(reserved=offer.inventory_reserved, asked=quantity)


def _refuse_unsold(offer: Offer, quantity: int) -> None:
    if offer.inventory_sold < quantity:
        raise NotEnoughSold(sold=offer.inventory_sold, asked=quantity)


def _move(offer: Offer, *, reserved: int = 0, sold: int = 0) -> Offer:
    """Write both counters; the caller holds the row, so what was read is what is there."""
    offer.inventory_reserved += reserved
    offer.inventory_sold += sold
    counters = {
        "inventory_reserved": offer.inventory_reserved,
        "inventory_sold": offer.inventory_sold,
    }
    _CHANGE.run(offer, counters, with_commit=True)
    return offer
