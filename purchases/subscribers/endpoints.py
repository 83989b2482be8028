"""What staff do with an endpoint, apart from editing it."""

import uuid
from datetime import datetime, timedelta

from django.db import transaction

from purchases.errors import SecretJustRotated
from purchases.subscribers.models import WebhookEndpoint, new_secret

# What one organization can tie up; others' events wait behind those of slow endpoints.
MOST = 10
# How long receivers have to take the new secret over.
ROTATION = timedelta(hours=24)


def rotate_secret(endpoint_id: uuid.UUID, *, now: datetime) -> None:
    """Give the endpoint a new secret; events are signed with the old one too for ``ROTATION``.

    Called by the admin; locks the endpoint. Raises ``SecretJustRotated``.
    """
    with transaction.atomic():
        endpoint = WebhookEndpoint.objects.select_for_update(no_key=True).get(pk=endpoint_id)
        if len(endpoint.secrets_at(now)) > 1:
            raise SecretJustRotated
        endpoint.previous_secret, endpoint.secret = endpoint.secret, new_secret()
        endpoint.previous_secret_until = now + ROTATION
        endpoint.save(update_fields=["secret", "previous_secret", "previous_secret_until"])


def begin_anew(endpoint_id: uuid.UUID, *, now: datetime) -> None:
    """Forget the failures of before: staff made it active again, or gave it another address."""
    WebhookEndpoint.objects.filter(pk=endpoint_id).update(
        disabled_reason="", failing_since=None, attempts=0, due_at=now
    )
