"""Changing a fulfilment's status: the one way to do it.

``apply`` asks the table of ``fulfillment.states`` under the row's lock, and writes the row and a
``FulfillmentTransition`` in the caller's transaction. Lock order: the purchase, its fulfilment
(``lock`` takes both), then whatever is delivered: a registration, a slot, a pool of codes.
"""

import uuid
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import UUIDField

from fulfillment import announcements
from fulfillment.errors import FulfillmentAlreadyResolved, FulfillmentNotFound, NotPaidFor
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.states import FULFILL, REOPEN, REVOKE, Status, Transition
from offers.prepared import Change, Given, Insert, Query
from purchases import transitions as purchases
from purchases.activity import log_activity
from purchases.models import Purchase
from purchases.states import Status as PurchaseStatus

_CHANGE = Change(Fulfillment)
_ENTRIES = Insert(FulfillmentTransition)
_LOCKED = Query(
    lambda: Fulfillment.objects.select_for_update(no_key=True).filter(
        purchase=Given("purchase", UUIDField())
    )
)


def lock(fulfillment_id: uuid.UUID) -> Fulfillment:
    """Return the fulfilment with its purchase's row and its own locked until the transaction ends.

    Raises ``FulfillmentNotFound``. ``fulfillment.purchase`` is the locked purchase.
    """
    purchase_id = (
        Fulfillment.objects.filter(pk=fulfillment_id).values_list("purchase", flat=True).first()
    )
    if purchase_id is None:
        raise FulfillmentNotFound
    fulfillment = lock_of(purchases.lock(purchase_id))
    if fulfillment is None:
        raise FulfillmentNotFound
    return fulfillment


def lock_of(purchase: Purchase) -> Fulfillment | None:
    """The same for a ``purchase`` that the caller has locked; ``None`` if it has no fulfilment."""
    fulfillment = _LOCKED.first(purchase=purchase.pk)
    if fulfillment is not None:
        fulfillment.purchase = purchase
    return fulfillment


def apply(
    fulfillment: Fulfillment,
    transition: Transition,
    *,
    now: datetime,
    source: str,
    actor: User | None = None,
    reason: str = "",
    **changes: Any,
) -> Fulfillment:
    """Do ``transition`` on a locked fulfilment; ``changes`` are other fields to write with it.

    Called by the engine, and by the packages of the types where a person acts (ships, books).
    Raises ``FulfillmentAlreadyResolved`` when the status doesn't allow it, and ``NotPaidFor`` when
    something would be handed out of a purchase that isn't paid. Unless ``changes`` say otherwise
    the fulfilment leaves the queue.
    """
    if fulfillment.status not in transition.sources:
        raise FulfillmentAlreadyResolved(status=fulfillment.status, transition=transition.name)
    if transition == FULFILL and fulfillment.purchase.status != PurchaseStatus.PAID:
        raise NotPaidFor
    before = Status(fulfillment.status)
    fulfillment.status = transition.target
    changes = {"due_at": None, "error": ""} | _times(transition, now) | changes
    if changes["due_at"] is None:
        changes["is_stalled"] = False
    for field, value in changes.items():
        setattr(fulfillment, field, value)
    _CHANGE.run(fulfillment, {"status": fulfillment.status, **changes})
    written = record(
        fulfillment, transition.name, before, now=now, source=source, actor=actor, reason=reason
    )
    announcements.changed(fulfillment, written, now=now)
    return fulfillment


def _times(transition: Transition, now: datetime) -> dict[str, Any]:
    if transition == FULFILL:
        return {"fulfilled_at": now}
    if transition == REOPEN:
        return {"fulfilled_at": None}
    if transition == REVOKE:
        return {"revoked_at": now}
    return {}


def record(
    fulfillment: Fulfillment,
    name: str,
    before: Status | None,
    *,
    now: datetime,
    source: str,
    actor: User | None = None,
    reason: str = "",
) -> FulfillmentTransition:
    """Write down that a fulfilment was made (``before`` is None) or changed, and log it."""
    written = FulfillmentTransition(
        fulfillment=fulfillment,
        name=name,
        from_status=before or "",
        to_status=fulfillment.status,
        actor=actor,
        source=source,
        reason=reason[:500],
        created_at=now,
    )
    _ENTRIES.run([written])
    said = {
        "source": source,
        "reason": reason or None,
        "fulfillment_id": str(fulfillment.pk),
        "fulfillment_status": fulfillment.status,
    }
    transaction.on_commit(lambda: log_activity(f"fulfillment_{name}", fulfillment.purchase, **said))
    return written
