"""What Stripe says about a purchase's money, turned into the purchase's status.

Webhooks, sweeps and cancel all come here, in any order and any number of times: what is already
recorded is left as it is, decided under the purchase's row lock.
"""

import re
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import CharField, F, Q, Value
from django.db.models.functions import Concat

from offers import money
from offers.contention import retried
from offers.errors import InsufficientInventory, SoldOut
from offers.prepared import Given, Query
from purchases import mail, refunds, transitions
from purchases.activity import alert, log_activity
from purchases.errors import AskStripeLater, PaymentMismatch, PaymentProviderUnavailable
from purchases.models import Email, Purchase, Refund
from purchases.states import (
    AWAIT_SETTLEMENT,
    OWE_REFUND,
    PAY,
    PAY_LATE,
    ReleaseReason,
    Status,
)
from purchases.stripe_objects import CheckoutSession

_OF_SESSION = Query(
    lambda: Purchase.objects.filter(checkout_session_id=Given("session", CharField()))
)
SEND_IT_BACK = "Refund all of it in Stripe's dashboard."
RELEASE_IT = "Refund all of it in Stripe's dashboard, and then release the hold."
# How a mismatch's line in ``problem`` begins, with the session's id.
NOTE = re.compile(r"^Session (\S+) took ", re.MULTILINE)
# The same for a query: a note of the purchase's own session.
HAS_NOTE_OF_ITS_SESSION = Q(
    problem__contains=Concat(Value("Session "), F("checkout_session_id"), Value(" took "))
)
UNCLOSED = "A session of it could not be closed at Stripe"
HELD = (Status.RESERVED, Status.AWAITING_PAYMENT, Status.PAYMENT_PROCESSING)


def purchase_of(session: CheckoutSession) -> Purchase | None:
    """The purchase behind a session, also when the session's id never reached our database."""
    by_id = _OF_SESSION.first(session=session.id)
    if by_id is not None:
        return by_id
    try:
        reference = uuid.UUID(session.client_reference_id or "")
    except ValueError:
        return None
    return Purchase.objects.filter(pk=reference).first()


def record_session(
    session: CheckoutSession, *, now: datetime, source: str, may_ask: bool = True
) -> Purchase | None:
    """Bring the purchase up to date with what its session says; ``None`` if it isn't ours.

    Paid: the purchase is paid, late or not; a second payment of one that is paid already is sent
    back. Complete but unpaid: a delayed method, the stock stays held. Expired: the hold is over.
    Called by webhooks, sweeps, cancel and reconciliation, outside any transaction; locks the
    purchase, then its offer. Raises ``PaymentMismatch`` for a payment of another amount: nothing
    moves then, but staff find it noted. One for which nothing is held is over once all of it is
    back: Stripe is asked that, and ``AskStripeLater`` raised unless it may be.
    """
    found = purchase_of(session)
    if found is None:
        return None
    try:
        return _record(found.pk, session, now=now, source=source)
    except PaymentMismatch as error:
        # After the rollback: that somebody must look is the one thing that is to be kept.
        purchase = Purchase.objects.get(pk=found.pk)
        if not awaits_release(purchase, session.id):
            if not may_ask:
                raise AskStripeLater from error
            try:
                if settle_mismatch(session, purchase, now=now, source=source):
                    return Purchase.objects.get(pk=found.pk)
            except PaymentProviderUnavailable:
                _note_mismatch(found, session, error)
                raise
        _note_mismatch(found, session, error)
        raise


def _note_mismatch(purchase: Purchase, session: CheckoutSession, error: PaymentMismatch) -> None:
    if note_problem(purchase.pk, str(error), of=session.id):
        alert("payment_mismatch", purchase, detail=str(error))


@retried
def note_problem(purchase_id: uuid.UUID, said: str, *, of: str = "") -> bool:
    """Add a line to ``problem``, beside what it says of refunds; whether it wasn't there before.

    A mismatch is ``of`` a session, and what to do about it depends on what became of the hold: what
    was said of the same one before goes. Called here and by ``holds``, outside any transaction;
    locks the purchase.
    """
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        is_said = said in purchase.problem.split("\n")
        is_new = not is_said and of not in noted_sessions(purchase)
        if not is_said:
            purchase.problem = f"{_problem_but_for(purchase, of)}\n{said}".strip()
        purchase.ending_until = None
        purchase.save(update_fields=["problem", "ending_until"])
    return is_new


def awaits_release(purchase: Purchase, session_id: str) -> bool:
    """Whether units are held for that session's payment: staff end it then (``holds.release``)."""
    return purchase.status in HELD and purchase.checkout_session_id in (None, session_id)


def noted_sessions(purchase: Purchase) -> list[str]:
    """The sessions whose payments didn't fit, as ``problem`` has them."""
    return NOTE.findall(purchase.problem)


def settle_mismatch(
    session: CheckoutSession, purchase: Purchase, *, now: datetime, source: str
) -> bool:
    """Take a mismatch for done if all of its money is back at Stripe; whether it is.

    Called here, by ``holds`` and by reconciliation, outside any transaction. Its refunds are on
    record then and its note is gone; units that are held for it stay so. Locks the purchase; raises
    what the gateway raises.
    """
    sent_back = refunds.all_of(session.payment_intent_id, amount=session.amount_total)
    if sent_back is None:
        return False
    for refund in sent_back:
        refunds.record(refund, now=now, source=source, of=purchase)
    _drop_note(purchase.pk, session.id, source=source)
    return True


@retried
def _drop_note(purchase_id: uuid.UUID, session_id: str, *, source: str) -> None:
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        if session_id not in noted_sessions(purchase):
            return
        purchase.problem = _problem_but_for(purchase, session_id)
        purchase.save(update_fields=["problem"])
        transaction.on_commit(
            lambda: log_activity("settle_mismatch", purchase, session=session_id, source=source)
        )


def _problem_but_for(purchase: Purchase, session_id: str) -> str:
    lines = purchase.problem.split("\n")
    return "\n".join(line for line in lines if session_id not in NOTE.findall(line))


@retried
def _record(
    purchase_id: uuid.UUID, session: CheckoutSession, *, now: datetime, source: str
) -> Purchase:
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        if session.is_paid:
            _record_payment(purchase, session, now=now, source=source)
        elif session.status == "complete" and session.payment_failed:
            failed = ReleaseReason.PAYMENT_FAILED
            _record_end(purchase, session, failed, now=now, source=source)
        elif session.status == "complete":
            _record_processing(purchase, session, now=now, source=source)
        elif session.status == "expired":
            _record_end(purchase, session, ReleaseReason.EXPIRED, now=now, source=source)
    return purchase


@retried
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
        transitions.apply(
            purchase, AWAIT_SETTLEMENT, now=now, source=source, **_facts(purchase, session)
        )


def _record_payment(
    purchase: Purchase, session: CheckoutSession, *, now: datetime, source: str
) -> None:
    if session.amount_total != purchase.total_minor or session.currency != purchase.currency:
        raise PaymentMismatch(
            f"Session {session.id} took {_written(session.amount_total, session.currency)}, but "
            f"purchase {purchase.pk} costs {_written(purchase.total_minor, purchase.currency)}. "
            + (RELEASE_IT if awaits_release(purchase, session.id) else SEND_IT_BACK)
        )
    # Stripe's time of payment, not ours of hearing about it; its clock may be ahead of ours.
    facts = _facts(purchase, session) | {"paid_at": min(session.paid_at or now, now)}
    if purchase.status in HELD:
        transitions.apply(purchase, PAY, now=now, source=source, **facts)
    elif purchase.status == Status.RELEASED:
        _record_late_payment(purchase, facts, now=now, source=source)
    elif session.payment_intent_id != purchase.payment_intent_id:
        refunds.owe(
            purchase,
            cause=Refund.Cause.SECOND_PAYMENT,
            payment_intent_id=session.payment_intent_id,
            reason=f"Session {session.id} was paid when the purchase was {purchase.status}.",
            now=now,
        )
        return
    if purchase.refunded_amount:
        refunds.settle(purchase, now=now, source=source)  # its refund was heard of first


def _written(minor: int, currency: str) -> str:
    try:
        amount = money.format_amount(money.from_minor_units(minor, currency), currency)
    except ValueError:  # nothing we ever sell in, so whatever it is, Stripe's own number says it
        return f"{minor} {currency} (minor units)"
    return f"{amount} {currency}"


def _record_late_payment(
    purchase: Purchase, facts: dict[str, Any], *, now: datetime, source: str
) -> None:
    """Paid, but the units are gone from the hold: take stock again if there is some, else owe."""
    said = _lateness(purchase, facts["paid_at"])
    try:
        # A savepoint, so that the offer's refusal leaves the rest of the transaction usable.
        with transaction.atomic():
            transitions.apply(purchase, PAY_LATE, now=now, source=source, reason=said, **facts)
    except (SoldOut, InsufficientInventory) as error:
        why = f"{said} {error}"
        transitions.apply(purchase, OWE_REFUND, now=now, source=source, reason=why, **facts)
        refunds.owe(
            purchase,
            cause=Refund.Cause.LATE_PAYMENT,
            payment_intent_id=purchase.payment_intent_id,
            reason=why,
            now=now,
        )
        mail.enqueue(purchase, Email.Occasion.LATE_PAYMENT, now=now)


def _lateness(purchase: Purchase, paid_at: datetime) -> str:
    """Whose fault it was, for the log: the payment's own time tells, not when we heard of it."""
    late = paid_at - purchase.reserved_until
    if late <= timedelta(0):
        return "Paid in time, but we heard of it only after the hold had been given up."
    return f"Paid {late.total_seconds() / 60:.0f} min after the hold ended."


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
    if reason == ReleaseReason.EXPIRED and purchase.is_ending(now):
        return  # whoever expired the session at Stripe knows why, and writes it down in a moment
    if purchase.checkout_session_id not in (None, session.id):
        return
    if purchase.checkout_session_id is None and purchase.checkout_attempt > 1:
        return  # an earlier attempt's session ended; the attempt that counts may be under way
    transitions.release(purchase, reason=reason, now=now, source=source)


def _facts(purchase: Purchase, session: CheckoutSession) -> dict[str, Any]:
    # What was told once is not taken back by an event that doesn't mention it.
    address = session.shipping_address
    return ({} if address is None else {"shipping_address": address}) | {
        "checkout_session_id": session.id,
        "payment_intent_id": session.payment_intent_id,
        "ending_until": None,
        "checkout_failed_at": None,
        "checkout_request": None,
        # What another session took, or a refund that failed, is as true as before.
        "problem": "\n".join(
            line
            for line in _problem_but_for(purchase, session.id).split("\n")
            if not line.startswith(UNCLOSED)
        ),
    }
