"""What `manage.py check` says about the settings of this app."""

from typing import Any

from django.conf import settings
from django.core import checks


@checks.register(checks.Tags.security, deploy=True)
def webhook_secret_is_set(**_: Any) -> list[checks.Warning]:
    """Without a secret every webhook is refused, and purchases are paid minutes late."""
    if settings.STRIPE_WEBHOOK_SECRETS:
        return []
    return [
        checks.Warning(
            "STRIPE_WEBHOOK_SECRETS is not set, so every webhook of Stripe's is refused.",
            hint="Copy the endpoint's signing secret (whsec_…) from Stripe's dashboard.",
            id="purchases.W001",
        )
    ]
