"""What must be true once a storm is over: a rule yields a sentence for each thing that breaks it.

The rules are functions of the books and the journal alone, so that they can be tested without a
storm.
"""

from collections.abc import Iterator

from tests.chaos.books import SOLD, Books, Purchase
from tests.chaos.journal import Journal

HAS_MONEY = (*SOLD, "refunded", "refund_due")
OVER = ("released", "refunded", "refund_due")


def check(books: Books, journal: Journal) -> list[tuple[str, str]]:
    """Every violation, as (rule, what breaks it): those of the storm and those of its end."""
    rules = {
        "counters equal the purchases, and no unit is sold twice": stock(books),
        "every payment belongs to a purchase that has it": payments_belong(books),
        "money received, less money sent back, is what is on record": money(books),
        "what is paid was paid at Stripe, once": paid_at_stripe(books),
        "what the bank has decided is on record": decided(books),
        "nobody can pay for what is over": nothing_payable(books),
        "what buyers were told is true": promises(books, journal),
        "one Idempotency-Key made at most one purchase": one_per_key(journal),
        "what is paid for is delivered, and what is refunded taken back": deliveries(books),
    }
    found = [(rule, detail) for rule, details in rules.items() for detail in details]
    return [*journal.violations, *found]


def stock(books: Books) -> Iterator[str]:
    """Counters against purchases, and against the total."""
    for offer in books.stock:
        if offer.problem:
            yield offer.problem


def payments_belong(books: Books) -> Iterator[str]:
    """A paid session without its purchase is money for nothing."""
    for session in books.sessions:
        if not session.received:
            continue
        purchase = books.purchases.get(session.purchase)
        if purchase is None:
            yield f"session {session.id} is paid, and there is no purchase {session.purchase!r}"
        elif purchase.status not in HAS_MONEY and session.refunded != session.received:
            yield f"session {session.id} is paid, but its purchase is {_told(purchase)}"
        elif purchase.status == "refund_due" and not purchase.problem:
            yield f"the money for {_told(purchase)} is not on its way back"


def money(books: Books) -> Iterator[str]:
    """To the last cent, for each purchase."""
    for session in books.sessions:
        if session.refunded > session.received:
            yield f"session {session.id}: refunded {session.refunded} of {session.received}"
    for purchase in books.purchases.values():
        sessions = books.sessions_of(purchase.id)
        kept = sum(session.received - session.refunded for session in sessions)
        if kept != _on_record(purchase):
            yield f"Stripe keeps {kept}, we have {_on_record(purchase)} for {_told(purchase)}"


def _on_record(purchase: Purchase) -> int:
    """What should be left at Stripe of this purchase, in minor units."""
    return purchase.total - purchase.refunded if purchase.status in HAS_MONEY else 0


def paid_at_stripe(books: Books) -> Iterator[str]:
    """No sale without its payment, and no second payment kept."""
    for purchase in books.purchases.values():
        sessions = [s for s in books.sessions_of(purchase.id) if s.received]
        if purchase.status in SOLD and purchase.total:
            same = [
                s for s in sessions if (s.amount, s.currency) == (purchase.total, purchase.currency)
            ]
            if not same:
                yield f"nobody paid {purchase.total} {purchase.currency} for {_told(purchase)}"
        if len([s for s in sessions if s.refunded < s.received]) > 1:
            yield f"two sessions are paid and kept for {_told(purchase)}"


def decided(books: Books) -> Iterator[str]:
    """Every delayed payment was settled or refused before the books were read."""
    for purchase in books.purchases.values():
        if purchase.status == "payment_processing":
            yield f"the bank has decided about {_told(purchase)}"


def nothing_payable(books: Books) -> Iterator[str]:
    """A page that can be paid, of a purchase that can't be had any more or is paid by another."""
    for session in books.sessions:
        if not session.can_be_paid:
            continue
        purchase = books.purchases.get(session.purchase)
        if purchase is None:
            yield f"session {session.id} is open, and there is no purchase {session.purchase!r}"
        elif purchase.status in (*OVER, *SOLD):
            yield f"session {session.id} is open, and its purchase is {_told(purchase)}"


def promises(books: Books, journal: Journal) -> Iterator[str]:
    """What an answer of the API said stays so."""
    for purchase_id, told in journal.purchases.items():
        purchase = books.purchases.get(purchase_id)
        if purchase is None:
            yield f"{told.buyer} was told of purchase {purchase_id}, which isn't there"
            continue
        if purchase.buyer != told.buyer:
            yield f"{told.buyer} was told of {_told(purchase)}"
        was_refunded = purchase.status in OVER and purchase_id in journal.refunds_asked
        if told.was_paid and purchase.status not in SOLD and not was_refunded:
            yield f"{told.buyer} was told that it is paid: {_told(purchase)}"


def one_per_key(journal: Journal) -> Iterator[str]:
    """However often it was sent, and whatever was lost on the way."""
    purchases_of: dict[str, set[str]] = {}
    for purchase_id, told in journal.purchases.items():
        for key in told.keys:
            purchases_of.setdefault(key, set()).add(purchase_id)
    for key, purchases in purchases_of.items():
        if len(purchases) > 1:
            yield f"key {key} made {sorted(purchases)}"
    for key, times in journal.made_by_key.items():
        if times > 1:
            yield f"key {key} was answered 201 {times} times"


def deliveries(books: Books) -> Iterator[str]:
    """Nobody waits for what they paid for; nobody keeps what they got the money back for."""
    for purchase in books.purchases.values():
        wanted: tuple[str | None, ...] = (None,)
        if purchase.was_paid:
            is_back = purchase.status in OVER
            wanted = ("REVOKED",) if is_back else ("FULFILLED", "PROCESSING")
        if purchase.delivery not in wanted:
            yield f"the fulfilment of {_told(purchase)} is {purchase.delivery}"
    for attendee in books.upgraded:
        # `attendee2` has been a VIP from the beginning.
        wanted = "vip" if attendee.upgrades or attendee.buyer == "attendee2" else "standard"
        if attendee.tier != wanted:
            yield f"{attendee.buyer} is {attendee.tier} with {attendee.upgrades} upgrades"


def _told(purchase: Purchase) -> str:
    amount = f"{purchase.total} {purchase.currency}"
    problem = f" (problem: {purchase.problem})" if purchase.problem else ""
    return f"{purchase.buyer}'s {purchase.id}, {purchase.status}, {amount}{problem}"
