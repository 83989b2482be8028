"""The life of a purchase: one table of what may follow what, and which stock that moves.

The diagram in the README is drawn from this table (``manage.py state_diagram``).
"""

from dataclasses import dataclass
from enum import Enum

from django.db import models


class Status(models.TextChoices):
    RESERVED = "reserved"
    AWAITING_PAYMENT = "awaiting_payment"
    PAYMENT_PROCESSING = "payment_processing"
    PAID = "paid"
    REFUND_DUE = "refund_due"
    REFUNDING = "refunding"
    REFUNDED = "refunded"
    RELEASED = "released"


class ReleaseReason(models.TextChoices):
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    PAYMENT_FAILED = "payment_failed"
    PROVIDER_ERROR = "provider_error"
    STAFF = "staff"


class Stock(Enum):
    """Which counter of the offer a purchase's units are in."""

    RESERVED = "reserved"
    SOLD = "sold"
    NONE = "none"


OCCUPIES = {
    Status.RESERVED: Stock.RESERVED,
    Status.AWAITING_PAYMENT: Stock.RESERVED,
    Status.PAYMENT_PROCESSING: Stock.RESERVED,
    Status.PAID: Stock.SOLD,
    Status.REFUND_DUE: Stock.NONE,
    Status.REFUNDING: Stock.SOLD,
    Status.REFUNDED: Stock.NONE,
    Status.RELEASED: Stock.NONE,
}

# A hold that nobody has paid: it counts against the user's cap and may be cancelled.
OPEN_HOLDS = (Status.RESERVED, Status.AWAITING_PAYMENT)
# Something is still to come, without anybody at the purchase's page: it looks again by itself.
UNSETTLED = (*OPEN_HOLDS, Status.PAYMENT_PROCESSING, Status.REFUND_DUE, Status.REFUNDING)
# What is to be delivered, and what is to be taken back.
FULFILLMENT_HEARS_OF = (Status.PAID, Status.REFUNDED)
STATUSES_IN_RESERVED_STOCK = tuple(s for s, stock in OCCUPIES.items() if stock is Stock.RESERVED)
STATUSES_IN_SOLD_STOCK = tuple(s for s, stock in OCCUPIES.items() if stock is Stock.SOLD)


@dataclass(frozen=True)
class Transition:
    """One thing that can happen to a purchase. ``label`` is what the diagram says."""

    name: str
    label: str
    sources: tuple[Status, ...]
    target: Status


OPEN_CHECKOUT = Transition(
    "open_checkout", "Checkout Session opened", (Status.RESERVED,), Status.AWAITING_PAYMENT
)
AWAIT_SETTLEMENT = Transition(
    "await_settlement",
    "paid by a delayed method",
    (Status.RESERVED, Status.AWAITING_PAYMENT),
    Status.PAYMENT_PROCESSING,
)
PAY = Transition(
    "pay",
    "Stripe says paid",
    (Status.RESERVED, Status.AWAITING_PAYMENT, Status.PAYMENT_PROCESSING),
    Status.PAID,
)
RELEASE = Transition(
    "release",
    "can't be paid any more",
    (Status.RESERVED, Status.AWAITING_PAYMENT, Status.PAYMENT_PROCESSING),
    Status.RELEASED,
)
PAY_LATE = Transition("pay_late", "paid late, stock left", (Status.RELEASED,), Status.PAID)
OWE_REFUND = Transition(
    "owe_refund", "paid late, nothing left", (Status.RELEASED,), Status.REFUND_DUE
)
REQUEST_REFUND = Transition(
    "request_refund", "full refund asked for", (Status.PAID,), Status.REFUNDING
)
REFUND_FAILED = Transition(
    "refund_failed", "refund failed at Stripe", (Status.REFUNDING,), Status.PAID
)
REFUND = Transition(
    "refund",
    "Stripe says refunded",
    (Status.PAID, Status.REFUNDING, Status.REFUND_DUE),
    Status.REFUNDED,
)
REFUND_RETURNED = Transition(
    "return_refund", "refund failed after all", (Status.REFUNDED,), Status.REFUND_DUE
)

TRANSITIONS = (
    OPEN_CHECKOUT,
    AWAIT_SETTLEMENT,
    PAY,
    RELEASE,
    PAY_LATE,
    OWE_REFUND,
    REQUEST_REFUND,
    REFUND_FAILED,
    REFUND,
    REFUND_RETURNED,
)


def state_diagram() -> str:
    """The table as a Mermaid state diagram, for the README."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.RESERVED}: hold"]
    lines += [
        f"    {source} --> {transition.target}: {transition.label}"
        for transition in TRANSITIONS
        for source in transition.sources
    ]
    return "\n".join(lines)
