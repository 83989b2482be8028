"""What must be true, at any moment or once the sweeps have done their work."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from offers import money
from offers.models import Offer
from purchases import reconciliation
from purchases.models import Purchase, Refund, StripeEvent
from purchases.states import OPEN_HOLDS, Status
from tests.conftest import Sandbox

PAID_FOR = (Status.PAID, Status.REFUND_DUE, Status.REFUNDING, Status.REFUNDED)


def broken_at_any_time() -> Iterator[str]:
    """What is wrong already, right after a death and between sweeps."""
    yield from map(str, reconciliation.counter_differences())
    for purchase in Purchase.objects.prefetch_related("transitions"):
        yield from _broken_log(purchase)
    yield from _requests_that_hold_twice()


def broken_in_the_end(stripe: Sandbox) -> Iterator[str]:
    """What is left undone when nobody will do anything any more."""
    for purchase in Purchase.objects.all():
        if purchase.status in (*OPEN_HOLDS, Status.REFUND_DUE, Status.REFUNDING):
            yield f"purchase still {purchase.status}"
        if purchase.stray_session_check_due:
            yield "stray sessions never looked for"
        if purchase.problem:
            yield f"left to staff: {purchase.problem}"
    for row in Refund.objects.exclude(state=Refund.State.SUCCEEDED):
        yield f"refund still {row.state}: {row.error}"
    for event in StripeEvent.objects.filter(state__in=["stored", "failed", "dead"]):
        yield f"event {event.type} still {event.state}: {event.error[-300:]}"
    sessions, refunds = stripe.sessions(), _refunds(stripe)
    sent_back = {refund["payment_intent"] for refund in refunds if refund["status"] == "succeeded"}
    # A second payment whose money is back is as if it had never been.
    second = Refund.objects.filter(cause=Refund.Cause.SECOND_PAYMENT, state="succeeded")
    undone = sent_back & set(second.values_list("payment_intent_id", flat=True))
    sessions = [session for session in sessions if session["payment_intent"] not in undone]
    refunds = [refund for refund in refunds if refund["payment_intent"] not in undone]
    yield from _sessions_that_do_not_fit(sessions)
    yield from _paid_twice(sessions)
    yield from _refunds_that_do_not_fit(refunds)
    yield from _refunded_twice(refunds)
    for offer in Offer.objects.all():
        yield from _copy_that_does_not_fit(stripe, offer)


def _broken_log(purchase: Purchase) -> Iterator[str]:
    log = list(purchase.transitions.all())
    if not log or log[0].from_status != "" or log[-1].to_status != purchase.status:
        yield f"log of a {purchase.status} purchase: {', '.join(map(str, log)) or 'empty'}"
    for earlier, later in pairwise(log):
        if earlier.to_status != later.from_status:
            yield f"log jumps from {earlier} to {later}"


def _requests_that_hold_twice() -> Iterator[str]:
    """Every buyer in these tests wants one purchase, however often the request is repeated."""
    alive = defaultdict(list)
    for purchase in Purchase.objects.exclude(status__in=[Status.RELEASED, Status.REFUNDED]):
        alive[purchase.user_id].append(purchase.status)
    for statuses in alive.values():
        if len(statuses) > 1:
            yield f"one request holds stock more than once: {statuses}"


def _paid_twice(sessions: list[dict[str, Any]]) -> Iterator[str]:
    paid = defaultdict(list)
    for session in sessions:
        if session["payment_status"] == "paid":
            paid[session["client_reference_id"]].append(session["id"])
    for reference, ids in paid.items():
        if len(ids) > 1:
            yield f"purchase {reference} was paid {len(ids)} times"


def _refunded_twice(refunds: list[dict[str, Any]]) -> Iterator[str]:
    refunded = defaultdict(list)
    for refund in refunds:
        if refund["status"] not in ("failed", "canceled"):
            refunded[refund["payment_intent"]].append(refund["amount"])
    for intent, amounts in refunded.items():
        if len(amounts) > 1:
            yield f"payment {intent} was refunded {len(amounts)} times"


def _sessions_that_do_not_fit(sessions: list[dict[str, Any]]) -> Iterator[str]:
    purchases = {str(purchase.pk): purchase for purchase in Purchase.objects.all()}
    paid_for = set()
    for session in sessions:
        purchase = purchases.get(session["client_reference_id"])
        status = purchase.status if purchase else "missing"
        if session["status"] == "open":
            yield f"session can still be paid, its purchase is {status}"
        if session["payment_status"] == "paid":
            paid_for.add(session["client_reference_id"])
            if status not in PAID_FOR:
                yield f"session was paid, its purchase is {status}"
            elif purchase and purchase.checkout_session_id != session["id"]:
                yield "session was paid, its purchase names another"
    for purchase in purchases.values():
        if (
            purchase.status in PAID_FOR
            and purchase.total_price
            and str(purchase.pk) not in paid_for
        ):
            yield f"purchase is {purchase.status}, but nobody paid"


def _refunds_that_do_not_fit(refunds: list[dict[str, Any]]) -> Iterator[str]:
    sent = {
        refund["payment_intent"]: refund["amount"]
        for refund in refunds
        if refund["status"] == "succeeded"
    }
    for purchase in Purchase.objects.all():
        amount = sent.pop(purchase.payment_intent_id, 0)
        recorded = money.to_minor_units(purchase.refunded_amount, purchase.currency)
        if amount != recorded or (purchase.status == Status.REFUNDED) != (
            amount == purchase.total_minor and amount > 0
        ):
            yield f"purchase is {purchase.status} ({recorded} refunded), Stripe refunded {amount}"
    if sent:
        yield f"refunds of nobody's payments: {sent}"


def _copy_that_does_not_fit(stripe: Sandbox, offer: Offer) -> Iterator[str]:
    if offer.catalog_synced_version != offer.catalog_version:
        yield "Stripe wasn't told of the offer"
    prices = stripe.client.v1.prices.list({"product": f"offer_{offer.pk.hex}", "limit": 100}).data
    active = [(price.id, price.unit_amount) for price in prices if price.active]
    costs = money.to_minor_units(offer.price, offer.currency)
    if active != ([(offer.stripe_price_id, costs)] if offer.price else []):
        yield f"the offer costs {costs} ({offer.stripe_price_id}), Stripe sells at {active}"


def _refunds(stripe: Sandbox) -> list[dict[str, Any]]:
    listed = stripe.client.v1.refunds.list({"limit": 100})
    return [refund.to_dict() for refund in listed.auto_paging_iter()]
