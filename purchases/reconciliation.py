"""Comparing: counters with purchases, and purchases with what Stripe has.

Whatever differs is put right by the functions that the webhooks use, and counted.
"""

import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any

import structlog
from django.core.cache import cache
from django.db import transaction
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce

from offers import inventory, row_queue
from offers.contention import drop_broken_connection
from offers.error_texts import in_words
from offers.models import Offer
from purchases import checkout, payments, refunds, stripe_gateway, webhooks
from purchases.activity import alert
from purchases.errors import (
    IdempotencyKeyInUse,
    PaymentMismatch,
    PaymentProviderUnavailable,
    is_stripe_away,
)
from purchases.models import Purchase, StripeEvent
from purchases.states import (
    OPEN_HOLDS,
    STATUSES_IN_RESERVED_STOCK,
    STATUSES_IN_SOLD_STOCK,
    Status,
)
from purchases.stripe_objects import CheckoutSession
from purchases.stripe_objects import Refund as StripeRefund

logger = structlog.get_logger(__name__)

# -- Counters -------------------------------------------------------------------------------------

HELD = Q(purchases__status__in=STATUSES_IN_RESERVED_STOCK)
SOLD = Q(purchases__status__in=STATUSES_IN_SOLD_STOCK)


@dataclass(frozen=True)
class Difference:
    """An offer whose counters say something else than its purchases do."""

    offer: Offer
    reserved: int
    sold: int

    def __str__(self) -> str:
        return (
            f"{self.offer.pk} {self.offer.title}: reserved {self.offer.inventory_reserved}, "
            f"purchases hold {self.reserved}; sold {self.offer.inventory_sold}, "
            f"purchases paid {self.sold}"
        )


def counter_differences() -> Iterator[Difference]:
    """Compare in one statement, so that a purchase made meanwhile can't look like a difference."""
    offers = (
        Offer.objects.annotate(
            held=Coalesce(Sum("purchases__quantity", filter=HELD), 0),
            paid=Coalesce(Sum("purchases__quantity", filter=SOLD), 0),
        )
        .exclude(held=F("inventory_reserved"), paid=F("inventory_sold"))
        .order_by("pk")
    )
    for offer in offers:
        yield Difference(offer, reserved=offer.held, sold=offer.paid)


def repair(difference: Difference) -> Difference:
    """Set one offer's counters to what its purchases add up to; returns the sums as written.

    Called by ``check_inventory --repair``. Raises ``TotalBelowCommitted`` when the purchases add up
    to more than there is: that is oversold, and only people can decide what to do about it.
    """
    with transaction.atomic():
        # Counted under the lock that every change of stock takes, so the sums are the truth.
        offer = inventory.lock(difference.offer.pk)
        sums = offer.purchases.aggregate(
            reserved=Sum("quantity", filter=Q(status__in=STATUSES_IN_RESERVED_STOCK), default=0),
            sold=Sum("quantity", filter=Q(status__in=STATUSES_IN_SOLD_STOCK), default=0),
        )
        inventory.correct(offer_id=offer.pk, **sums)
    return Difference(offer, **sums)


# -- Stripe ---------------------------------------------------------------------------------------

BATCH = 100
# A request has had its answer from Stripe by then, or has died.
IN_PROGRESS = timedelta(minutes=2)
# So long Stripe tries to deliver an event: https://docs.stripe.com/webhooks#retries
UNDELIVERED = timedelta(days=3)


@dataclass(frozen=True)
class Finding:
    """Something that differed: what kind, which object, and what became of it."""

    kind: str
    about: str
    outcome: str
    is_repaired: bool = True

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}: {self.outcome}"


@dataclass(frozen=True)
class Run:
    """How far back one reconciliation looks, and whether it applies what it finds.

    What is younger than ``leave`` isn't looked at: it may be in the hands of a request, or its
    webhook on the way. Applying it all the same does no harm, it is only no finding.
    """

    since: datetime
    now: datetime
    source: str
    leave: timedelta = timedelta(0)
    dry_run: bool = False
    # Also what has to be asked one by one: too much for every few minutes.
    is_thorough: bool = True
    # By `time.monotonic`: each run begins with the newest.
    until: float = math.inf

    @property
    def settled_by(self) -> datetime:
        return self.now - self.leave


def reconcile(run: Run) -> Iterator[Finding]:
    """Find what webhooks missed since then, apply it, and yield each finding once it is done.

    Called by ``reconcile_stripe`` and the sweep, outside any transaction. Raises what the gateway
    raises when Stripe is away: what was found until then is repaired, and the next run goes on.
    """
    finds = (
        _missed_events, _sessions, _unsettled_payments, _holds_without_session, _refunds,
        # Last: there may be many, for ever, and nobody's units or money wait for them.
        _mismatches,
    )  # fmt: skip
    for find in finds:
        for finding in find(run):
            log = logger.info if finding.is_repaired else logger.error
            log("reconciliation", kind=finding.kind, about=finding.about, outcome=finding.outcome)
            yield finding


def _guarded(kind: str, about: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What is wrong with one row doesn't keep the others waiting; a Stripe that is away does."""
    try:
        yield from findings
    except Exception as error:
        if is_stripe_away(error):
            raise
        # Whatever it was: it is told, and it is told again by the next run if it is still there.
        drop_broken_connection()
        yield Finding(kind, about, in_words(error), is_repaired=False)


def _missed_events(run: Run) -> Iterator[Finding]:
    """Events that Stripe couldn't deliver, or that it thinks it did and we don't have."""
    types = sorted(webhooks.HANDLERS)
    undelivered_since = min(run.since, run.now - UNDELIVERED)
    events = chain(
        stripe_gateway.events_since(undelivered_since, types=types, undelivered_only=True),
        stripe_gateway.events_since(run.since, types=types, undelivered_only=False),
    )
    in_time = row_queue.in_time(events, run.until)
    while batch := list(islice(in_time, BATCH)):
        ids = [event["id"] for event in batch]
        known = set(StripeEvent.objects.filter(pk__in=ids).values_list("pk", flat=True))
        for data in batch:
            happened_at = datetime.fromtimestamp(data["created"], UTC)
            if data["id"] not in known and happened_at <= run.settled_by:
                known.add(data["id"])
                yield from _guarded("missed event", data["id"], _missed_event(data, run))


def _missed_event(data: dict[str, Any], run: Run) -> Iterator[Finding]:
    about = f"{data['type']} {data['id']}"
    if run.dry_run:
        yield Finding("missed event", about, "would be processed")
        return
    event, is_new = webhooks.store(data, now=run.now)
    if not is_new:
        return
    webhooks.process(event, now=run.now)
    if event.state != StripeEvent.State.IGNORED:
        is_repaired = event.state == StripeEvent.State.PROCESSED
        yield Finding("missed event", about, event.state, is_repaired)


def _mismatches(run: Run) -> Iterator[Finding]:
    """Payments that didn't fit, however old they are, of which all may be back by now.

    Where units are still held for one, that is staff's to end.
    """
    if not run.is_thorough:
        return
    noted = Purchase.objects.exclude(problem="").order_by("?")
    for purchase in row_queue.in_time(list(noted), run.until):
        for session_id in payments.noted_sessions(purchase):
            if not payments.awaits_release(purchase, session_id):
                found = _look_again(purchase, session_id, run)
                yield from _guarded("payment that doesn't fit", session_id, found)


def _look_again(purchase: Purchase, session_id: str, run: Run) -> Iterator[Finding]:
    session = stripe_gateway.retrieve_session(session_id)
    if run.dry_run:
        sent_back = refunds.all_of(session.payment_intent_id, amount=session.amount_total)
        is_back, outcome = sent_back is not None, "all of it is back, the note would go"
    else:
        is_back = payments.settle_mismatch(session, purchase, now=run.now, source=run.source)
        outcome = "all of it is back, the note is gone"
    if is_back:
        yield Finding("payment that doesn't fit", f"{session_id} of {purchase.pk}", outcome)


def _sessions(run: Run) -> Iterator[Finding]:
    """Sessions whose state differs from ours, and those that nobody here holds anything for."""
    sessions = row_queue.in_time(stripe_gateway.sessions_since(run.since), run.until)
    while batch := list(islice(sessions, BATCH)):
        references = {session.id: _uuid(session.client_reference_id) for session in batch}
        known = Purchase.objects.in_bulk([ref for ref in references.values() if ref is not None])
        for session in batch:
            reference = references[session.id]
            purchase = known.get(reference) if reference is not None else None
            if purchase is not None:
                found = _compare(session, purchase, run)
                yield from _guarded("session that differs", session.id, found)
            elif reference is not None:
                found = _without_purchase(session, run)
                yield from _guarded("session without a hold", session.id, found)


def _unsettled_payments(run: Run) -> Iterator[Finding]:
    """Delayed payments take days, so their sessions may be older than what was listed."""
    if not run.is_thorough:
        return
    waiting = Purchase.objects.filter(status=Status.PAYMENT_PROCESSING, created_at__lt=run.since)
    # In any order: where time is up before all were asked about, the next run begins with others.
    for purchase in row_queue.in_time(list(waiting.order_by("?")), run.until):
        yield from _guarded("session that differs", str(purchase.pk), _ask_about(purchase, run))


def _ask_about(purchase: Purchase, run: Run) -> Iterator[Finding]:
    session = stripe_gateway.retrieve_session(str(purchase.checkout_session_id))
    yield from _compare(session, purchase, run)


def _compare(session: CheckoutSession, purchase: Purchase, run: Run) -> Iterator[Finding]:
    """Bring one purchase in line with one of its sessions."""
    if purchase.created_at > run.settled_by or _agree(session, purchase):
        return
    state = f"{session.status} and {session.payment_status}"
    about = f"session {session.id} is {state}, purchase {purchase.pk} is {purchase.status}"
    if run.dry_run:
        yield Finding("session that differs", about, "would be put right")
        return
    before = purchase.status
    try:
        if session.is_open:
            session = stripe_gateway.expire_session(session.id)
        payments.record_session(session, now=run.now, source=run.source)
    except PaymentMismatch as error:
        yield Finding("session that differs", about, str(error), is_repaired=False)
        return
    purchase.refresh_from_db()
    # A hold in another hand, a second payment that is known: nothing to tell.
    if purchase.status != before:
        yield Finding("session that differs", about, f"the purchase is {purchase.status} now")
    elif session.status == "expired" and before not in OPEN_HOLDS and "open" in state:
        yield Finding("session without a hold", about, "expired at Stripe")


def _agree(session: CheckoutSession, purchase: Purchase) -> bool:
    """Whether what the session says is on record: most of them, most of the time, without a lock.

    An open session belongs to a hold that waits for it, or will: any other can only do harm.
    """
    if session.is_open:
        return purchase.status == Status.RESERVED or (
            purchase.status == Status.AWAITING_PAYMENT
            and purchase.checkout_session_id == session.id
        )
    if session.is_paid:
        if purchase.status in (*STATUSES_IN_RESERVED_STOCK, Status.RELEASED):
            return False
        return (
            purchase.payment_intent_id == session.payment_intent_id
            or refunds.purchase_of_payment(session.payment_intent_id) == purchase
        )
    if session.status == "complete" and not session.payment_failed:
        return purchase.status not in OPEN_HOLDS
    return (
        purchase.status not in STATUSES_IN_RESERVED_STOCK
        or purchase.checkout_session_id != session.id
    )


def _without_purchase(session: CheckoutSession, run: Run) -> Iterator[Finding]:
    """A session for one of our offers whose purchase isn't here, as after a restored backup.

    Sessions of other installations with the same Stripe account name no offer of ours.
    """
    offer_id = _uuid(session.offer_reference)
    is_ours = offer_id is not None and Offer.objects.filter(pk=offer_id).exists()
    if not is_ours or session.created > run.settled_by:
        return
    about = f"session {session.id}, {session.status} and {session.payment_status}"
    if session.is_open and run.dry_run:
        yield Finding("session without a hold", about, "would be expired")
        return
    was_open = session.is_open
    if was_open:
        session = stripe_gateway.expire_session(session.id)
    if session.is_paid:
        # Once a day, not once a run; without Redis more often.
        if cache.add(f"payment_without_purchase:{session.id}", 1, timeout=86_400):
            alert("payment_without_purchase", session=session.id, payment=session.payment_intent_id)
        said = "paid, but there is no purchase here: refund it in Stripe's dashboard"
        yield Finding("session without a hold", about, said, is_repaired=False)
    elif was_open:
        yield Finding("session without a hold", about, "expired at Stripe")


def _uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text or "")
    except ValueError:
        return None


def _holds_without_session(run: Run) -> Iterator[Finding]:
    """Holds whose request died before it had a session: finished, as a repeated request would.

    Not those whose request may still be at it, whoever runs this: two at once, and one of them
    would be told by Stripe to wait, and take the hold from the buyer.
    """
    crashed = Purchase.objects.filter(
        status=Status.RESERVED,
        created_at__lte=run.now - IN_PROGRESS,
        reserved_until__gt=run.now,
        checkout_failed_at=None,
        problem="",
    )
    for purchase in row_queue.in_time(list(crashed), run.until):
        if run.dry_run:
            yield Finding("hold without a session", str(purchase.pk), "would get one")
            continue
        yield from _guarded("hold without a session", str(purchase.pk), _resume(purchase))


def _resume(purchase: Purchase) -> Iterator[Finding]:
    before = purchase.status
    try:
        checkout.resume(purchase)
    except PaymentProviderUnavailable as error:
        if is_stripe_away(error):
            raise
    except IdempotencyKeyInUse:
        return  # the buyer's own repeated request is at it
    after = Purchase.objects.get(pk=purchase.pk)
    if after.status != before:
        yield Finding("hold without a session", str(purchase.pk), f"{after.status} now")


def _refunds(run: Run) -> Iterator[Finding]:
    """Refunds of which Stripe knows more than we do: those made in its dashboard, above all."""
    for refund in row_queue.in_time(stripe_gateway.refunds_since(run.since), run.until):
        if refund.created > run.settled_by or refunds.is_known(refund):
            continue
        yield from _guarded("missed refund", refund.id, _refund(refund, run))


def _refund(refund: StripeRefund, run: Run) -> Iterator[Finding]:
    if run.dry_run:
        if refunds.purchase_of_payment(refund.payment_intent_id) is not None:
            yield Finding("missed refund", refund.id, "would be recorded")
    elif refunds.record(refund, now=run.now, source=run.source) is not None:
        yield Finding("missed refund", refund.id, refund.status)
