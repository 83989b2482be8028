"""Changing a purchase's status: the one way to do it.

``apply`` does all of it in the caller's transaction: the table of ``purchases.states`` is asked
under the purchase's row lock, the offer's counters move, the row and a ``PurchaseTransition`` are
written. Lock order: the purchase (``lock``), then its offer (``offers.inventory``).
"""

import uuid
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from offers import inventory
from offers.wake import wake
from purchases import mirror
from purchases.activity import log_activity
from purchases.errors import HoldAlreadyResolved, PurchaseNotFound
from purchases.models import Purchase, PurchaseTransition
from purchases.states import (
    FULFILLMENT_HEARS_OF,
    OCCUPIES,
    RELEASE,
    ReleaseReason,
    Status,
    Stock,
    Transition,
)


def lock(purchase_id: uuid.UUID) -> Purchase:
    """Return the purchase with its row locked until the transaction ends.

    Raises ``PurchaseNotFound``. Call it before anything locks the purchase's offer.
    """
    try:
        return Purchase.objects.select_for_update(of=("self",), no_key=True).get(pk=purchase_id)
    except Purchase.DoesNotExist:
        raise PurchaseNotFound from None


def apply(
    purchase: Purchase,
    transition: Transition,
    *,
    now: datetime,
    source: str,
    actor: User | None = None,
    reason: str = "",
    **changes: Any,
) -> Purchase:
    """Do ``transition`` on a locked purchase; ``changes`` are other fields to write with it.

    Raises ``HoldAlreadyResolved`` when the purchase's status doesn't allow it, and an
    ``InventoryError`` or ``OfferUnavailable`` when the stock doesn't; nothing moved then, provided
    that the caller lets its transaction roll back.
    """
    if purchase.status not in transition.sources:
        raise HoldAlreadyResolved(status=purchase.status, transition=transition.name)
    before = Status(purchase.status)
    _move_stock(purchase, OCCUPIES[before], OCCUPIES[transition.target])
    purchase.status = transition.target
    if before == Status.RELEASED:
        changes.setdefault("release_reason", "")
    if transition.target in FULFILLMENT_HEARS_OF:
        # A row, not the message: whatever becomes of that, fulfilment's sweep finds the flag.
        changes["fulfillment_due"] = True
        transaction.on_commit(lambda: wake("fulfillment.deliver_purchase", str(purchase.pk)))
    for field, value in changes.items():
        setattr(purchase, field, value)
    purchase.save(update_fields=["status", *changes])
    record(purchase, transition.name, before, now=now, source=source, actor=actor, reason=reason)
    return purchase


def release(
    purchase: Purchase,
    *,
    reason: ReleaseReason,
    now: datetime,
    source: str,
    actor: User | None = None,
    note: str = "",
    stray_session_check_due: bool = False,
) -> Purchase:
    """Put a locked hold's units back on sale, whoever found out that nobody can pay it any more.

    A buyer who was told 503 was told that "nothing was created": the idempotency key is free to buy
    again then, and it wasn't time that ended the hold. Raises what ``apply`` raises.
    """
    told_503 = purchase.checkout_failed_at is not None or reason == ReleaseReason.PROVIDER_ERROR
    if told_503 and reason == ReleaseReason.EXPIRED:
        reason = ReleaseReason.PROVIDER_ERROR
    changes: dict[str, Any] = {
        "release_reason": reason,
        "ending_until": None,
        "checkout_failed_at": None,
        "checkout_request": None,
        "stray_session_check_due": purchase.stray_session_check_due or stray_session_check_due,
    }
    if told_503:
        changes["idempotency_key"] = None
    return apply(
        purchase,
        RELEASE,
        now=now,
        source=source,
        actor=actor,
        reason=note or str(reason),
        **changes,
    )


def record(
    purchase: Purchase,
    name: str,
    before: Status | None,
    *,
    now: datetime,
    source: str,
    actor: User | None,
    reason: str = "",
) -> None:
    """Write down that a purchase was made (``before`` is None) or changed; then log and mirror it.

    Those two after the commit, since nothing has happened before.
    """
    written = PurchaseTransition.objects.create(
        purchase=purchase,
        name=name,
        from_status=before or "",
        to_status=purchase.status,
        actor=actor,
        source=source,
        reason=reason[:500],
        created_at=now,
    )
    state = mirror.state_of(purchase, version=written.pk)
    transaction.on_commit(lambda: mirror.write(purchase.pk, state))
    transaction.on_commit(
        lambda: log_activity(name, purchase, source=source, reason=reason or None)
    )


def _move_stock(purchase: Purchase, before: Stock, after: Stock) -> None:
    offer_id, quantity = purchase.offer_id, purchase.quantity
    match before, after:
        case (Stock.RESERVED, Stock.SOLD):
            inventory.confirm(offer_id=offer_id, quantity=quantity)
        case (Stock.RESERVED, Stock.NONE):
            inventory.release(offer_id=offer_id, quantity=quantity)
        case (Stock.SOLD, Stock.NONE) if purchase.restock_on_refund:
            inventory.restock(offer_id=offer_id, quantity=quantity)
        case (Stock.SOLD, Stock.NONE):
            inventory.write_off(offer_id=offer_id, quantity=quantity)
        case (Stock.NONE, Stock.SOLD):
            # A late payment takes stock as a new purchase would: it may find none.
            inventory.reserve(offer_id=offer_id, quantity=quantity)
            inventory.confirm(offer_id=offer_id, quantity=quantity)
