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

from fulfillment import announcements
from fulfillment.errors import FulfillmentAlreadyResolved, FulfillmentNotFound, NotPaidFor
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.states import FULFILL, REOPEN, REVOKE, Status, Transition
from purchases import transitions as purchases
from purchases.activity import log_activity
from purchases.states import Status as PurchaseStatus


def lock(fulfillment_id: uuid.UUID) -> Fulfillment:
    """Return the fulfilment with its purchase's row and its own locked until the transaction ends.

    Raises ``FulfillmentNotFound``. ``fulfillment.purchase`` is the locked purchase.
    """
    purchase_id = (
        Fulfillment.objects.filter(pk=fulfillment_id).values_list("purchase", flat=True).first()
    )
    if purchase_id is None:
        raise FulfillmentNotFound
    purchase = purchases.lock(purchase_id)
    fulfillment = Fulfillment.objects.select_for_update(no_key=True).get(pk=fulfillment_id)
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
    fulfillment.save(update_fields=["status", *changes])
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
    written = FulfillmentTransition.objects.create(
        fulfillment=fulfillment,
        name=name,
        from_status=before or "",
        to_status=fulfillment.status,
        actor=actor,
        source=source,
        reason=reason[:500],
        created_at=now,
    )
    said = {
        "source": source,
        "reason": reason or None,
        "fulfillment_id": str(fulfillment.pk),
        "fulfillment_status": fulfillment.status,
    }
    transaction.on_commit(lambda: log_activity(f"fulfillment_{name}", fulfillment.purchase, **said))
    return written
