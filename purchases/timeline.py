"""What happened to a purchase, in one list, for staff: who, why, when, and by which way.

Each app adds its part; what a purchase takes is a constant number of queries.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.utils.safestring import SafeString

from offers import stripe_dashboard
from purchases.models import Email, Purchase, Refund
from purchases.states import TRANSITIONS
from purchases.wording import REFUND_STATE, STATUS, amount, in_words, when

SOURCES = {
    "api": "API or page",
    "page": "the buyer's page",
    "webhook": "Stripe's webhook",
    "sweep": "the sweep",
    "worker": "the worker",
    "admin": "back-office",
    "command": "a command",
    "reconciliation": "reconciliation with Stripe",
}
WORDS = {each.name: each.label for each in TRANSITIONS} | {"hold": "Stock held"}


@dataclass(frozen=True)
class Entry:
    """One thing that happened. ``tone`` is a label's, ``about`` what it is labelled with."""

    at: datetime
    what: str
    about: str = ""
    tone: str = ""
    who: str = ""
    why: str = ""
    reference: str | SafeString = ""


def of(purchase: Purchase) -> list[Entry]:
    """What this app knows of it, oldest first: four queries, however much that is."""
    return oldest_first(
        [*_transitions(purchase), *_refunds(purchase), *_disputes(purchase), *_emails(purchase)]
    )


def oldest_first(entries: Iterable[Entry]) -> list[Entry]:
    """In the order of their times; what happened at the same moment stays as it was given."""
    return sorted(entries, key=lambda entry: entry.at)


def by(actor: User | None, source: str) -> str:
    """Who did it, and which way it came."""
    way = SOURCES.get(source, source)
    return f"{actor.username} ({way})" if actor else way


def _transitions(purchase: Purchase) -> Iterator[Entry]:
    for each in purchase.transitions.select_related("actor"):
        words, tone = STATUS[each.to_status]
        what = WORDS.get(each.name) or in_words(each.name)
        yield Entry(
            at=each.created_at,
            what=what[0].upper() + what[1:],
            about=words,
            tone=tone,
            who=by(each.actor, each.source),
            why=each.reason,
        )


def _refunds(purchase: Purchase) -> Iterator[Entry]:
    for each in purchase.refunds.select_related("requested_by"):
        sum_ = amount(each.amount, purchase.currency)
        reference = stripe_dashboard.link(each.stripe_refund_id) if each.stripe_refund_id else ""
        settled = each.settled_at is not None or each.state == Refund.State.FAILED
        words, tone = REFUND_STATE[Refund.State.REQUESTED if settled else each.state]
        yield Entry(
            at=each.created_at,
            what=f"Refund of {sum_}: {each.get_cause_display()}",
            about=words,
            tone="" if settled else tone,
            who=each.requested_by.username if each.requested_by else "",
            why="; ".join(filter(None, [each.reason, "" if settled else each.error])),
            reference="" if settled else reference,
        )
        if settled:
            words, tone = REFUND_STATE[each.state]
            yield Entry(
                at=each.settled_at or each.created_at,
                what=f"Refund of {sum_}",
                about=words,
                tone=tone,
                who="Stripe",
                why=each.error,
                reference=reference,
            )


def _disputes(purchase: Purchase) -> Iterator[Entry]:
    for each in purchase.disputes.all():
        sum_ = amount(each.amount, each.currency)
        due = each.evidence_due_by
        answer_by = f"; answer at Stripe by {when(due)}" if due and each.is_open else ""
        yield Entry(
            at=each.created_at,
            what=f"Payment disputed: {sum_}",
            about=in_words(each.status),
            tone="danger" if each.is_open or each.status == "lost" else "",
            who="The buyer's bank",
            why=in_words(each.reason) + answer_by,
            reference=stripe_dashboard.link(each.pk),
        )
        for at, what in (
            (each.funds_withdrawn_at, f"{sum_} withdrawn for the dispute"),
            (each.funds_reinstated_at, f"{sum_} given back after the dispute"),
        ):
            if at is not None:
                yield Entry(at=at, what=what, who="Stripe")


def _emails(purchase: Purchase) -> Iterator[Entry]:
    written = purchase.emails.defer("attachments").select_related("requested_by").order_by("pk")
    for each in written:
        again = by(each.requested_by, "admin") if each.requested_by else ""
        occasion = in_words(each.occasion).lower()
        if each.state == Email.State.SENT:
            yield Entry(
                at=each.sent_at or each.created_at,
                what=f"E-mail sent: {occasion}",
                who=again,
            )
        else:
            given_up = each.state == Email.State.GIVEN_UP
            yield Entry(
                at=each.created_at,
                what=f"E-mail not sent: {occasion}",
                about="Given up" if given_up else "Waiting",
                tone="danger" if given_up else "warning",
                who=again,
                why=each.error,
            )
