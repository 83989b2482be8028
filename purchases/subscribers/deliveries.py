"""Events on their way: claimed, signed, sent, and sent again until they are accepted.

A slow or dead endpoint costs the others little. Endpoints take turns, each is one process's at a
time, and one that doesn't answer is left alone for a while with all that waits for it.
"""

import json
import threading
import time
import uuid
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from standardwebhooks import Webhook

from offers import row_queue
from offers.contention import drop_broken_connection
from offers.wake import wake
from purchases.activity import alert
from purchases.errors import EndpointInactive
from purchases.subscribers.models import WebhookDelivery, WebhookEndpoint
from purchases.subscribers.transport import Answer, post

logger = structlog.get_logger("purchases")

# Longer than a turn with a slow last request takes; after a crash an event may go out twice.
LEASE = timedelta(minutes=3)
# How long an event is tried for, and how far apart the last attempts are: about 20 in all.
PATIENCE = timedelta(days=3)
LONGEST_DELAY = timedelta(hours=6)
# How long an endpoint that doesn't answer is left alone at most; then one event tries it out.
LONGEST_REST = timedelta(minutes=10)
# After so long without accepting anything it is disabled.
HOPELESS = timedelta(days=5)
# One turn of an endpoint: so many events, or seconds. A sweep begins none after so many seconds.
TURN_EVENTS, TURN_SECONDS, SWEEP_SECONDS = 20, 10, 20
# Answers of a server that has too much to do. (Anything else but 2xx is about the event.)
OVERLOADED = (429, 502, 503, 504)

# Sweeps of one process, fewer than the worker's four threads: payments must go on meanwhile.
_sweeps = threading.BoundedSemaphore(2)


def send_due(*, now: datetime, limit: int = 200) -> int:
    """Send up to ``limit`` events that are due; called by the sweep. Returns how many arrived.

    Called outside any transaction. Does nothing where this process is sending enough already.
    """
    if not _sweeps.acquire(blocking=False):
        return 0
    try:
        arrived = 0
        over_at = time.monotonic() + SWEEP_SECONDS
        while limit > 0 and time.monotonic() < over_at:
            clock = timezone.now()
            due = _endpoints_due(max(now, clock))
            claimed = row_queue.claim(due, clock=clock, lease=LEASE, limit=1)
            if not claimed:
                break
            sent, accepted = _take_turn(claimed[0], now=now, limit=min(limit, TURN_EVENTS))
            arrived += accepted
            limit -= max(1, sent)
        return arrived
    finally:
        _sweeps.release()


def resend(delivery_id: uuid.UUID, *, now: datetime) -> None:
    """Send an event again, now, whatever became of it; called by the admin.

    It keeps its ``webhook-id``, so that a receiver that has it knows. One that is older than
    ``PATIENCE`` gets this attempt and no more. Raises ``EndpointInactive``.
    """
    with transaction.atomic():
        delivery = (
            WebhookDelivery.objects.select_for_update(of=("self",), no_key=True)
            .select_related("endpoint")
            .get(pk=delivery_id)
        )
        if not delivery.endpoint.is_active:
            raise EndpointInactive
        delivery.state, delivery.due_at = WebhookDelivery.State.WAITING, now
        delivery.save(update_fields=["state", "due_at"])
        # It may be left alone after failures, which this ends.
        WebhookEndpoint.objects.filter(pk=delivery.endpoint_id).update(due_at=now)
        transaction.on_commit(lambda: wake("purchases.deliver_webhooks"))


def _due(moment: datetime) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(state=WebhookDelivery.State.WAITING, due_at__lte=moment)


def _endpoints_due(moment: datetime) -> QuerySet[WebhookEndpoint]:
    """Those something waits for, the one whose last turn is longest ago first."""
    waiting = _due(moment).filter(endpoint=OuterRef("pk"))
    return WebhookEndpoint.objects.filter(
        Exists(waiting), is_active=True, due_at__lte=moment
    ).order_by("due_at")


def _take_turn(endpoint: WebhookEndpoint, *, now: datetime, limit: int) -> tuple[int, int]:
    """Send what is due to an endpoint that was claimed. Returns how many went out and arrived."""
    sent = accepted = 0
    is_reachable = True
    over_at = time.monotonic() + TURN_SECONDS
    while is_reachable and sent < limit and time.monotonic() < over_at:
        clock = timezone.now()
        due = _due(max(now, clock)).filter(endpoint=endpoint, endpoint__is_active=True)
        # Read afresh with each event: staff may have changed the address or the secret.
        claimed = row_queue.claim(
            due.select_related("endpoint").order_by("due_at", "created_at"),
            clock=clock,
            lease=LEASE,
            limit=1,
        )
        if not claimed:
            break
        answer = _send(claimed[0])
        sent += 1
        accepted += answer.is_accepted
        is_reachable = answer.status is not None and answer.status not in OVERLOADED
    rest = timedelta()
    if not is_reachable:
        rest = row_queue.delay(endpoint.attempts, longest=LONGEST_REST)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(
        due_at=timezone.now() + rest, attempts=0 if is_reachable else endpoint.attempts
    )
    return sent, accepted


def _send(delivery: WebhookDelivery) -> Answer:
    """One attempt, and what came of it on record."""
    try:
        body, headers = _message(delivery, at=timezone.now())
        url = delivery.endpoint.url
        connection.close()  # the other side takes its time
        answer = post(url, body, headers)
    except Exception as error:  # whatever it is: one event must not stop the others
        logger.exception("webhook failed", delivery_id=str(delivery.pk))
        drop_broken_connection()
        answer = Answer(None, "", f"It could not be sent: {type(error).__name__}.", 0)
    _record(delivery, answer, clock=timezone.now())
    logger.info(
        "webhook",
        action="deliver_webhook",
        delivery_id=str(delivery.pk),
        endpoint_id=str(delivery.endpoint_id),
        type=delivery.type,
        attempt=delivery.attempts,
        status=answer.status,
        error=answer.error,
        duration_ms=answer.milliseconds,
    )
    return answer


def _message(delivery: WebhookDelivery, *, at: datetime) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an attempt ``at`` a time; of all attempts only time and signature differ.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    # PostgreSQL keeps no order of keys; people read these first.
    payload = {name: delivery.payload[name] for name in ("type", "timestamp", "data")}
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    signatures = [
        Webhook(secret).sign(delivery.message_id, at, body)
        for secret in delivery.endpoint.secrets_at(at)
    ]
    return body.encode(), {
        "Content-Type": "application/json",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _record(delivery: WebhookDelivery, answer: Answer, *, clock: datetime) -> None:
    """Write down what came of an attempt, for the event and for its endpoint."""
    facts: dict[str, Any] = {
        "response_status": answer.status,
        "response_body": answer.body,
        "error": answer.error,
        "duration_ms": answer.milliseconds,
        "last_attempt_at": clock,
    }
    if answer.is_accepted:
        _record_success(delivery, facts, clock=clock)
    else:
        _record_failure(delivery, answer, facts, clock=clock)


def _record_success(delivery: WebhookDelivery, facts: dict[str, Any], *, clock: datetime) -> None:
    with transaction.atomic():
        WebhookDelivery.objects.filter(pk=delivery.pk).update(
            state=WebhookDelivery.State.DELIVERED, delivered_at=clock, **facts
        )
        if delivery.endpoint.failing_since is not None:
            WebhookEndpoint.objects.filter(pk=delivery.endpoint_id).update(failing_since=None)


def _record_failure(
    delivery: WebhookDelivery, answer: Answer, facts: dict[str, Any], *, clock: datetime
) -> None:
    is_gone = answer.status == 410
    is_over = is_gone or clock >= delivery.created_at + PATIENCE
    pause = row_queue.delay(delivery.attempts, longest=LONGEST_DELAY)
    failing_since = delivery.endpoint.failing_since or clock
    with transaction.atomic():
        # Not if somebody else took it over, after our lease: theirs is the newer answer.
        WebhookDelivery.objects.filter(
            pk=delivery.pk, attempts=delivery.attempts, state=WebhookDelivery.State.WAITING
        ).update(
            state=WebhookDelivery.State.GIVEN_UP if is_over else WebhookDelivery.State.WAITING,
            due_at=clock + pause,
            **facts,
        )
        WebhookEndpoint.objects.filter(pk=delivery.endpoint_id, failing_since=None).update(
            failing_since=failing_since
        )
    if is_gone:
        _disable(delivery.endpoint, "It answered 410 Gone: it wants no more events.")
    elif clock >= failing_since + HOPELESS:
        _disable(delivery.endpoint, f"It accepted nothing for {HOPELESS.days} days.")


def _disable(endpoint: WebhookEndpoint, reason: str) -> None:
    if WebhookEndpoint.objects.filter(pk=endpoint.pk, is_active=True).update(
        is_active=False, disabled_reason=reason
    ):
        alert(
            "webhook_endpoint_disabled",
            endpoint_id=str(endpoint.pk),
            organization_id=str(endpoint.organization_id),
            reason=reason,
        )
