"""A purchase that is killed at Stripe's door: run as a process of its own by test_idempotency."""

import os
import signal
import sys
import uuid
from typing import Any

import django


def main(user_id: str, offer_id: str, key: str, moment: str) -> None:
    """Buy one unit; SIGKILL ourselves ``before`` or ``after`` Stripe has opened the session."""
    django.setup()
    from django.contrib.auth.models import User
    from django.utils import timezone

    from purchases import checkout, stripe_gateway

    ask_stripe = stripe_gateway.create_session

    def die_there(*args: Any, **kwargs: Any) -> Any:
        if moment == "after":
            ask_stripe(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    stripe_gateway.create_session = die_there
    checkout.start(
        user=User.objects.get(pk=user_id),
        offer_id=uuid.UUID(offer_id),
        quantity=1,
        idempotency_key=key,
        site_url="http://testserver",
        now=timezone.now(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
