"""What Stripe says about a purchase's money, turned into the purchase's status.

Webhooks, sweeps and cancel all come here, in any order and any number of times: what is already
recorded is left as it is, decided under the purchase's row lock.
"""

import uuid
from datetime import datetime
from typing import Any

import structlog
from django.db import transaction

from offers import money
from offers.errors import InsufficientInventory, SoldOut
from offers.wake import wake
from purchases import stripe_gateway, transitions
from purchases.activity import log_failure
from purchases.errors import PaymentMismatch, PaymentProviderUnavailable, is_stripe_away
from purchases.models import Purchase
from purchases.states import (
    AWAIT_SETTLEMENT,
    OWE_REFUND,
    PAY,
    PAY_LATE,
    REFUND,
    ReleaseReason,
    Status,
)
from purchases.stripe_gateway import CheckoutSession

logger = structlog.get_logger(__name__)

HELD = (Status.RESERVED, Status.AWAITING_PAYMENT, Status.PAYMENT_PROCESSING)


def purchase_of(session: CheckoutSession) -> Purchase | None:
    """The purchase behind a session, also when the session's id never reached our database."""
    by_id = Purchase.objects.filter(checkout_session_id=session.id).first()
    if by_id is not None:
        return by_id
    try:
        reference = uuid.UUID(session.client_reference_id or "")
    except ValueError:
        return None
    return Purchase.objects.filter(pk=reference).first()


def record_session(session: CheckoutSession, *, now: datetime, source: str) -> Purchase | None:
    """Bring the purchase up to date with what its session says; ``None`` if it isn't ours.

    Paid: the purchase is paid, late or not. Complete but unpaid: a delayed method, the stock stays
    held. Expired: the hold is over. Raises ``PaymentMismatch`` for a payment of another amount or
    for a second payment of the same purchase: nothing moves then, but staff find it noted.
    """
    found = purchase_of(session)
    if found is None:
        return None
    try:
        with transaction.atomic():
            purchase = transitions.lock(found.pk)
            if session.is_paid:
                _record_payment(purchase, session, now=now, source=source)
            elif session.status == "complete":
                _record_processing(purchase, session, now=now, source=source)
            elif session.status == "expired":
                _record_end(purchase, session, ReleaseReason.EXPIRED, now=now, source=source)
    except PaymentMismatch as error:
        # After the rollback: that somebody must look is the one thing that is to be kept.
        Purchase.objects.filter(pk=found.pk).update(problem=str(error), ending_until=None)
        raise
    return purchase


def record_failure(session: CheckoutSession, *, now: datetime, source: str) -> Purchase | None:
    """A delayed payment was refused by the buyer's bank: the stock goes back on sale."""
    found = purchase_of(session)
    if found is None:
        return None
    with transaction.atomic():
        purchase = transitions.lock(found.pk)
        _record_end(purchase, session, ReleaseReason.PAYMENT_FAILED, now=now, source=source)
    return purchase


def _record_processing(
    purchase: Purchase, session: CheckoutSession, *, now: datetime, source: str
) -> None:
    if purchase.status in AWAIT_SETTLEMENT.sources:
        _refuse_other_session(purchase, session)
        transitions.apply(purchase, AWAIT_SETTLEMENT, now=now, source=source, **_facts(session))


def _record_payment(
    purchase: Purchase, session: CheckoutSession, *, now: datetime, source: str
) -> None:
    if session.amount_total != purchase.total_minor or session.currency != purchase.currency:
        raise PaymentMismatch(
            f"Session {session.id} took {_written(session.amount_total, session.currency)}, but "
            f"purchase {purchase.pk} costs {_written(purchase.total_minor, purchase.currency)}."
        )
    facts = _facts(session) | {"paid_at": now}
    if purchase.status in HELD:
        transitions.apply(purchase, PAY, now=now, source=source, **facts)
    elif purchase.status == Status.RELEASED:
        _record_late_payment(purchase, facts, now=now, source=source)
    else:
        _refuse_other_session(purchase, session)


def _written(minor: int, currency: str) -> str:
    try:
        amount = money.format_amount(money.from_minor_units(minor, currency), currency)
    except ValueError:  # nothing we ever sell in, so whatever it is, Stripe's own number says it
        return f"{minor} {currency} (minor units)"
    return f"{amount} {currency}"


def _record_late_payment(
    purchase: Purchase, facts: dict[str, Any], *, now: datetime, source: str
) -> None:
    """Paid after the hold ended: take stock again if there is some, else owe the money back."""
    try:
        # A savepoint, so that the offer's refusal leaves the rest of the transaction usable.
        with transaction.atomic():
            transitions.apply(purchase, PAY_LATE, now=now, source=source, **facts)
    except (SoldOut, InsufficientInventory) as error:
        transitions.apply(purchase, OWE_REFUND, now=now, source=source, reason=str(error), **facts)
        transaction.on_commit(lambda: wake("purchases.send_due_refunds"))


def _record_end(
    purchase: Purchase,
    session: CheckoutSession,
    reason: ReleaseReason,
    *,
    now: datetime,
    source: str,
) -> None:
    """Release the hold unless it is over already, or lives on in another session."""
    if purchase.status not in HELD:
        return
    if purchase.is_ending(now):
        return  # whoever expired the session at Stripe knows why, and writes it down in a moment
    if purchase.checkout_session_id not in (None, session.id):
        return
    if purchase.checkout_session_id is None and purchase.checkout_attempt > 1:
        return  # an earlier attempt's session ended; the attempt that counts may be under way
    transitions.release(purchase, reason=reason, now=now, source=source)


def _refuse_other_session(purchase: Purchase, session: CheckoutSession) -> None:
    if purchase.checkout_session_id not in (None, session.id):
        raise PaymentMismatch(
            f"Session {session.id} was paid, but purchase {purchase.pk} is {purchase.status} "
            f"by session {purchase.checkout_session_id}: refund one of the two."
        )


def _facts(session: CheckoutSession) -> dict[str, Any]:
    return {
        "checkout_session_id": session.id,
        "payment_intent_id": session.payment_intent_id,
        "ending_until": None,
        "checkout_failed_at": None,
        "checkout_request": None,
        "problem": "",
    }


# -- Refunds of late payments ---------------------------------------------------------------------

# A refund that Stripe could not send so often needs a person.
REFUND_ATTEMPTS = 3


def send_due_refunds(*, now: datetime, limit: int = 100) -> int:
    """Send back what was paid for units that were gone; returns how many Stripe has confirmed.

    Called by the sweep. The idempotency key makes a repetition the same refund; after the 24 h that
    Stripe keeps keys, the stored refund id does.
    """
    confirmed = 0
    due = Purchase.objects.filter(status=Status.REFUND_DUE, problem="").order_by("paid_at")
    for purchase in list(due[:limit]):
        try:
            confirmed += _record_refund(purchase.pk, _refund(purchase), now=now)
        except PaymentProviderUnavailable as error:
            log_failure("refund", purchase, error)
            if is_stripe_away(error):
                break
    return confirmed


def _refund(purchase: Purchase) -> stripe_gateway.Refund:
    if purchase.refund_id:
        return stripe_gateway.retrieve_refund(purchase.refund_id)
    return stripe_gateway.create_refund(
        payment_intent_id=purchase.payment_intent_id,
        amount=purchase.total_minor,
        purchase_id=str(purchase.pk),
        idempotency_key=f"refund:{purchase.pk}:{purchase.refund_attempt}",
    )


def _record_refund(purchase_id: uuid.UUID, refund: stripe_gateway.Refund, *, now: datetime) -> bool:
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        if purchase.status != Status.REFUND_DUE:
            return False
        if refund.status == "succeeded":
            transitions.apply(
                purchase,
                REFUND,
                now=now,
                source="sweep",
                refund_id=refund.id,
                refunded_at=now,
                refunded_amount=purchase.total_price,
            )
            return True
        if refund.status in ("failed", "canceled"):
            _note_failed_refund(purchase, refund)
        else:
            purchase.refund_id = refund.id
        purchase.save(update_fields=["refund_id", "refund_attempt", "problem"])
    return False


def _note_failed_refund(purchase: Purchase, refund: stripe_gateway.Refund) -> None:
    purchase.refund_id = ""
    if purchase.refund_attempt >= REFUND_ATTEMPTS:
        purchase.problem = f"Refund {refund.id} {refund.status}, as did those before it."
    else:
        purchase.refund_attempt += 1
    logger.error(
        "refund failed",
        purchase_id=str(purchase.pk),
        refund_id=refund.id,
        status=refund.status,
        attempt=purchase.refund_attempt,
    )
