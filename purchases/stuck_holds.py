"""Holds of some offers that nobody has paid yet, and what Stripe says of each just now."""

import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import QuerySet

from offers.turns import let_others
from purchases import holds, stripe_gateway
from purchases.errors import PaymentProviderUnavailable, ProviderRefused
from purchases.models import Purchase
from purchases.stripe_objects import CheckoutSession

# How many are listed; how many of them Stripe is asked about, by how many threads, for how long
# (seconds). An organizer waits for the page, and buyers need Stripe's answers more than it does.
LISTED = 200
ASKED = 50
ASKING = 4
PATIENCE = 4.0

# One page of this process at a time asks, and its threads count until they have ended: the room
# for conversations with Stripe is for buyers.
_turn = threading.Lock()
_under_way: "list[Future[str]]" = []

NOT_ASKED = "not asked"
NO_SESSION = "no session on record"
NO_ANSWER = "can't be reached"
UNKNOWN = "knows no such session"


@dataclass(frozen=True)
class StuckHold:
    """One line of the page. ``at_stripe`` is what Stripe said, or why it didn't."""

    purchase: Purchase
    is_overdue: bool
    age: timedelta
    at_stripe: str


def of_offers(offer_ids: Iterable[uuid.UUID]) -> QuerySet[Purchase]:
    """Every unpaid hold of these offers, the ones whose time was up first at the top."""
    return holds.open_holds().filter(offer__in=list(offer_ids)).order_by("reserved_until", "pk")


def listed(found: QuerySet[Purchase], *, now: datetime) -> list[StuckHold]:
    """The first of the holds, with what Stripe says of them; outside any transaction."""
    purchases = list(found.select_related("user", "offer")[:LISTED])
    keys = [purchase.pk for purchase in purchases]
    overdue = set(holds.overdue(now=now).filter(pk__in=keys).values_list("pk", flat=True))
    said = ask_stripe(purchases)
    return [
        StuckHold(
            purchase=purchase,
            is_overdue=purchase.pk in overdue,
            age=now - purchase.created_at,
            at_stripe=said[purchase.pk],
        )
        for purchase in purchases
    ]


def is_incomplete(lines: list[StuckHold]) -> bool:
    """Whether Stripe, asked again, may say more of these."""
    return any(line.at_stripe in (NOT_ASKED, NO_ANSWER) for line in lines[:ASKED])


def ask_stripe(purchases: list[Purchase]) -> dict[uuid.UUID, str]:
    """What Stripe says of each purchase's session, as far as it answers within ``PATIENCE``.

    Whoever hasn't been answered by then isn't waited for: at most ``ASKING`` threads end with
    their time-outs, and begin nothing more. Until they have, or while another page is at it, Stripe
    isn't asked at all.
    """
    said = {
        purchase.pk: NOT_ASKED if purchase.checkout_session_id else NO_SESSION
        for purchase in purchases
    }
    with_session = [purchase for purchase in purchases if purchase.checkout_session_id][:ASKED]
    if not with_session:
        return said
    with _turn:
        if not all(future.done() for future in _under_way):
            return said
        pool = ThreadPoolExecutor(max_workers=ASKING, thread_name_prefix="stuck-holds")
        asked: dict[Future[str], uuid.UUID] = {
            pool.submit(_word, str(purchase.checkout_session_id)): purchase.pk
            for purchase in with_session
        }
        _under_way[:] = asked
    connection.close()  # others need it while we wait
    with let_others():
        answered, unanswered = wait(asked, timeout=PATIENCE)
    pool.shutdown(wait=False, cancel_futures=True)
    said |= {asked[future]: future.result() for future in answered}
    # Those that weren't begun by then are cancelled, so they keep their NOT_ASKED.
    said |= {asked[future]: NO_ANSWER for future in unanswered if not future.cancelled()}
    return said


def _word(session_id: str) -> str:
    try:
        return _said_of(stripe_gateway.retrieve_session(session_id))
    except ProviderRefused:
        return UNKNOWN
    except (PaymentProviderUnavailable, ValueError, KeyError):
        return NO_ANSWER  # the last two: an answer that is no session


def _said_of(session: CheckoutSession) -> str:
    if session.status == "complete":
        return "paid" if session.is_paid else "complete, payment under way"
    return "open, can still be paid" if session.is_open else session.status
