"""What a process may be doing when it is killed: one step of the service, in its own process.

Arguments come as JSON. What a step returns is of no interest: the process may not live to see it.
"""

import uuid
from typing import Any

import requests
from celery import current_app
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from purchases import checkout, holds, refund_requests, webhooks

current_app.loader.import_default_modules()  # the tasks, as a worker does


def purchase(*, user: int, offer: str, quantity: int, key: str) -> None:
    """The API's `POST purchases/`."""
    checkout.start(
        user=User.objects.get(pk=user),
        offer_id=uuid.UUID(offer),
        quantity=quantity,
        idempotency_key=key,
        site_url="http://testserver",
        now=timezone.now(),
    )


def purchase_when_stripe_recovers(**arguments: Any) -> None:
    """The same, and Stripe, which fails, is well again when it is asked with a new key."""
    next_attempt = checkout._next_attempt

    def recovered(*given: Any) -> Any:
        requests.post(f"{settings.STRIPE_API_BASE}/sandbox/faults", json={}, timeout=10)
        return next_attempt(*given)

    checkout._next_attempt = recovered
    purchase(**arguments)


def cancel(*, user: int, purchase: str) -> None:
    """The API's `POST purchases/{id}/cancel/`."""
    holds.cancel(
        purchase_id=uuid.UUID(purchase), user=User.objects.get(pk=user), now=timezone.now()
    )


def refund(*, user: int, purchase: str) -> None:
    """The API's `POST purchases/{id}/refund/`, asked by one of the organization's owners."""
    refund_requests.request(
        purchase_id=uuid.UUID(purchase),
        actor=User.objects.get(pk=user),
        source="api",
        now=timezone.now(),
    )


def webhook(*, payload: str, signature: str) -> None:
    """The API's `POST webhooks/stripe/`."""
    webhooks.receive(payload.encode(), signature, now=timezone.now())


def task(*, name: str) -> None:
    """What a worker does with a task's message."""
    current_app.tasks[name]()


STEPS = {
    step.__name__: step
    for step in (purchase, purchase_when_stripe_recovers, cancel, refund, webhook, task)
}
