"""Staff asks for money to be sent back: who may, how much, and whether that was asked before."""

import uuid
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


@retried
def request(
    *,
    purchase_id: uuid.UUID,
    actor: User,
    source: str,
    now: datetime,
    amount: Decimal | None = None,
    restock: bool = True,
    reason: str = "",
    idempotency_key: str | None = None,
) -> Purchase:
    """Send ``amount`` (major units; ``None``: all that is left) of a paid purchase back.

    Called by the API and the admin, outside any transaction; locks the purchase. All that is left
    makes the purchase ``refunding``; when Stripe confirms, its units go back on sale, or are
    written off unless ``restock``. A part leaves it ``paid`` with its units. The same request
    again, by its key or within some minutes, is the same refund.

    Raises ``PurchaseNotFound`` and ``RefundNotAllowed`` (who may: owners, managers), and
    ``NotRefundable``, ``InvalidRefundAmount`` and ``IdempotencyKeyReused``; nothing moved then.
    """
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        _refuse_unless_allowed(actor, purchase)
        if _is_repeated(purchase, amount, reason, idempotency_key, now=now):
            return purchase
        _refuse_unless_refundable(purchase)
        given = refunds.of_payment(purchase).exclude(state=Refund.State.FAILED)
        left = purchase.total_price - refunds.sum_of(given)
        if not purchase.total_price:
            if amount is not None:
                raise InvalidRefundAmount("This purchase was free: leave the amount out.")
            purchase.restock_on_refund = restock
            purchase.save(update_fields=["restock_on_refund"])
            return transitions.apply(
                purchase, REFUND, now=now, source=source, actor=actor,
                reason=reason or "free", refunded_at=now,
            )  # fmt: skip
        wanted = left if amount is None else amount
        _refuse_amount(purchase, wanted, left)
        refund = Refund(
            purchase=purchase,
            payment_intent_id=purchase.payment_intent_id,
            amount=wanted,
            cause=Refund.Cause.STAFF,
            reason=reason[:500],
            requested_by=actor,
            idempotency_key=idempotency_key,
            due_at=now,
            created_at=now,
        )
        refunds.store(refund)
        purchase.problem = refunds.stuck_second_payment(purchase)
        if wanted == left and purchase.status == Status.PAID:
            purchase.restock_on_refund = restock
            transitions.apply(
                purchase, REQUEST_REFUND, now=now, source=source, actor=actor,
                reason=reason, restock_on_refund=restock, problem=purchase.problem,
            )  # fmt: skip
        else:
            purchase.save(update_fields=["problem"])
            transaction.on_commit(
                lambda: log_activity("request_refund", purchase, amount=str(wanted), source=source)
            )
    return purchase


def _refuse_unless_allowed(actor: User, purchase: Purchase) -> None:
    may = targeting.may_refund(actor, purchase.event)
    if may:
        return
    # Who may know of the purchase hears why; to anybody else it doesn't exist.
    if may is False or purchase.user_id == actor.pk:
        raise RefundNotAllowed
    raise PurchaseNotFound


def _is_repeated(
    purchase: Purchase,
    amount: Decimal | None,
    reason: str,
    idempotency_key: str | None,
    *,
    now: datetime,
) -> bool:
    """Whether this is a request that was granted before: a double click, or a client's retry."""
    if idempotency_key is not None:
        same = purchase.refunds.filter(idempotency_key=idempotency_key).first()
        if same is not None and amount not in (None, same.amount):
            raise IdempotencyKeyReused
        return same is not None
    if amount is None:
        if purchase.status == Status.REFUND_DUE:
            return refunds.of_payment(purchase).filter(state__in=refunds.UNDER_WAY).exists()
        return purchase.status in (Status.REFUNDING, Status.REFUNDED)
    recent = purchase.refunds.filter(
        cause=Refund.Cause.STAFF,
        amount=amount,
        reason=reason[:500],
        idempotency_key=None,
        created_at__gt=now - REPEATED_WITHIN,
    )
    return recent.exclude(state=Refund.State.FAILED).exists()


def _refuse_unless_refundable(purchase: Purchase) -> None:
    if purchase.status in (Status.REFUNDING, Status.REFUNDED):
        raise NotRefundable("All that was paid is on its way back already, or back.")
    if purchase.status not in (Status.PAID, Status.REFUND_DUE):
        raise NotRefundable
    if any(dispute.has_the_money for dispute in purchase.disputes.all()):
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
        raise InvalidRefundAmount(f"Between 0 and {most} {purchase.currency} can be sent back.")
