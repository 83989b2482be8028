"""Stripe's webhooks: verified, stored and committed, then processed.

Stored first means that an event is never lost: what fails keeps its traceback and is processed
again by the sweep or by ``replay_events``. The same event any number of times is harmless, because
``payments`` decides under the purchase's lock.
"""

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from offers.errors import DomainError
from purchases import payments, stripe_gateway
from purchases.models import Purchase, StripeEvent
from purchases.stripe_gateway import CheckoutSession

logger = structlog.get_logger(__name__)

Handler = Callable[..., Purchase | None]

SESSION_HANDLERS: dict[str, Handler] = {
    "checkout.session.completed": payments.record_session,
    "checkout.session.expired": payments.record_session,
    "checkout.session.async_payment_succeeded": payments.record_session,
    "checkout.session.async_payment_failed": payments.record_failure,
}

# An event without an outcome is left to the request that stored it for so long.
IN_PROCESS = timedelta(seconds=60)
LONGEST_DELAY = timedelta(hours=1)


def receive(payload: bytes, signature: str, *, now: datetime) -> StripeEvent:
    """Store a webhook and process it; called by the API with the raw body.

    Raises ``InvalidWebhook`` before anything is stored. Once it is stored, a failure to process it
    is ours to repeat, not Stripe's: it is on record, and this returns.
    """
    data = stripe_gateway.verify_webhook(payload, signature)
    event, created = StripeEvent.objects.get_or_create(
        id=data["id"],
        defaults={
            "type": data["type"],
            "created": datetime.fromtimestamp(data["created"], UTC),
            "payload": data,
            "received_at": now,
        },
    )
    if created or event.state in (StripeEvent.State.STORED, StripeEvent.State.FAILED):
        process(event, now=now)
    return event


def process(event: StripeEvent, *, now: datetime) -> StripeEvent:
    """Apply one stored event and note the outcome on it; what it raises itself is noted too."""
    try:
        state, note = _dispatch(event, now=now)
    except Exception as error:
        # Anything at all: the event is stored and must not be lost to a bug of ours.
        event.state = StripeEvent.State.FAILED
        event.error = traceback.format_exc()
        expected = isinstance(error, DomainError)
        logger.error(  # noqa: TRY400 - the traceback of an expected refusal says nothing
            "stripe event failed",
            event_id=event.pk,
            event_type=event.type,
            error=f"{type(error).__name__}: {error}",
            exc_info=not expected,
        )
    else:
        event.state, event.error = state, note
        event.processed_at = timezone.now()
    delay = min(timedelta(seconds=15) * 2 ** min(event.attempts, 10), LONGEST_DELAY)
    StripeEvent.objects.filter(pk=event.pk).update(
        state=event.state,
        error=event.error,
        processed_at=event.processed_at,
        attempts=F("attempts") + 1,
        retry_after=timezone.now() + delay,
    )
    return event


def _dispatch(event: StripeEvent, *, now: datetime) -> tuple[StripeEvent.State, str]:
    handler = SESSION_HANDLERS.get(event.type)
    if handler is None:
        return StripeEvent.State.IGNORED, "Nothing here depends on events of this type."
    session = CheckoutSession.parse(event.payload["data"]["object"])
    if session.livemode != stripe_gateway.is_live():
        return StripeEvent.State.IGNORED, "Live and test mode don't mix: not of our key's mode."
    purchase = handler(session, now=now, source="webhook")
    if purchase is None:
        return StripeEvent.State.IGNORED, f"No purchase here has the session {session.id}."
    return StripeEvent.State.PROCESSED, ""


def unprocessed(*, now: datetime) -> QuerySet[StripeEvent]:
    """Events that failed, or whose request died after storing them, and whose time has come."""
    died = Q(retry_after__isnull=True, received_at__lte=now - IN_PROCESS)
    return StripeEvent.objects.filter(
        died | Q(retry_after__lte=now),
        state__in=[StripeEvent.State.STORED, StripeEvent.State.FAILED],
    )


def process_unprocessed(*, now: datetime, limit: int = 500) -> int:
    """Process what is left over, oldest first; called by the sweep. Returns how many succeeded."""
    done = 0
    for event in list(unprocessed(now=now).order_by("created")[:limit]):
        process(event, now=now)
        done += event.state != StripeEvent.State.FAILED
    return done
