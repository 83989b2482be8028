"""Finding purchases by what staff have before them: a name, a title, an id of ours or of Stripe's.

Names and titles are looked up first, in their own, smaller tables; a purchase is then found by its
indexes on buyer and offer. One ``LIKE`` over purchases joined to accounts reads all of both.
"""

import re
import uuid
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Case, CharField, Q, QuerySet, Value
from django.db.models.functions import Concat

from offers.large_lists import row_by_row
from offers.models import Offer
from purchases.models import Dispute, Purchase, Refund

HELP = "Name or e-mail of the buyer, title of the offer, an id of ours or of Stripe's"
WORDS = 3
# More of them than this are no list to be sent to the database and back.
LISTED = 1000
SPACE = Value(" ")


def find(purchases: QuerySet[Purchase], text: str) -> QuerySet[Purchase]:
    """Those of the ``purchases`` that ``text`` is about: all of its (first three) words.

    Called by admin's lists; what the caller may see is in ``purchases`` already. What looks like an
    id and is none of theirs is a word: accounts may be named like one (``re_tail``).
    """
    words = text.split()
    if len(words) == 1:
        by_id = _by_id(words[0])
        if by_id is not None:
            found = purchases.filter(by_id)
            if found.exists():
                return found
    for word in words[:WORDS]:
        purchases = purchases.filter(_by_word(word))
    return purchases


def _by_id(text: str) -> Q | None:
    try:
        return Q(pk=uuid.UUID(text))
    except ValueError:
        pass
    kind = re.match(r"(cs|pi|re|pyr|du|dp)_\w", text, re.ASCII)
    return BY_STRIPE_ID[kind[1]](text) if kind else None


def _by_session(text: str) -> Q:
    return Q(checkout_session_id=text)


def _by_payment(text: str) -> Q:
    """Also a second payment of it, of which there is only a refund."""
    return Q(payment_intent_id=text) | _with(Refund.objects.filter(payment_intent_id=text))


def _by_refund(text: str) -> Q:
    return _with(Refund.objects.filter(stripe_refund_id=text))


def _by_dispute(text: str) -> Q:
    return _with(Dispute.objects.filter(pk=text))


def _with(rows: QuerySet[Any]) -> Q:
    return Q(pk__in=list(rows.values_list("purchase", flat=True)[:LISTED]))


BY_STRIPE_ID: dict[str, Callable[[str], Q]] = {
    "cs": _by_session,
    "pi": _by_payment,
    "re": _by_refund,
    "pyr": _by_refund,
    "du": _by_dispute,
    "dp": _by_dispute,
}


def _by_word(word: str) -> Q | Case:
    said = Concat(
        "first_name", SPACE, "last_name", SPACE, "username", SPACE, "email",
        output_field=CharField(),
    )  # fmt: skip
    users = User.objects.annotate(said=said).filter(said__icontains=word).order_by()
    offers = Offer.objects.filter(title__icontains=word).order_by()
    theirs, these = _listed(users), _listed(offers)
    found = Q(user__in=theirs) | Q(offer__in=these)
    return found if isinstance(theirs, list) and isinstance(these, list) else row_by_row(found)


def _listed(rows: QuerySet[Any]) -> Any:
    """Their keys, which PostgreSQL can plan with; the query itself where there are too many."""
    keys = list(rows.values_list("pk", flat=True)[: LISTED + 1])
    return keys if len(keys) <= LISTED else rows.values("pk")
