"""An event is written down for each endpoint that wants it; ``deliveries`` sends it.

Both happen or neither: the rows are stored in the transaction that makes the event true.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import UUIDField

from offers.prepared import Given, Query
from offers.wake import wake
from purchases.errors import EndpointInactive
from purchases.subscribers.models import WebhookDelivery, WebhookEndpoint

# Every event there is. docs/webhooks.md shows one of each.
TYPES = {
    "purchase.paid": "A purchase is paid",
    "purchase.refunded": "A purchase is refunded in full",
    "fulfillment.fulfilled": "What was bought is in the buyer's hands",
    "fulfillment.failed": "It could not be delivered, and staff must look",
    "fulfillment.revoked": "It was taken back after a refund",
    "fulfillment.shipped": "A parcel is on its way",
    "booking.changed": "A buyer chose, moved or cancelled a time",
}
# Sent on demand only, whatever the endpoint chose.
TEST = "webhook.test"
# The task that sends them.
SWEEP = "purchases.deliver_webhooks"

_ACTIVE = Query(
    lambda: WebhookEndpoint.objects.filter(
        organization=Given("organization", UUIDField()), is_active=True
    ).only("pk", "event_types")
)


def publish(
    *,
    organization_id: uuid.UUID,
    type: str,  # noqa: A002 - the convention's word for it
    key: str,
    data: Mapping[str, Any],
    now: datetime,
) -> None:
    """Have the organization's endpoints told of something, once for each ``key``.

    Called inside the transaction that makes it true; locks nothing, asks no network. Where nobody
    subscribed it costs one query. ``key`` names the occasion among all of the organization's, for
    example ``"purchase.paid:<id>"``; a second event with it is none. ``data`` is what JSON can
    hold, and UUIDs, times and decimals. Raises ``ValueError`` for a type that isn't in ``TYPES``.
    """
    if type not in TYPES:
        raise ValueError(f"{type!r} is no event: add it to purchases.subscribers.publishing.TYPES.")
    wanting = [e for e in _ACTIVE.all(organization=organization_id) if e.wants(type)]
    if wanting:
        _store(wanting, type=type, key=key, data=data, now=now)


def ping(endpoint_id: uuid.UUID, *, now: datetime) -> None:
    """Send a test event, now: staff's way to see whether an endpoint works.

    Raises ``EndpointInactive``.
    """
    with transaction.atomic():
        # It may be left alone after failures, which this ends: somebody is waiting to see it.
        woken = WebhookEndpoint.objects.filter(pk=endpoint_id, is_active=True).update(due_at=now)
        if not woken:
            raise EndpointInactive
        data = {"message": "A test. Nothing has happened."}
        endpoint = WebhookEndpoint(pk=endpoint_id)
        _store([endpoint], type=TEST, key=f"{TEST}:{uuid.uuid4()}", data=data, now=now)


def _store(
    endpoints: list[WebhookEndpoint],
    *,
    type: str,  # noqa: A002 - as above
    key: str,
    data: Mapping[str, Any],
    now: datetime,
) -> None:
    timestamp = now.astimezone(UTC).isoformat().replace("+00:00", "Z")
    payload = {"type": type, "timestamp": timestamp, "data": dict(data)}
    WebhookDelivery.objects.bulk_create(
        [
            WebhookDelivery(
                endpoint=endpoint, key=key, type=type, payload=payload, due_at=now, created_at=now
            )
            for endpoint in endpoints
        ],
        ignore_conflicts=True,
    )
    transaction.on_commit(lambda: wake(SWEEP, together=SWEEP))
