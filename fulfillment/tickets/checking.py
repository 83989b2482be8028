"""What the code of a ticket upgrade tells staff at the door: look, and let in."""

from typing import Any

from django.db import models

from fulfillment.models import Fulfillment
from fulfillment.tickets.models import TicketUpgrade

TEMPLATE = "fulfillment/check_in/ticket.html"


class Validity(models.TextChoices):
    VALID = "valid"
    SUPERSEDED = "superseded"
    REFUNDED = "refunded"


def find(code: str) -> Fulfillment | None:
    """See ``fulfillment.codes.checking.KINDS``, as for the others."""
    return (
        Fulfillment.objects.filter(ticket_upgrade__code=code)
        .select_related(
            "purchase__event",
            "ticket_upgrade__to_tier",
            "ticket_upgrade__registration__user",
            "ticket_upgrade__registration__event",
            "ticket_upgrade__registration__ticket_tier",
        )
        .first()
    )


def code_of(fulfillment: Fulfillment) -> str | None:
    if not fulfillment.is_handed_out:
        return None
    return (
        TicketUpgrade.objects.filter(fulfillment=fulfillment).values_list("code", flat=True).first()
    )


def show(fulfillment: Fulfillment) -> dict[str, Any]:
    upgrade: TicketUpgrade = fulfillment.ticket_upgrade
    later = upgrade.superseded_by()
    if not fulfillment.is_handed_out:
        validity = Validity.REFUNDED
    elif later is not None:
        validity = Validity.SUPERSEDED
    else:
        validity = Validity.VALID
    return {
        "upgrade": upgrade,
        "registration": upgrade.registration,
        "validity": validity,
        "superseded_by": later,
    }
