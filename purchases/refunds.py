"""Sending money back, and hearing that it was: for staff, for late payments, by the dashboard.

A refund is a row that is stored in the transaction that decides on it, and sent afterwards by
``send_due``. What Stripe says of any refund comes to ``record``, in any order and any number of
times; ``settle`` then brings the purchase in line with its refunds, under its row lock.
"""

import math
import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from offers import money, row_queue
from offers.contention import drop_broken_connection, retried
from offers.error_texts import without_quotes
from offers.wake import wake
from purchases import mail, refund_notes, stripe_gateway, stripe_objects, transitions
from purchases.activity import alert, log_failure
from purchases.errors import (
    ProviderFailed,
    ProviderRefused,
    ProviderTurnedAway,
    is_stripe_away,
)
from purchases.models import Email, Purchase, Refund
from purchases.states import (
    REFUND,
    REFUND_FAILED,
    REFUND_RETURNED,
    Status,
)

# Longer than the longest conversation with Stripe.
LEASE = timedelta(seconds=60)
# Older than that, Stripe may have forgotten its idempotency key, which it keeps for a day at least:
# https://docs.stripe.com/api/idempotent_requests
FRESH = timedelta(hours=12)
# A pending refund takes days; Stripe's webhook tells sooner than this question.
ASK_AGAIN = timedelta(hours=1)
UNDER_WAY = (Refund.State.REQUESTED, Refund.State.PENDING)
# What a refund can become, in this order only: a late webhook must not turn it back.
RANK = {
    Refund.State.REQUESTED: 0,
    Refund.State.PENDING: 1,
    Refund.State.SUCCEEDED: 2,
    Refund.State.FAILED: 3,
}
# https://docs.stripe.com/api/refunds/object: `canceled` and `failed` are final, money is back here.
STATE_AT_STRIPE = {
    "pending": Refund.State.PENDING,
    "requires_action": Refund.State.PENDING,
    "succeeded": Refund.State.SUCCEEDED,
    "failed": Refund.State.FAILED,
    "canceled": Refund.State.FAILED,
}


# -- Sending them ---------------------------------------------------------------------------------


def owe(
    purchase: Purchase,
    *,
    cause: Refund.Cause,
    payment_intent_id: str,
    reason: str,
    now: datetime,
) -> None:
    """Have a payment sent back for which there is nothing to have, all of it.

    Called by ``payments`` inside its transaction, which holds the purchase's lock. The same payment
    again changes nothing, also when its refund has failed: that is for staff to look at.
    """
    if Refund.objects.filter(purchase=purchase, payment_intent_id=payment_intent_id).exists():
        return
    store(
        Refund(
            purchase=purchase,
            payment_intent_id=payment_intent_id,
            amount=purchase.total_price,
            cause=cause,
            reason=reason[:500],
            due_at=now,
            created_at=now,
        )
    )
    if cause == Refund.Cause.SECOND_PAYMENT:
        transaction.on_commit(lambda: alert("second_payment", purchase, detail=reason))


def store(refund: Refund) -> None:
    """Keep a new refund, and wake whoever sends it; inside the transaction that decides on it."""
    refund.save(force_insert=True)
    transaction.on_commit(lambda: wake("purchases.send_refunds"))


def send_due(*, now: datetime, limit: int = 200, until: float = math.inf) -> int:
    """Send the refunds that are due, and ask after those under way; returns how many were settled.

    Called by the sweep and its nudge. One at a time: each may take as long as Stripe does.
    """
    settled = 0
    for _ in row_queue.in_time(range(limit), until):
        claimed = row_queue.claim(due(now=now), clock=timezone.now(), lease=LEASE, limit=1)
        if not claimed:
            break
        refund = claimed[0]
        try:
            _send(refund, now=now)
        except Exception as error:  # noqa: BLE001 - put off, logged; the others get their turn
            drop_broken_connection()
            _put_off(refund, error, now=now)
            if is_stripe_away(error):
                break
        settled += not Refund.objects.get(pk=refund.pk).is_under_way
    return settled


def due(*, now: datetime) -> QuerySet[Refund]:
    """Refunds to send or to ask after, the longest waiting first."""
    return Refund.objects.filter(state__in=UNDER_WAY, due_at__lte=now).order_by("due_at")


def _send(refund: Refund, *, now: datetime) -> None:
    if refund.stripe_refund_id is not None:
        record(stripe_gateway.retrieve_refund(refund.stripe_refund_id), now=now, source="sweep")
        return
    if refund.attempts > 1 or timezone.now() - refund.created_at > FRESH:
        # Asked before without a clear answer, or on record here before a backup was restored: what
        # was done then must not be done twice.
        for known in _known_at_stripe(refund.payment_intent_id):
            if known.reference == str(refund.pk):
                record(known, now=now, source="sweep")
                return
    purchase = refund.purchase
    try:
        sent = stripe_gateway.create_refund(
            payment_intent_id=refund.payment_intent_id,
            amount=money.to_minor_units(refund.amount, purchase.currency),
            metadata={"purchase": str(purchase.pk), "refund": str(refund.pk)},
            idempotency_key=f"refund:{refund.pk}:{refund.stripe_attempt}",
        )
    except ProviderRefused as error:
        _record_refusal(refund, error, now=now)
        return
    record(sent, now=now, source="sweep")


def _known_at_stripe(payment_intent_id: str) -> list[stripe_objects.Refund]:
    """Every refund of a payment; none if Stripe doesn't know even the payment."""
    try:
        return stripe_gateway.refunds_of(payment_intent_id)
    except ProviderRefused:
        return []


def _put_off(refund: Refund, error: Exception, *, now: datetime) -> None:
    """Have a claimed refund tried again later, unless Stripe's word of it came in meanwhile."""
    log_failure("refund", refund.purchase, error, attempts=refund.attempts)
    # A stored 500 is all that this key will ever get; what it did is looked up before the next.
    spent = isinstance(error, ProviderFailed) and not isinstance(error, ProviderTurnedAway)
    # Whoever claims it or hears of it moves its time on.
    as_claimed = Refund.objects.filter(pk=refund.pk, state=refund.state, due_at=refund.due_at)
    is_put_off = as_claimed.update(
        stripe_attempt=refund.stripe_attempt + spent,
        error=without_quotes(str(error)),
        due_at=timezone.now() + row_queue.delay(refund.attempts),
    )
    if is_put_off and refund_notes.is_stuck(refund):
        _settle(refund.purchase_id, now=now)


@retried
def _settle(purchase_id: uuid.UUID, *, now: datetime) -> None:
    with transaction.atomic():
        settle(transitions.lock(purchase_id), now=now, source="sweep")


def _record_refusal(refund: Refund, error: ProviderRefused, *, now: datetime) -> None:
    """Stripe won't: most likely somebody refunded in its dashboard, which then is what counts."""
    for known in _known_at_stripe(refund.payment_intent_id):
        record(known, now=now, source="sweep")
    why = f"Stripe refused this refund ({error.provider_code or 'no code'})."
    _fail(refund.pk, why, now=now, is_done_already=error.provider_code == "charge_already_refunded")


# -- What Stripe says of them ---------------------------------------------------------------------


def purchase_of_payment(payment_intent_id: str) -> Purchase | None:
    """The purchase that a payment was for, once that payment is on record."""
    if not payment_intent_id:
        return None
    found = Purchase.objects.filter(payment_intent_id=payment_intent_id).first()
    if found is not None:
        return found
    second = Refund.objects.filter(payment_intent_id=payment_intent_id).select_related("purchase")
    return next((refund.purchase for refund in second[:1]), None)


def is_known(refund: stripe_objects.Refund) -> bool:
    """Whether our row of this refund says as much as Stripe does."""
    row = Refund.objects.filter(stripe_refund_id=refund.id).first()
    return row is not None and RANK[Refund.State(row.state)] >= RANK[_state(refund)]


def _state(refund: stripe_objects.Refund) -> Refund.State:
    return STATE_AT_STRIPE.get(refund.status, Refund.State.PENDING)


def is_all_known(payment_intent_id: str, refunded: int, currency: str) -> bool:
    """Whether ``refunded`` (minor units), what Stripe says of a charge, is all on record here.

    Called by ``webhooks``, and no word on whether money is back: what is pending is known, too.
    """
    known = Refund.objects.filter(
        payment_intent_id=payment_intent_id, stripe_refund_id__isnull=False
    )
    amount = sum_of(known.exclude(state=Refund.State.FAILED))
    return amount >= money.from_minor_units(refunded, currency.upper())


def all_of(payment_intent_id: str, *, amount: int) -> list[stripe_objects.Refund] | None:
    """What Stripe has sent back of a payment of ``amount`` (minor units), if that was all of it.

    Called by ``payments`` and reconciliation, outside any transaction. ``None`` if some of it is
    still here, or on its way only. Raises what the gateway raises.
    """
    if not payment_intent_id:
        return None if amount else []
    sent = [
        refund
        for refund in _known_at_stripe(payment_intent_id)
        if _state(refund) == Refund.State.SUCCEEDED
    ]
    return sent if sent and sum(refund.amount for refund in sent) >= amount else None


@retried
def record(
    refund: stripe_objects.Refund, *, now: datetime, source: str, of: Purchase | None = None
) -> Purchase | None:
    """Note what Stripe says of a refund, and settle its purchase; ``None`` if it isn't ours.

    Called by webhooks, the sweep and reconciliation; locks the purchase, then its offer. A refund
    only ever moves on (``RANK``), so old news are no news. ``attempts`` begins again: it counts
    the tries that Stripe has left without an answer. ``of`` is the purchase where the payment
    itself isn't on record. One in another currency is left alone: a row can't tell of any.
    """
    found = of or purchase_of_payment(refund.payment_intent_id)
    if found is None or refund.currency != found.currency:
        return found
    state = _state(refund)
    with transaction.atomic():
        purchase = transitions.lock(found.pk)
        ours = _row_of(purchase, refund)
        known_as = None if ours._state.adding else ours.state
        ours.stripe_refund_id = refund.id
        if known_as is None or RANK[state] > RANK[Refund.State(known_as)]:
            ours.state, ours.error = state, refund.failure_reason
            ours.settled_at = None if ours.is_under_way else now
        # Also when nothing is new: the claim is over in a minute, the bank isn't.
        ours.due_at, ours.attempts = now + ASK_AGAIN, 0
        news = ["stripe_refund_id", "state", "error", "settled_at", "due_at", "attempts"]
        ours.save(update_fields=None if ours._state.adding else news)
        if ours.state != known_as:
            _tell(purchase, ours, now=now)
        settle(purchase, now=now, source=source)
    return purchase


def _tell(purchase: Purchase, refund: Refund, *, now: datetime) -> None:
    """Staff hear of a refund that failed, the buyer of one that was sent; of each once."""
    if refund.state == Refund.State.FAILED:
        _alert_of_failure(purchase, refund)
    elif refund.state == Refund.State.SUCCEEDED:
        mail.enqueue(purchase, Email.Occasion.REFUNDED, now=now, reference=str(refund.pk))


def _row_of(purchase: Purchase, refund: stripe_objects.Refund) -> Refund:
    """Our row of Stripe's refund: by its id, else by ours, which it carries, else a new one."""
    own = Q(stripe_refund_id=refund.id)
    with suppress(ValueError):  # one that was made in the dashboard carries none
        own |= Q(pk=uuid.UUID(refund.reference or ""), stripe_refund_id=None)
    row = purchase.refunds.filter(own).order_by("stripe_refund_id").first()
    return row or Refund(
        purchase=purchase,
        payment_intent_id=refund.payment_intent_id,
        amount=money.from_minor_units(refund.amount, purchase.currency),
        cause=Refund.Cause.STRIPE,
        stripe_refund_id=refund.id,
        created_at=refund.created,
    )


@retried
def _fail(refund_id: uuid.UUID, why: str, *, now: datetime, is_done_already: bool) -> None:
    with transaction.atomic():
        purchase = transitions.lock(Refund.objects.get(pk=refund_id).purchase_id)
        refund = Refund.objects.get(pk=refund_id)
        if not refund.is_under_way:
            return
        refund.state, refund.error, refund.settled_at = Refund.State.FAILED, why, now
        refund.save(update_fields=["state", "error", "settled_at"])
        if not is_done_already:
            _alert_of_failure(purchase, refund)
        settle(purchase, now=now, source="sweep")


def _alert_of_failure(purchase: Purchase, refund: Refund) -> None:
    """Have staff look at the purchase: the money is still here, the buyer expects it."""
    said = refund_notes.failure(purchase, refund)
    transaction.on_commit(lambda: alert("refund_failed", purchase, detail=said))


def settle(purchase: Purchase, *, now: datetime, source: str) -> None:
    """Bring a locked purchase in line with its refunds, one of which has changed.

    Called here, by ``refund_requests`` and by ``payments``. The status goes by the refunds of the
    payment that the purchase is paid by, ``problem`` by all of them.
    """
    refunds = of_payment(purchase)
    # More than there was, when a refund is heard of before the failure that made room for it.
    back = min(sum_of(refunds.filter(state=Refund.State.SUCCEEDED)), purchase.total_price)
    all_back = back >= purchase.total_price
    problem = refund_notes.problem_of(purchase)
    for said in refund_notes.stuck_in(problem) - refund_notes.stuck_in(purchase.problem):
        transaction.on_commit(partial(alert, "refund_stuck", purchase, detail=said))
    if all_back and purchase.status in REFUND.sources:
        transitions.apply(
            purchase, REFUND, now=now, source=source,
            refunded_amount=purchase.total_price, refunded_at=now, problem=problem,
        )  # fmt: skip
    elif purchase.status == Status.REFUNDED and not all_back:
        transitions.apply(
            purchase, REFUND_RETURNED, now=now, source=source,
            refunded_amount=back, refunded_at=None, problem=problem,
        )  # fmt: skip
    elif (
        purchase.status == Status.REFUNDING
        and sum_of(refunds.exclude(state=Refund.State.FAILED)) < purchase.total_price
    ):
        # What is under way, a part maybe, doesn't make up for the one that failed.
        transitions.apply(
            purchase, REFUND_FAILED, now=now, source=source,
            refunded_amount=back, problem=problem,
        )  # fmt: skip
    elif (purchase.refunded_amount, purchase.problem) != (back, problem):
        purchase.refunded_amount, purchase.problem = back, problem
        purchase.save(update_fields=["refunded_amount", "problem"])


def of_payment(purchase: Purchase) -> QuerySet[Refund]:
    """Refunds of the payment that the purchase is paid by; those of a second one don't count."""
    return purchase.refunds.filter(payment_intent_id=purchase.payment_intent_id)


def sum_of(refunds: QuerySet[Refund]) -> Decimal:
    """What they come to, in major units."""
    return refunds.aggregate(sum=Sum("amount"))["sum"] or Decimal(0)
