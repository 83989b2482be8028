"""What staff are told of a purchase's refunds, as its ``problem`` says it: read from their rows.

It is made anew whenever one of them changes (``refunds.settle``): whoever follows a note that is no
longer true sends the money twice.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from offers import money
from purchases.models import Purchase, Refund

# By then it was tried for two hours.
STUCK_AFTER = 10
# How the lines begin that are about refunds; all others are left alone.
STUCK = "A refund could not be sent"
FAILED = "The refund of"


def problem_of(purchase: Purchase) -> str:
    """What ``problem`` of a locked purchase is to say: a line for each thing to look at.

    Called by ``settle``. What it says already about anything but refunds stays in it.
    """
    said = purchase.problem.split("\n")
    others = [line for line in said if line and not line.startswith((STUCK, FAILED))]
    return "\n".join(others + list(dict.fromkeys(_lines(purchase))))


def stuck_in(problem: str) -> set[str]:
    """Which of its lines are about refunds that can't be sent."""
    return {line for line in problem.split("\n") if line.startswith(STUCK)}


def is_stuck(refund: Refund) -> bool:
    """Whether it was tried long enough for a person to know, and Stripe never said to have it."""
    is_sent = refund.stripe_refund_id is not None
    return refund.is_under_way and not is_sent and refund.attempts >= STUCK_AFTER


def failure(purchase: Purchase, refund: Refund) -> str:
    """One sentence: which refund failed, and why."""
    why = refund.error.rstrip(".") or "no reason given"
    return f"{FAILED} {_named(purchase, refund)} failed: {why}."


def _lines(purchase: Purchase) -> Iterator[str]:
    refunds = list(purchase.refunds.all())
    for refund in filter(is_stuck, refunds):
        named = _named(purchase, refund)
        yield f"{STUCK} {STUCK_AFTER} times, it is tried on, so don't send it again: {named}."
    for payment in dict.fromkeys(refund.payment_intent_id for refund in refunds):
        of_it = [refund for refund in refunds if refund.payment_intent_id == payment]
        owed = _owed(purchase, of_it)
        if owed:
            yield _of_failures(purchase, of_it, owed)


def _of_failures(purchase: Purchase, refunds: list[Refund], owed: Decimal) -> str:
    last = max(filter(_has_failed, refunds), key=_ended_at)
    said = [failure(purchase, last)]
    if owed != last.amount:
        still = _written(purchase, owed)
        said.append(f"With what else failed, and what was sent since, {still} is still owed.")
    between = [
        refund.amount
        for refund in refunds
        if not _has_failed(refund) and last.created_at < _made_at(refund) < _ended_at(last)
    ]
    if between:
        sent = _written(purchase, sum(between, Decimal(0)))
        said.append(
            f"{sent} was sent after that was asked for and before its failure was heard of: see "
            "first whether it was sent instead."
        )
    said.append(
        "Ask the buyer how to pay it back, or refund again."
        if last.payment_intent_id == purchase.payment_intent_id
        else "Send that one back in Stripe's dashboard, or ask the buyer how: a refund here is of "
        "the first one."
    )
    return " ".join(said)


def _owed(purchase: Purchase, refunds: list[Refund]) -> Decimal:
    """How much of one payment failed to go back and wasn't sent again, in major units.

    What was sent after something had failed is taken to be sent instead. More than is left of the
    payment can't be owed; how much a payment of another amount was isn't on record.
    """
    steps = [(_made_at(refund), -refund.amount) for refund in refunds]
    steps += [(_ended_at(refund), refund.amount) for refund in refunds if _has_failed(refund)]
    owed = Decimal(0)
    for _, amount in sorted(steps):
        owed = max(owed + amount, Decimal(0))
    if not any(_is_of_its_price(purchase, refund) for refund in refunds):
        return owed
    given = sum((refund.amount for refund in refunds if not _has_failed(refund)), Decimal(0))
    return min(owed, max(purchase.total_price - given, Decimal(0)))


def _is_of_its_price(purchase: Purchase, refund: Refund) -> bool:
    """Whether the payment was of the purchase's price: its own was, and a second one is."""
    is_its_own = refund.payment_intent_id == purchase.payment_intent_id
    return is_its_own or refund.cause == Refund.Cause.SECOND_PAYMENT


def _has_failed(refund: Refund) -> bool:
    return refund.state == Refund.State.FAILED


def _made_at(refund: Refund) -> datetime:
    """When it was made, as compared with times of ours: Stripe's are whole seconds.

    Taken as it is, one would come before the failure of the same second that it makes up for.
    """
    if refund.cause != Refund.Cause.STRIPE:
        return refund.created_at
    return min(refund.created_at + timedelta(seconds=1), _ended_at(refund))


def _ended_at(refund: Refund) -> datetime:
    return refund.settled_at or datetime.max.replace(tzinfo=UTC)


def _named(purchase: Purchase, refund: Refund) -> str:
    amount = _written(purchase, refund.amount)
    if refund.payment_intent_id == purchase.payment_intent_id:
        return amount
    return f"a second payment ({refund.payment_intent_id}) of {amount}"


def _written(purchase: Purchase, amount: Decimal) -> str:
    return f"{money.format_amount(amount, purchase.currency)} {purchase.currency}"
