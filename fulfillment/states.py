"""The life of a fulfilment: one table of what may follow what.

The diagram in the README is drawn from this table (``manage.py state_diagram``).
"""

from dataclasses import dataclass

from django.db import models

from offers.models import Offer


class Type(models.TextChoices):
    DIGITAL = "DIGITAL"
    TICKET = "TICKET"
    PHYSICAL = "PHYSICAL"
    SERVICE = "SERVICE"


# What an offer's units become.
TYPE_OF_OFFER = {
    Offer.Type.EXCLUSIVE_CONTENT: Type.DIGITAL,
    Offer.Type.TICKET_UPGRADE: Type.TICKET,
    Offer.Type.MERCHANDISE: Type.PHYSICAL,
    Offer.Type.SERVICE: Type.SERVICE,
}


class Status(models.TextChoices):
    """``PROCESSING`` is a worker's for a moment, or a person's: to ship, to pick a time."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    FULFILLED = "FULFILLED"
    FAILED = "FAILED"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class Transition:
    """One thing that can happen to a fulfilment. ``label`` is what the diagram says."""

    name: str
    label: str
    sources: tuple[Status, ...]
    target: Status


PUT_OFF = Transition("put_off", "failed, tried again later", (Status.PROCESSING,), Status.PENDING)
HAND_OVER = Transition("hand_over", "a person has to act", (Status.FAILED,), Status.PROCESSING)
FULFILL = Transition(
    "fulfill",
    "the attendee has it",
    (Status.PENDING, Status.PROCESSING, Status.FAILED),
    Status.FULFILLED,
)
FAIL = Transition("fail", "can't be delivered", (Status.PENDING, Status.PROCESSING), Status.FAILED)
REOPEN = Transition("reopen", "a booking was cancelled", (Status.FULFILLED,), Status.PROCESSING)
RETRY = Transition("retry", "staff try again", (Status.PENDING, Status.FAILED), Status.PENDING)
REVOKE = Transition(
    "revoke",
    "refunded",
    (Status.PENDING, Status.PROCESSING, Status.FULFILLED, Status.FAILED),
    Status.REVOKED,
)

TRANSITIONS = (PUT_OFF, HAND_OVER, FULFILL, FAIL, REOPEN, RETRY, REVOKE)


def state_diagram() -> str:
    """The table as a Mermaid state diagram, for the README."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.PENDING}: paid"]
    lines.append(f"    {Status.PENDING} --> {Status.PROCESSING}: a worker takes it")
    lines += [
        f"    {source} --> {transition.target}: {transition.label}"
        for transition in TRANSITIONS
        for source in transition.sources
        if source != transition.target
    ]
    return "\n".join(lines)
