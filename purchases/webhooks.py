"""Stripe's webhooks: verified, stored and committed, then processed.

Stored first means that an event is never lost: what fails keeps its traceback and is processed
again by the sweep or by ``replay_events``. The same event any number of times is harmless, because
``payments``, ``refunds`` and ``disputes`` decide under the purchase's lock.
"""

import math
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from offers import metrics, row_queue
from offers.contention import drop_broken_connection, lock_wait
from offers.error_texts import in_words, traceback_of
from offers.errors import DomainError, database_is_busy
from offers.prepared import Insert
from offers.wake import wake
from purchases import disputes, payments, refunds, stripe_gateway, stripe_objects
from purchases.activity import alert
from purchases.errors import AskStripeLater, is_stripe_away
from purchases.models import Purchase, StripeEvent
from purchases.stripe_objects import CheckoutSession

logger = structlog.get_logger(__name__)

# An event is left so long to the request or worker that has it.
LEASE = timedelta(seconds=60)
# Milliseconds. A webhook's answer doesn't wait longer for a row: the worker has more time.
INLINE_LOCK_WAIT = 1000
# About five hours of tries; after that a person has to look.
ATTEMPTS = 12
# What is in Stripe's or the database's way, and not in the event, is tried again without counting.
PUT_OFF = timedelta(seconds=15)

_NEW = Insert(StripeEvent)


@dataclass(frozen=True)
class Occurrence:
    """An event as its handler gets it. ``may_ask``: whether Stripe may be asked about it."""

    type: str
    created: datetime
    data: dict[str, Any]
    now: datetime
    may_ask: bool


def receive(payload: bytes, signature: str, *, now: datetime) -> StripeEvent:
    """Store a webhook and process it; called by the API with the raw body.

    Raises ``InvalidWebhook`` before anything is stored. Once it is stored, a failure to process it
    is ours to repeat, not Stripe's: it is on record, and this returns. Processing it here takes
    no longer than some locks do; the rest is left to the worker.
    """
    data = stripe_gateway.verify_webhook(payload, signature)
    event, is_new = store(data, now=now)
    if is_new:
        process(event, now=now, inline=True)
    return event


def store(data: dict[str, Any], *, now: datetime) -> tuple[StripeEvent, bool]:
    """Store an event once and return it, and whether it is new; a new one is the caller's to do."""
    event = StripeEvent(
        id=data["id"],
        type=data["type"],
        created=datetime.fromtimestamp(data["created"], UTC),
        payload=data,
        received_at=now,
        attempts=1,
        due_at=timezone.now() + LEASE,
    )
    is_new = _NEW.run_once(event)
    return event if is_new else StripeEvent.objects.get(pk=event.pk), is_new


def process(
    event: StripeEvent, *, now: datetime, inline: bool = False, may_ask: bool = True
) -> StripeEvent:
    """Apply one event that the caller has claimed, and note the outcome on it.

    ``inline`` is for the request that brought it: a matter of milliseconds, or left to the worker.
    Without ``may_ask`` what needs an answer of Stripe's is put off. Raises nothing but what the
    database does when it can't be told the outcome; the claim's end brings the event back then.
    """
    claim = event.due_at
    try:
        with lock_wait(INLINE_LOCK_WAIT) if inline else nullcontext():
            may_ask = may_ask and not inline
            event.state, event.error = _dispatch(event, now=now, may_ask=may_ask)
        event.processed_at = timezone.now()
        metrics.event_lag.observe((event.processed_at - event.created).total_seconds())
    except AskStripeLater:
        event.attempts -= 1
        event.due_at = timezone.now() + (timedelta(0) if inline else PUT_OFF)
    except Exception as error:  # noqa: BLE001 - the event is stored; no bug of ours may lose it
        drop_broken_connection()
        if inline and database_is_busy(error):
            event.attempts -= 1
            event.due_at = timezone.now()
        else:
            _note_failure(event, error)
    # Who was so slow that the claim went to somebody else has nothing to say any more.
    StripeEvent.objects.filter(pk=event.pk, due_at=claim).update(
        state=event.state,
        error=event.error,
        processed_at=event.processed_at,
        attempts=event.attempts,
        due_at=event.due_at,
    )
    if inline and event.state == StripeEvent.State.STORED:
        wake("purchases.process_events")
    return event


def _note_failure(event: StripeEvent, error: Exception) -> None:
    event.state = StripeEvent.State.FAILED
    event.error = traceback_of(error)
    logger.error(
        "stripe event failed",
        event_id=event.pk,
        event_type=event.type,
        error=in_words(error),
        # The traceback of an expected refusal says nothing.
        exc_info=None if isinstance(error, DomainError) else error,
    )
    if is_stripe_away(error) or database_is_busy(error):
        event.attempts -= 1
        event.due_at = timezone.now() + PUT_OFF
    elif event.attempts >= ATTEMPTS:
        event.state = StripeEvent.State.DEAD
        alert("dead_event", event_id=event.pk, event_type=event.type, error=in_words(error))
    else:
        event.due_at = timezone.now() + row_queue.delay(event.attempts)


def unprocessed(*, now: datetime) -> QuerySet[StripeEvent]:
    """Events that failed, or whose request died after storing them, and whose time has come."""
    return StripeEvent.objects.filter(
        due_at__lte=now,
        state__in=[StripeEvent.State.STORED, StripeEvent.State.FAILED],
    )


def process_unprocessed(*, now: datetime, limit: int = 500, until: float = math.inf) -> int:
    """Process what is left over, oldest first; called by the sweep. Returns how many succeeded.

    Claimed one by one: an event may take as long as Stripe does. Once Stripe is away it isn't asked
    again, and what needs it is put off; the others still get their turn.
    """
    done, may_ask = 0, True
    for _ in row_queue.in_time(range(limit), until):
        due = unprocessed(now=now).order_by("created")
        claimed = row_queue.claim(due, clock=timezone.now(), lease=LEASE, limit=1)
        if not claimed:
            break
        event = process(claimed[0], now=now, may_ask=may_ask)
        done += event.state in (StripeEvent.State.PROCESSED, StripeEvent.State.IGNORED)
        if event.state == StripeEvent.State.FAILED:
            may_ask = stripe_gateway.is_available()
    return done


def replay(event: StripeEvent, *, now: datetime) -> StripeEvent:
    """Process an event again, whatever became of it; called by staff. A dead one lives again."""
    event.due_at = timezone.now() + LEASE
    event.attempts = 1 if event.state == StripeEvent.State.DEAD else event.attempts + 1
    event.save(update_fields=["due_at", "attempts"])
    return process(event, now=now)


def replay_later(keys: Collection[str], *, now: datetime) -> None:
    """Have the worker process events again, however many; called by staff.

    One that is being processed at this moment is done twice, which is harmless; who had claimed it
    has nothing to say about the outcome any more.
    """
    StripeEvent.objects.filter(pk__in=keys).update(
        state=StripeEvent.State.STORED, attempts=0, due_at=now
    )
    wake("purchases.process_events")


# -- What each type means -------------------------------------------------------------------------


def _dispatch(event: StripeEvent, *, now: datetime, may_ask: bool) -> tuple[StripeEvent.State, str]:
    handler = HANDLERS.get(event.type)
    if handler is None:
        return StripeEvent.State.IGNORED, "Nothing here depends on events of this type."
    data = event.payload["data"]["object"]
    # Not every object says so itself, but each event does.
    if data.get("livemode", event.payload.get("livemode")) is not stripe_gateway.is_live():
        return StripeEvent.State.IGNORED, "Live and test mode don't mix: not of our key's mode."
    purchase = handler(Occurrence(event.type, event.created, data, now, may_ask))
    if purchase is None:
        return StripeEvent.State.IGNORED, f"No purchase here has to do with {data.get('id')}."
    return StripeEvent.State.PROCESSED, ""


def _session(event: Occurrence) -> Purchase | None:
    session = CheckoutSession.parse(event.data, paid_at=event.created)
    return payments.record_session(session, now=event.now, source="webhook", may_ask=event.may_ask)


def _session_failed(event: Occurrence) -> Purchase | None:
    session = CheckoutSession.parse(event.data)
    return payments.record_failure(session, now=event.now, source="webhook")


def _refund(event: Occurrence) -> Purchase | None:
    refund = stripe_objects.Refund.parse(event.data)

    def record() -> Purchase | None:
        return refunds.record(refund, now=event.now, source="webhook")

    return record() or _after_the_payment(refund.payment_intent_id, record, event)


def _charge_refunded(event: Occurrence) -> Purchase | None:
    """Something of a charge was refunded; the refund's own event tells what, unless it got lost."""
    payment = event.data.get("payment_intent") or ""
    found = refunds.purchase_of_payment(payment)
    if found is None:
        return _after_the_payment(payment, lambda: _charge_refunded(event), event)
    if refunds.is_all_known(payment, event.data["amount_refunded"], event.data["currency"]):
        return found
    if not event.may_ask:
        raise AskStripeLater
    for refund in stripe_gateway.refunds_of(payment):
        refunds.record(refund, now=event.now, source="webhook")
    return found


def _dispute(event: Occurrence) -> Purchase | None:
    def record() -> Purchase | None:
        return disputes.record(event.data, event_type=event.type, happened_at=event.created)

    return record() or _after_the_payment(event.data.get("payment_intent") or "", record, event)


def _after_the_payment(
    payment_intent_id: str, record: Callable[[], Purchase | None], event: Occurrence
) -> Purchase | None:
    """Record what has overtaken the news of its own payment, by asking Stripe for those first."""
    if not payment_intent_id:
        return None
    if not event.may_ask:
        raise AskStripeLater
    session = stripe_gateway.session_of_payment(payment_intent_id)
    if session is None:
        return None
    purchase = payments.record_session(session, now=event.now, source="webhook")
    if purchase is None or not refunds.purchase_of_payment(payment_intent_id):
        return None
    return record()


HANDLERS: dict[str, Callable[[Occurrence], Purchase | None]] = {
    "checkout.session.completed": _session,
    "checkout.session.expired": _session,
    "checkout.session.async_payment_succeeded": _session,
    "checkout.session.async_payment_failed": _session_failed,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.refunded": _charge_refunded,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
}
