"""What can be done to many fulfilments at once, by the worker, and to many paid purchases."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Count, QuerySet

from fulfillment import delivery, repeating
from fulfillment.states import Status
from purchases.bulk import kinds
from purchases.bulk.kinds import JobForm, Kind, Task
from purchases.bulk.of_purchases import PURCHASE, others_line
from purchases.states import Status as PurchaseStatus

FULFILLMENT: dict[str, Any] = {
    "model": "fulfillment.Fulfillment",
    "organization": "purchase__event__organization",
    "naming": lambda fulfillment: f"{fulfillment.purchase}, {fulfillment.purchase.user}",
    "related": ("purchase__user",),
}
# Whoever has mended what was in the way may try again at once.
AT_ONCE = timedelta(0)


class ReasonForm(JobForm):
    """What staff are asked before they overrule the worker."""

    reason = forms.CharField(max_length=500, help_text="It stays on record with your name.")


def by(act: Callable[..., Any], *asked: str) -> Callable[[Task], str]:
    """A kind's ``do`` by a function of the domain, which is also given these of the answers."""

    def do(task: Task) -> str:
        answers = {name: task.parameters[name] for name in asked}
        act(task.object_id, now=task.now, source="admin", actor=task.actor, **answers)
        return ""

    return do


def about(fulfillments: QuerySet) -> list[str]:
    found = fulfillments.order_by().values_list("status").annotate(number=Count("pk"))
    return [f"{number:,} are {Status(status).label.lower()}." for status, number in sorted(found)]


def about_paid(purchases: QuerySet) -> list[str]:
    paid = purchases.filter(status=PurchaseStatus.PAID).count()
    others = purchases.exclude(status=PurchaseStatus.PAID)
    return [f"{paid:,} are paid.", *others_line(others)]


kinds.register(
    Kind(
        name="resend_confirmation",
        title="Resend confirmation",
        button="Send them again",
        explanation="Each buyer gets the e-mail that says what they have, once more.",
        do=by(repeating.resend_confirmation),
        about=about_paid,
        **PURCHASE,
    ),
    Kind(
        name="retry_delivery",
        title="Retry fulfilment",
        button="Try again",
        explanation="What failed or waits is delivered at once, with all its attempts.",
        do=by(repeating.retry_delivery),
        not_again_within=AT_ONCE,
        about=about_paid,
        **PURCHASE,
    ),
    Kind(
        name="retry",
        title="Try again now",
        button="Try again",
        explanation="What failed or waits is delivered at once, with all its attempts.",
        do=by(delivery.retry),
        not_again_within=AT_ONCE,
        about=about,
        **FULFILLMENT,
    ),
    Kind(
        name="mark_done",
        title="Mark as done",
        button="Mark as done",
        explanation="The buyers have it by other means: nothing more is handed out or sent.",
        do=by(delivery.mark_done, "reason"),
        about=about,
        form=ReasonForm,
        **FULFILLMENT,
    ),
    Kind(
        name="revoke",
        title="Revoke",
        button="Revoke",
        explanation="Links and codes stop working, tickets go back to their tier, parcels and "
        "bookings are cancelled. It can't be undone, and no money goes back: that is the "
        "purchase's Refund.",
        do=by(delivery.revoke, "reason"),
        about=about,
        form=ReasonForm,
        **FULFILLMENT,
    ),
)
