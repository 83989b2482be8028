"""What can be done to many purchases: release holds, send money back."""

from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import Count, F, Q, QuerySet, Sum

from offers import money
from offers.scoped_admin import EVERYBODY
from purchases import holds, payments, refund_requests
from purchases.bulk import kinds
from purchases.bulk.kinds import JobForm, Kind, Task
from purchases.errors import HoldAlreadyResolved
from purchases.refund_fields import RefundFields
from purchases.states import OPEN_HOLDS, Status

PURCHASE: dict[str, Any] = {
    "model": "purchases.Purchase",
    "organization": "event__organization",
    "naming": lambda purchase: f"{purchase}, {purchase.user}",
    "related": ("user",),
}
# As ``holds.is_releasable`` says it of one.
RELEASABLE = Q(status__in=OPEN_HOLDS) | Q(
    payments.HAS_NOTE_OF_ITS_SESSION, status=Status.PAYMENT_PROCESSING
)
REFUNDABLE = (Status.PAID, Status.REFUND_DUE)


def by_status(purchases: QuerySet) -> list[tuple[str, int]]:
    found = purchases.order_by().values_list("status").annotate(number=Count("pk"))
    return sorted((Status(status).label.lower(), number) for status, number in found)


def others_line(purchases: QuerySet) -> list[str]:
    """A line on those that stay as they are, if there are any."""
    statuses = by_status(purchases)
    if not statuses:
        return []
    listed = ", ".join(f"{number:,} {status}" for status, number in statuses)
    total = sum(number for _, number in statuses)
    return [f"{total:,} will be refused, since they are something else: {listed}."]


# -- Release --------------------------------------------------------------------------------------


def release(task: Task) -> str:
    """End a hold the safe way: Stripe is asked first, and one that was paid is a sale."""
    try:
        holds.release(task.object_id, now=task.now, source="admin", actor=task.actor)
    except HoldAlreadyResolved as resolved:
        # If so, by the worker that was killed, or lost the answer, before it could say so.
        if not (task.is_again and resolved.status == Status.RELEASED):
            raise
    return ""


def about_release(purchases: QuerySet) -> list[str]:
    held = purchases.filter(RELEASABLE)
    units = held.aggregate(units=Sum("quantity"))["units"] or 0
    return [
        f"{held.count():,} unpaid holds will be ended, and {units:,} units go back on sale.",
        "Stripe is asked first: what was paid by then becomes a sale instead.",
        *others_line(purchases.exclude(RELEASABLE)),
    ]


# -- Refund ---------------------------------------------------------------------------------------


class RefundForm(RefundFields, JobForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"].label = "Amount for each purchase"

    def clean_amount(self) -> Decimal | None:
        """An amount that each of the chosen currencies can have; of several, none can be meant."""
        amount: Decimal | None = self.cleaned_data["amount"]
        if amount is None:
            return None
        chosen = kinds.of(self.job.kind).chosen(self.job)
        currencies = sorted(set(chosen.order_by().values_list("currency", flat=True)))
        if len(currencies) > 1:
            raise forms.ValidationError(
                f"These were paid in {', '.join(currencies)}: refund each currency by itself, or "
                "leave this empty."
            )
        if amount <= 0:
            raise forms.ValidationError("Send back more than 0.")
        if not all(money.is_chargeable(amount, currency) for currency in currencies):
            raise forms.ValidationError(f"This has more digits than an amount in {currencies[0]}.")
        return amount

    def parameters(self) -> dict[str, Any]:
        amount = self.cleaned_data["amount"]
        # In one spelling: 5 and 5.00 are the same refund.
        said = None if amount is None else format(amount.normalize(), "f")
        return self.cleaned_data | {"amount": said}


def refund(task: Task) -> str:
    """Ask for one purchase's money to be sent back.

    Without a key: one job asks once for each, since its item is marked in the same transaction,
    and what another job or a person asked for some minutes ago is seen as a repetition.
    """
    amount = task.parameters["amount"]
    requested = refund_requests.request(
        purchase_id=task.object_id,
        actor=task.actor,
        source="admin",
        now=task.now,
        amount=None if amount is None else Decimal(amount),
        restock=task.parameters["restock"],
        reason=task.parameters["reason"],
    )
    return "This was asked for before." if requested.repeated else ""


def about_refund(purchases: QuerySet) -> list[str]:
    refundable = purchases.filter(status__in=REFUNDABLE).order_by()
    sums = refundable.values_list("currency").annotate(
        number=Count("pk"), left=Sum(F("total_price") - F("refunded_amount"))
    )
    lines = [
        f"{number:,} are paid in {currency}: {money.grouped(left, currency)} {currency} "
        "are left to be sent back."
        for currency, number, left in sorted(sums)
    ]
    return [*lines, *others_line(purchases.exclude(status__in=REFUNDABLE))]


kinds.register(
    Kind(
        name="release_holds",
        title="Release holds",
        button="Release them",
        explanation="Whoever is about to pay for one of these loses it.",
        do=release,
        about=about_release,
        roles=EVERYBODY,
        is_one_transaction=False,
        **PURCHASE,
    ),
    Kind(
        name="refund",
        title="Refund",
        button="Send the money back",
        explanation="Money goes back to the buyers' cards. It can't be undone.",
        do=refund,
        about=about_refund,
        form=RefundForm,
        another_if=("amount",),
        **PURCHASE,
    ),
)
