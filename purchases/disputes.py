"""Disputes: what a cardholder's bank takes back, and until when it can be answered.

They are answered in Stripe's dashboard. Here each is on record with its purchase and its deadline,
so that staff see it; the purchase itself doesn't change.
"""

from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from offers import money
from offers.contention import retried
from purchases import refunds, transitions
from purchases.activity import alert
from purchases.models import Dispute, Purchase

FUNDS = {
    "charge.dispute.funds_withdrawn": "funds_withdrawn_at",
    "charge.dispute.funds_reinstated": "funds_reinstated_at",
}


def open_ones() -> QuerySet[Dispute]:
    """Those that aren't decided; called by the back-office."""
    return Dispute.objects.exclude(status__in=Dispute.CLOSED)


@retried
def record(data: dict[str, Any], *, event_type: str, happened_at: datetime) -> Purchase | None:
    """Note what an event says of a dispute; ``None`` if its payment isn't on record here.

    Called for each event; locks the purchase. Events come in any order: the newest
    one's word counts, and a dispute that is closed stays so.
    """
    payment = _id_of(data.get("payment_intent"))
    found = refunds.purchase_of_payment(payment)
    if found is None:
        return None
    with transaction.atomic():
        purchase = transitions.lock(found.pk)
        dispute = Dispute.objects.filter(pk=data["id"]).first()
        is_new = dispute is None
        if dispute is None:
            dispute = _new(data, purchase, payment, happened_at)
        elif dispute.is_open and (
            happened_at >= dispute.updated_at or data["status"] in Dispute.CLOSED
        ):
            dispute.status, dispute.reason = data["status"], data["reason"]
            dispute.evidence_due_by = _due_by(data)
            dispute.updated_at = max(happened_at, dispute.updated_at)
        if event_type in FUNDS:
            setattr(dispute, FUNDS[event_type], happened_at)
        dispute.save()
        if is_new:
            transaction.on_commit(lambda: _tell(dispute, purchase))
    return purchase


def _new(
    data: dict[str, Any], purchase: Purchase, payment_intent_id: str, happened_at: datetime
) -> Dispute:
    currency = data["currency"].upper()
    return Dispute(
        id=data["id"],
        purchase=purchase,
        payment_intent_id=payment_intent_id,
        amount=money.from_minor_units(data["amount"], currency),
        currency=currency,
        reason=data["reason"],
        status=data["status"],
        evidence_due_by=_due_by(data),
        created_at=datetime.fromtimestamp(data["created"], UTC),
        updated_at=happened_at,
    )


def _tell(dispute: Dispute, purchase: Purchase) -> None:
    due = dispute.evidence_due_by
    alert("dispute", purchase, dispute=dispute.pk, reason=dispute.reason, due_by=due and str(due))


def _due_by(data: dict[str, Any]) -> datetime | None:
    due = (data.get("evidence_details") or {}).get("due_by")
    return datetime.fromtimestamp(due, UTC) if due else None


def _id_of(value: Any) -> str:
    return value["id"] if isinstance(value, dict) else value or ""
