"""Staff asks for money to be sent back: who may, how much, and whether that was asked before."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction

from offers import money, targeting
from offers.contention import retried
from purchases import refunds, transitions
from purchases.activity import log_activity
from purchases.errors import (
    IdempotencyKeyReused,
    InvalidRefundAmount,
    NotRefundable,
    PurchaseNotFound,
    RefundNotAllowed,
)
from purchases.models import Purchase, Refund
from purchases.states import REFUND, REQUEST_REFUND, Status

# The same request again within this time is taken for a repetition, not for another refund.
REPEATED_WITHIN = timedelta(minutes=5)


@dataclass(frozen=True)
class Requested:
    """What ``request`` did: the purchase, and whether an earlier request had done it."""

    purchase: Purchase
    repeated: bool


@retried
def request(
    purchase_id: uuid.UUID,
    *,
    actor: User,
    source: str,
    now: datetime,
    amount: Decimal | None = None,
    restock: bool = True,
    reason: str = "",
    idempotency_key: str | None = None,
) -> Requested:
    """Send ``amount`` (major units; ``None``: all that is left) of a paid purchase back.

    Called by the API and the admin, outside any transaction; locks the purchase. All that is left
    makes the purchase ``refunding``; when Stripe confirms, its units go back on sale, or are
    written off unless ``restock``. A part leaves it ``paid`` with its units. The same request
    again, by its key or within some minutes, is the same refund.

    Raises ``PurchaseNotFound`` and ``RefundNotAllowed`` (who may: owners, managers), and
    ``NotRefundable``, ``InvalidRefundAmount`` and ``IdempotencyKeyReused``; nothing moved then.
    """
    wanted = Refund(
        cause=Refund.Cause.STAFF,
        reason=reason[:500],
        requested_by=actor,
        idempotency_key=idempotency_key,
        request_fingerprint=_fingerprint(amount, restock=restock, reason=reason),
        due_at=now,
        created_at=now,
    )
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        _refuse_unless_allowed(actor, purchase)
        if _is_repeated(purchase, wanted, amount, restock=restock):
            return Requested(purchase, repeated=True)
        _refuse_unless_refundable(purchase)
        if not purchase.total_price:
            if amount is not None:
                raise InvalidRefundAmount("This purchase was free: leave the amount out.")
            _refund_for_nothing(purchase, wanted, restock=restock, source=source)
            return Requested(purchase, repeated=False)
        left = left_of(purchase)
        wanted.amount = left if amount is None else amount
        _refuse_amount(purchase, wanted.amount, left)
        wanted.purchase, wanted.payment_intent_id = purchase, purchase.payment_intent_id
        refunds.store(wanted)
        if wanted.amount == left and purchase.status == Status.PAID:
            transitions.apply(
                purchase, REQUEST_REFUND, now=now, source=source, actor=actor,
                reason=reason, restock_on_refund=restock,
            )  # fmt: skip
        else:
            said = str(wanted.amount)
            transaction.on_commit(
                lambda: log_activity("request_refund", purchase, amount=said, source=source)
            )
        refunds.settle(purchase, now=now, source=source)
    return Requested(purchase, repeated=False)


def left_of(purchase: Purchase) -> Decimal:
    """What could still be sent back: what was paid, without what went back or is on its way."""
    given = refunds.of_payment(purchase).exclude(state=Refund.State.FAILED)
    return purchase.total_price - refunds.sum_of(given)


def _fingerprint(amount: Decimal | None, *, restock: bool, reason: str) -> str:
    said = "all" if amount is None else str(amount.normalize())
    return hashlib.sha256(f"{said}:{restock}:{reason}".encode()).hexdigest()


def _refund_for_nothing(purchase: Purchase, wanted: Refund, *, restock: bool, source: str) -> None:
    """A free purchase has no payment to send back: it is refunded at once."""
    purchase.restock_on_refund = restock
    purchase.save(update_fields=["restock_on_refund"])
    transitions.apply(
        purchase, REFUND, now=wanted.created_at, source=source, actor=wanted.requested_by,
        reason=wanted.reason or "free", refunded_at=wanted.created_at,
    )  # fmt: skip


def _refuse_unless_allowed(actor: User, purchase: Purchase) -> None:
    may = targeting.may_refund(actor, purchase.event)
    if may:
        return
    # Who may know of the purchase hears why; to anybody else it doesn't exist.
    if may is False or purchase.user_id == actor.pk:
        raise RefundNotAllowed
    raise PurchaseNotFound


def _is_repeated(
    purchase: Purchase, wanted: Refund, amount: Decimal | None, *, restock: bool
) -> bool:
    """Whether this is a request that was granted before: a double click, or a client's retry."""
    if wanted.idempotency_key is not None:
        same = purchase.refunds.filter(idempotency_key=wanted.idempotency_key).first()
        if same is not None and same.request_fingerprint != wanted.request_fingerprint:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was used for another refund of this purchase: use a new key."
            )
        if same is not None:
            return True
    if amount is None:
        return _is_on_its_way(purchase, restock=restock)
    recent = purchase.refunds.filter(
        cause=Refund.Cause.STAFF,
        request_fingerprint=wanted.request_fingerprint,
        created_at__gt=wanted.created_at - REPEATED_WITHIN,
    ).exclude(state=Refund.State.FAILED)
    return wanted.idempotency_key is None and recent.exists()


def _is_on_its_way(purchase: Purchase, *, restock: bool) -> bool:
    """Whether all that was paid is, or is back, so that nothing more can be asked for."""
    if purchase.status == Status.REFUND_DUE:
        on_their_way = refunds.of_payment(purchase).filter(state__in=refunds.UNDER_WAY)
        return on_their_way.exists()
    if purchase.status not in (Status.REFUNDING, Status.REFUNDED):
        return False
    if restock != purchase.restock_on_refund:
        raise NotRefundable(
            "All of it was sent back already, and what becomes of its units was said then."
        )
    return True


def _refuse_unless_refundable(purchase: Purchase) -> None:
    if purchase.status in (Status.REFUNDING, Status.REFUNDED):
        raise NotRefundable("All that was paid is on its way back already, or back.")
    if purchase.status not in (Status.PAID, Status.REFUND_DUE):
        raise NotRefundable
    if purchase.total_price and not purchase.payment_intent_id:
        raise NotRefundable("No payment of this purchase is on record: it can't be sent back.")
    disputes = purchase.disputes.filter(payment_intent_id=purchase.payment_intent_id)
    if any(dispute.has_the_money for dispute in disputes):
        raise NotRefundable(
            "The payment is disputed, so the bank has the money: answer the dispute at Stripe."
        )


def _refuse_amount(purchase: Purchase, amount: Decimal, left: Decimal) -> None:
    if left <= 0:
        raise NotRefundable("All that was paid is on its way back already, or back.")
    if not money.is_chargeable(amount, purchase.currency):
        raise InvalidRefundAmount(f"This has more digits than an amount in {purchase.currency}.")
    if not 0 < amount <= left:
        most = money.format_amount(left, purchase.currency)
        raise InvalidRefundAmount(
            f"Send back more than 0 and at most {most} {purchase.currency}: that is left."
        )
