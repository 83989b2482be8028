"""Changing a purchase's status: the one way to do it.

``apply`` does all of it in the caller's transaction: the table of ``purchases.states`` is asked
under the purchase's row lock, the offer's counters move, the row and a ``PurchaseTransition`` are
written. Lock order: the purchase (``lock``), then its offer (``offers.inventory``).
``open_checkout`` moves no stock, and asks, changes and writes in one statement.
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import DateTimeField, TextField, UUIDField

from offers import inventory
from offers.models import Offer
from offers.prepared import Change, Given, Insert, Query, Update
from offers.wake import wake
from purchases import mirror
from purchases.activity import log_activity
from purchases.errors import HoldAlreadyResolved, PurchaseNotFound
from purchases.models import Purchase, PurchaseTransition
from purchases.states import (
    FULFILLMENT_HEARS_OF,
    OCCUPIES,
    OPEN_CHECKOUT,
    RELEASE,
    ReleaseReason,
    Status,
    Stock,
    Transition,
)

_NEW = Insert(Purchase)
_CHANGE = Change(Purchase)
_ENTRIES = Insert(PurchaseTransition)
# Of a purchase whose session is known.
_HAS_SESSION = {
    "status": OPEN_CHECKOUT.target,
    "checkout_request": None,
    "checkout_failed_at": None,
}
_OPENED = Update(
    lambda: (
        Purchase.objects.filter(
            Purchase.nobody_is_ending(Given("now", DateTimeField())),
            pk=Given("purchase", UUIDField()),
            status=Given("before", TextField()),
        ),
        {
            "checkout_session_id": Given("checkout_session_id", TextField()),
            "checkout_url": Given("checkout_url", TextField()),
            "checkout_expires_at": Given("checkout_expires_at", DateTimeField()),
            **_HAS_SESSION,
        },
    )
)
_LOCKED = Query(
    lambda: Purchase.objects.select_for_update(of=("self",), no_key=True).filter(
        pk=Given("purchase", UUIDField())
    )
)


def lock(purchase_id: uuid.UUID) -> Purchase:
    """Return the purchase with its row locked until the transaction ends.

    Raises ``PurchaseNotFound``. Call it before anything locks the purchase's offer.
    """
    purchase = _LOCKED.first(purchase=purchase_id)
    if purchase is None:
        raise PurchaseNotFound
    return purchase


def create(
    purchase: Purchase,
    *steps: Transition,
    source: str,
    reason: str = "",
    seen: Offer | None = None,
) -> None:
    """Store a hold that went through ``steps`` at once, for a ``reason``, and take its units.

    Called by checkout. An offer as it was ``seen`` without the lock is locked last, and its
    counters move, in one with the commit (``inventory.take_with_commit``): whoever waits for its
    row waits for nothing else. Without ``seen`` the caller has judged the offer under its lock.
    Raises ``SoldOut`` or ``InsufficientInventory``.
    """
    entries = _go_through(purchase, steps, source=source, reason=reason)
    _ENTRIES.run_with(_NEW, purchase, entries)
    _take(purchase, OCCUPIES[Status(purchase.status)], seen)
    transaction.on_commit(_telling(purchase, entries))


def create_all(
    purchases: Sequence[Purchase],
    *steps: Transition,
    source: str,
    reason: str = "",
    seen: Offer,
) -> list[Callable[[], None]]:
    """Store several buyers' holds of one offer, as ``create`` does with one: all of them or none.

    Called by checkout. Returns for each purchase what is to be called once all is committed, in the
    thread of the request that it is of: that is whose number its lines in the log have.
    """
    if not purchases:
        return []
    entries = [_go_through(each, steps, source=source, reason=reason) for each in purchases]
    _ENTRIES.run_all_with(_NEW, purchases, [entry for own in entries for entry in own])
    (stock,) = {OCCUPIES[Status(purchase.status)] for purchase in purchases}
    quantity = sum(purchase.quantity for purchase in purchases)
    inventory.take_with_commit(seen=seen, quantity=quantity, sold=stock == Stock.SOLD)
    return [_telling(purchase, own) for purchase, own in zip(purchases, entries, strict=True)]


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

    The offer, if its counters move, is locked last, as in ``create``. Raises
    ``HoldAlreadyResolved`` when the purchase's status doesn't allow it, and an ``InventoryError``
    or ``OfferUnavailable`` when the stock doesn't; nothing moved then, provided that the caller
    lets its transaction roll back.
    """
    _refuse_unless_allowed(purchase, transition)
    before = Status(purchase.status)
    if before == Status.RELEASED:
        changes.setdefault("release_reason", "")
    if transition.target in FULFILLMENT_HEARS_OF:
        changes["fulfillment_due"] = True
    changes["status"] = transition.target
    entry = _entry(
        purchase, transition.name, before, transition.target,
        now=now, source=source, actor=actor, reason=reason,
    )  # fmt: skip
    _CHANGE.run(purchase, changes)
    _ENTRIES.run([entry])
    restock = changes.get("restock_on_refund", purchase.restock_on_refund)
    _move_stock(purchase, OCCUPIES[before], OCCUPIES[transition.target], restock=restock)
    for field, value in changes.items():
        setattr(purchase, field, value)
    transaction.on_commit(_telling(purchase, [entry]))
    return purchase


def open_checkout(
    purchase: Purchase,
    *,
    session_id: str,
    url: str,
    expires_at: datetime,
    now: datetime,
    source: str,
) -> bool:
    """Do ``OPEN_CHECKOUT`` on a purchase, locked or not, and return whether it could be done.

    Called by checkout with Stripe's answer. No stock moves, so the row's lock is needed for one
    statement only, which changes the row if its status is what was read and nobody is ending the
    hold, and writes the ``PurchaseTransition``; ``purchase`` is then as the row is. Otherwise
    nothing has changed.
    """
    before = Status(purchase.status)
    if before not in OPEN_CHECKOUT.sources:
        return False
    entry = _entry(
        purchase, OPEN_CHECKOUT.name, before, OPEN_CHECKOUT.target,
        now=now, source=source, actor=None,
    )  # fmt: skip
    session = {
        "checkout_session_id": session_id,
        "checkout_url": url,
        "checkout_expires_at": expires_at,
    }
    found = {"purchase": purchase.pk, "before": before, "now": now}
    if not _ENTRIES.run_if(_OPENED, entry, **found, **session):
        return False
    for field, value in {**session, **_HAS_SESSION}.items():
        setattr(purchase, field, value)
    transaction.on_commit(_telling(purchase, [entry]))
    return True


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


def _refuse_unless_allowed(purchase: Purchase, transition: Transition) -> None:
    if purchase.status not in transition.sources:
        raise HoldAlreadyResolved(status=purchase.status, transition=transition.name)


def _entry(
    purchase: Purchase,
    name: str,
    before: Status | None,
    after: Status,
    *,
    now: datetime,
    source: str,
    actor: User | None,
    reason: str = "",
) -> PurchaseTransition:
    """What is written down of a change (or, ``before`` being ``None``, of the beginning)."""
    return PurchaseTransition(
        purchase=purchase,
        name=name,
        from_status=before or "",
        to_status=after,
        actor=actor,
        source=source,
        reason=reason[:500],
        created_at=now,
    )


def _go_through(
    purchase: Purchase, steps: Sequence[Transition], *, source: str, reason: str
) -> list[PurchaseTransition]:
    """What is written down of a new hold that went through ``steps`` at once; it is changed so."""
    how: Any = {"now": purchase.created_at, "source": source, "actor": purchase.user}
    entries = [_entry(purchase, "hold", None, Status(purchase.status), **how)]
    for step in steps:
        before = Status(purchase.status)
        _refuse_unless_allowed(purchase, step)
        purchase.status = step.target
        entries.append(_entry(purchase, step.name, before, step.target, **how, reason=reason))
    purchase.fulfillment_due = purchase.status in FULFILLMENT_HEARS_OF
    return entries


def _telling(purchase: Purchase, entries: list[PurchaseTransition]) -> Callable[[], None]:
    """For after the commit, since nothing has happened before: mirror it, log it, wake others."""
    is_new = entries[0].from_status == ""
    state = mirror.state_of(purchase, version=entries[-1].pk)
    # A row, not the message: whatever becomes of that, fulfilment's sweep finds the flag.
    is_news = purchase.status in FULFILLMENT_HEARS_OF

    def tell() -> None:
        # A page that asks for a new purchase finds none in the mirror, and puts it there itself.
        if not is_new:
            mirror.write(purchase.pk, state)
        for entry in entries:
            log_activity(entry.name, purchase, source=entry.source, reason=entry.reason or None)
        if is_news:
            wake("fulfillment.deliver_purchase", str(purchase.pk), together="fulfillment.deliver")

    return tell


def _take(purchase: Purchase, stock: Stock, seen: Offer | None) -> None:
    if seen is not None:
        inventory.take_with_commit(seen=seen, quantity=purchase.quantity, sold=stock == Stock.SOLD)
    else:
        take = {Stock.RESERVED: inventory.reserve, Stock.SOLD: inventory.sell}[stock]
        take(offer_id=purchase.offer_id, quantity=purchase.quantity)


def _move_stock(purchase: Purchase, before: Stock, after: Stock, *, restock: bool) -> None:
    offer_id, quantity = purchase.offer_id, purchase.quantity
    match before, after:
        case (Stock.RESERVED, Stock.SOLD):
            inventory.confirm(offer_id=offer_id, quantity=quantity)
        case (Stock.RESERVED, Stock.NONE):
            inventory.release(offer_id=offer_id, quantity=quantity)
        case (Stock.SOLD, Stock.NONE) if restock:
            inventory.restock(offer_id=offer_id, quantity=quantity)
        case (Stock.SOLD, Stock.NONE):
            inventory.write_off(offer_id=offer_id, quantity=quantity)
        case (Stock.NONE, Stock.SOLD):
            # A late payment takes stock as a new purchase would: it may find none.
            inventory.sell(offer_id=offer_id, quantity=quantity)
