"""What hasn't come to its end: holds, fulfilments, refunds, disputes; and what needs somebody now.

None of it depends on the period: it is what there is at the moment.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Count, F, Q, Sum, Window
from django.urls import reverse

from fulfillment.models import Fulfillment
from fulfillment.states import Status as Delivered
from fulfillment.states import Type
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.tables import (
    NOTHING,
    Row,
    Table,
    amount,
    count,
    text,
)
from purchases import wording
from purchases.disputes import open_ones
from purchases.holds import is_overdue, is_stuck
from purchases.models import Dispute, Purchase, Refund
from purchases.states import OPEN_HOLDS, Status

YOUNG = timedelta(minutes=5)
DISPUTES_SHOWN = 5
TO_ANSWER = ("needs_response", "warning_needs_response")


@dataclass(frozen=True)
class Attention:
    """Something that waits for a person; ``link`` leads to the list of it."""

    count: int
    said: str
    link: str


def listed(model: str, scope: Scope, *, event: str = "", **lookups: str) -> str:
    """The address of a list, narrowed; ``event`` is its filter by event, if it has one."""
    if event and scope.event is not None:
        lookups[f"{event}__id__exact"] = str(scope.event.pk)
    return f"{reverse(f'admin:{model}_changelist')}?{urlencode(lookups)}"


# -- Holds ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holds:
    table: Table
    stuck: Attention


def holds(scope: Scope, *, now: datetime) -> Holds:
    """Unpaid holds by age: one query. Those that are stuck are among the overdue, too."""
    is_young = Q(created_at__gt=now - YOUNG)
    in_time = Q(status__in=OPEN_HOLDS, problem="") & ~is_overdue(now=now)
    # The address of a list can't say "not"; what it says is the same.
    opened = {
        "status__in": ",".join(OPEN_HOLDS), "problem__exact": "",
        "reserved_until__gt": now.isoformat(), "checkout_failed_at__isnull": "1",
    }  # fmt: skip
    ages: list[tuple[str, Q, dict[str, str]]] = [
        (
            "Younger than 5 minutes",
            in_time & is_young,
            opened | {"created_at__gt": (now - YOUNG).isoformat()},
        ),
        (
            "Older, still in time",
            in_time & ~is_young,
            opened | {"created_at__lte": (now - YOUNG).isoformat()},
        ),
        (
            "With a problem",
            Q(status__in=OPEN_HOLDS) & ~Q(problem=""),
            {"status__in": opened["status__in"], "attention": "problem"},
        ),
        ("Overdue", is_overdue(now=now), {"attention": "overdue"}),
        ("Of these, for more than an hour", is_stuck(now=now), {"attention": "stuck"}),
    ]
    asked = {str(n): of_age for n, (_, of_age, _) in enumerate(ages)}
    asked["slow"] = Q(status=Status.PAYMENT_PROCESSING)
    found = Purchase.objects.filter(
        scope.of("event"), status__in=[*OPEN_HOLDS, Status.PAYMENT_PROCESSING]
    ).aggregate(
        **{f"count_{n}": Count("pk", filter=chosen) for n, chosen in asked.items()},
        **{f"units_{n}": Sum("quantity", filter=chosen, default=0) for n, chosen in asked.items()},
    )
    rows: list[Row] = []
    link = ""
    for n, (name, _, narrowed) in enumerate(ages):
        link = listed("purchases_purchase", scope, event="event", **narrowed)
        rows.append([text(name), count(found[f"count_{n}"], link=link), count(found[f"units_{n}"])])
    slow = listed(
        "purchases_purchase", scope, event="event", status__exact=Status.PAYMENT_PROCESSING
    )
    rows.append(
        [text("Waiting for the bank"), count(found["count_slow"], link=slow),
         count(found["units_slow"])]
    )  # fmt: skip
    table = Table(
        "holds",
        "Holds by age",
        ["Age", "Holds", "Units"],
        rows,
        about="Units that are kept for buyers who haven't paid yet.",
    )
    stuck = found[f"count_{len(ages) - 1}"]
    return Holds(table, Attention(stuck, "holds overdue for more than an hour", link))


# -- Fulfilments ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deliveries:
    table: Table
    failed: Attention


def fulfilments(scope: Scope) -> Deliveries:
    """Those that nobody has yet, by type: one query."""
    shown = (Delivered.PENDING, Delivered.PROCESSING, Delivered.FAILED)
    found = {
        (row["type"], row["status"]): row["number"]
        for row in Fulfillment.objects.filter(scope.of("purchase__event"), status__in=shown)
        .values("type", "status")
        # Of rows and not of keys, which the index doesn't have.
        .annotate(number=Count("*"))
        .order_by()
    }

    def link(**lookups: str) -> str:
        return listed("fulfillment_fulfillment", scope, event="purchase__event", **lookups)

    rows = [
        [
            text(type_.label),
            *(
                count(
                    found.get((type_, status), 0),
                    link=link(type__exact=type_, status__exact=status),
                )
                for status in shown
            ),
        ]
        for type_ in Type
    ]  # fmt: skip
    failed = sum(number for (_, status), number in found.items() if status == Delivered.FAILED)
    table = Table(
        "fulfilments",
        "Fulfilments",
        ["Type", "Waiting", "Under way", "Failed"],
        rows,
        about="Under way: a worker has it, or a person has to ship it or to pick a time.",
    )
    said = "fulfilments that failed"
    return Deliveries(table, Attention(failed, said, link(status__exact=Delivered.FAILED)))


# -- Refunds and disputes -------------------------------------------------------------------------


def refunds(scope: Scope) -> Table:
    """Money that isn't back yet: one query."""
    said = {
        Refund.State.REQUESTED: "Asked for, not sent yet",
        Refund.State.PENDING: "On its way",
        Refund.State.FAILED: "Failed",
    }
    found = dict(
        Refund.objects.filter(scope.of("purchase__event"), state__in=list(said))
        .values_list("state")
        .annotate(Count("pk"))
        .order_by()
    )
    rows = [
        [
            text(name),
            count(found.get(state, 0), link=listed("purchases_refund", scope, state__exact=state)),
        ]
        for state, name in said.items()
    ]
    return Table(
        "refunds",
        "Refunds",
        ["State", "Refunds"],
        rows,
        about="Failed ones stay here; the purchases that still owe the money are named above.",
    )


@dataclass(frozen=True)
class Disputes:
    table: Table
    to_answer: Attention


def disputes(scope: Scope, *, limit: int | None = DISPUTES_SHOWN) -> Disputes:
    """Those that are open, the most urgent first: one query."""
    opened = (
        open_ones()
        .filter(scope.of("purchase__event"))
        .select_related("purchase")
        .annotate(
            in_all=Window(Count("pk")),
            unanswered=Window(Count("pk", filter=Q(status__in=TO_ANSWER))),
        )
        .order_by(F("evidence_due_by").asc(nulls_last=True), "created_at")
    )
    found = list(opened if limit is None else opened[:limit])
    in_all = found[0].in_all if found else 0
    table = Table(
        "disputes",
        "Open disputes",
        ["Dispute", "Purchase", "Amount", "Currency", "Status", "Answer until (UTC)"],
        [_dispute(each) for each in found],
        about=f"The first {limit} of {in_all}." if limit and in_all > limit else "",
        empty="None.",
    )
    due = next((each.evidence_due_by for each in found if each.status in TO_ANSWER), None)
    return Disputes(
        table,
        Attention(
            found[0].unanswered if found else 0,
            "disputes to answer" + (f", the first until {due:%d %b %Y, %H:%M} UTC" if due else ""),
            listed("purchases_dispute", scope, status__in=",".join(TO_ANSWER)),
        ),
    )


def _dispute(dispute: Dispute) -> Row:
    due = dispute.evidence_due_by
    return [
        text(dispute.pk, link=wording.page(dispute)),
        text(dispute.purchase),
        amount(dispute.amount, dispute.currency),
        text(dispute.currency),
        text(dispute.status.replace("_", " ")),
        text(f"{due:%Y-%m-%d %H:%M}" if due else NOTHING),
    ]


def problems(scope: Scope) -> Attention:
    """Purchases that sweeps leave to a person: one query."""
    number = Purchase.objects.filter(scope.of("event")).exclude(problem="").count()
    link = listed("purchases_purchase", scope, event="event", attention="problem")
    return Attention(number, "purchases with a problem", link)
