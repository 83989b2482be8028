"""Two things at once, in the order that hurts: each of these once went wrong, or nearly did."""

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import stripe
from django.db import connection, transaction
from django.utils import timezone

from offers import inventory
from offers.models import Offer
from purchases import checkout, holds, stripe_catalog, stripe_gateway, transitions
from purchases.errors import ProviderFailed, ProviderRefused, ProviderUnreachable
from purchases.models import Purchase, PurchaseTransition
from purchases.states import ReleaseReason, Status
from tests.conftest import LATER, at_once, behind, buy, code, counters
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def sweep(now: Any = None) -> list[holds.Ended]:
    now = now or timezone.now() + LATER
    return list(
        holds.end_all(holds.overdue(now=now), reason=ReleaseReason.EXPIRED, now=now, source="sweep")
    )


def after(patch: pytest.MonkeyPatch, module: Any, name: str, then: Callable[[], Any]) -> None:
    """Do ``then`` once, right after the first call of ``module.name`` has returned."""
    original = getattr(module, name)
    waiting = [then]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        answer = original(*args, **kwargs)
        if waiting:
            waiting.pop()()
        return answer

    patch.setattr(module, name, wrapped)


@pytest.fixture
def two_holds(sandbox: Any, client_of: Any) -> tuple[Purchase, Purchase]:
    """Two overdue holds of different offers, the first of which comes first in a sweep."""
    ids = [buy(client_of(UserFactory()), OfferFactory()).json()["id"] for _ in range(2)]
    return Purchase.objects.get(pk=ids[0]), Purchase.objects.get(pk=ids[1])


def test_hold_that_stripe_knows_nothing_of_does_not_keep_the_others_waiting(
    two_holds: tuple[Purchase, Purchase],
) -> None:
    first, second = two_holds
    Purchase.objects.filter(pk=first.pk).update(checkout_session_id="cs_test_gone")
    assert [outcome.error is None for outcome in sweep()] == [False, True]
    assert counters(second.offer) == (0, 0)
    assert counters(first.offer) == (1, 0)


def test_offer_that_is_locked_does_not_keep_other_holds_waiting(
    two_holds: tuple[Purchase, Purchase],
) -> None:
    first, second = two_holds
    locked, done = threading.Event(), threading.Event()

    def keep_locked() -> None:
        with transaction.atomic():
            inventory.lock(first.offer_id)
            locked.set()
            done.wait(timeout=30)
        connection.close()

    holder = threading.Thread(target=keep_locked)
    holder.start()
    locked.wait(timeout=30)
    outcomes = sweep()
    done.set()
    holder.join()
    assert [outcome.error is None for outcome in outcomes] == [False, True]
    assert counters(second.offer) == (0, 0)


def test_session_that_stripe_will_not_expire_keeps_its_hold(
    sandbox: Any, two_holds: tuple[Purchase, Purchase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, and not because it is over: it can still be paid."""
    ask = stripe.StripeClient.raw_request
    monkeypatch.setattr(
        stripe.StripeClient,
        "raw_request",
        lambda client, *_: ask(client, "get", "/v1/checkout/sessions/cs_test_no_such_session"),
    )
    outcomes = sweep()
    assert [type(outcome.error) for outcome in outcomes] == [ProviderRefused] * 2
    assert all(counters(purchase.offer) == (1, 0) for purchase in two_holds)


def test_second_request_with_the_key_waits_or_is_told_so_when_stripe_is_slow(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    user = UserFactory()
    sandbox.faults(latency_ms=2500)
    barrier = threading.Barrier(3)

    def press() -> Any:
        client = client_of(user)
        barrier.wait()
        return buy(client, offer, key="k1")

    answers = at_once([press] * 3)

    refused = [answer for answer in answers if answer.status_code == 409]
    assert {code(answer) for answer in refused} <= {"idempotency_key_in_use"}
    assert len(refused) < 3
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    assert Purchase.objects.get().checkout_failed_at is None
    assert counters(offer) == (1, 0)
    assert len(sandbox.sessions()) == 1


def test_webhook_about_the_expired_session_does_not_take_the_reason_of_a_cancel(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory()
    user = UserFactory()
    purchase = buy(client_of(user), offer).json()
    after(monkeypatch, stripe_gateway, "expire_session", sandbox.deliver)
    answer = client_of(user).post(f"/api/v1/purchases/{purchase['id']}/cancel/")
    assert answer.json()["release_reason"] == "cancelled"
    assert Purchase.objects.get().transitions.last().actor == user
    assert counters(offer) == (0, 0)


def test_key_of_a_request_that_failed_is_free_whoever_released_the_hold(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    sandbox.faults(drop_rate=1.0)
    assert buy(client, offer, key="k1").status_code == 503
    sandbox.faults()
    after(monkeypatch, stripe_gateway, "expire_session", sandbox.deliver)
    sweep(timezone.now())
    answer = buy(client, offer, key="k1")
    assert (answer.status_code, answer.json()["status"]) == (201, "awaiting_payment")
    assert counters(offer) == (1, 0)


def test_session_that_arrives_while_the_hold_is_ended_is_given_to_nobody(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the hold is not forgotten if whoever was ending it gave up."""
    offer = OfferFactory()

    def somebody_ends_it() -> None:
        Purchase.objects.update(ending_until=timezone.now() + timedelta(seconds=60))

    after(monkeypatch, checkout, "create_session", somebody_ends_it)
    answer = buy(client_of(UserFactory()), offer)
    assert answer.status_code == 503
    Purchase.objects.update(ending_until=None)
    assert [outcome.error for outcome in sweep(timezone.now())] == [None]
    assert counters(offer) == (0, 0)
    assert [session["status"] for session in sandbox.sessions()] == ["expired"]


def test_session_is_given_to_its_buyer_when_whoever_ended_the_hold_lets_it_be(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment between the statement that found the hold being ended and the lock."""
    after(
        monkeypatch, checkout, "create_session",
        lambda: Purchase.objects.update(ending_until=timezone.now() + timedelta(seconds=60)),
    )  # fmt: skip
    after(
        monkeypatch,
        transitions,
        "open_checkout",
        lambda: Purchase.objects.update(ending_until=None),
    )
    answer = buy(client_of(UserFactory()), OfferFactory())
    assert (answer.status_code, answer.json()["status"]) == (201, "awaiting_payment")
    assert answer.json()["checkout_url"] == sandbox.sessions()[0]["url"]
    assert PurchaseTransition.objects.filter(name="open_checkout").count() == 1


@pytest.mark.parametrize("is_released", [True, False])
def test_session_waits_for_who_has_the_purchase_and_goes_by_what_they_left(
    sandbox: Any, is_released: bool
) -> None:
    purchase, now = PurchaseFactory(status="reserved"), timezone.now()

    def record() -> bool:
        return transitions.open_checkout(
            purchase, session_id="cs_test_1", url="https://x.example", expires_at=now + LATER,
            now=now, source="tests",
        )  # fmt: skip

    is_open = behind(lambda: release(purchase), record, is_kept=is_released)
    assert is_open is not is_released
    stored = Purchase.objects.get()
    assert stored.status == ("released" if is_released else "awaiting_payment")
    assert stored.checkout_session_id == (None if is_released else "cs_test_1")
    assert stored.transitions.get().name == ("release" if is_released else "open_checkout")


def test_second_attempt_is_not_made_for_a_hold_that_ended_meanwhile(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.faults(error_rate=1.0, error_status=500)
    offer = OfferFactory()
    tries = []

    def fail(*args: Any, **kwargs: Any) -> None:
        tries.append(kwargs)
        purchase = Purchase.objects.get()
        if purchase.status == Status.RESERVED:
            release(purchase)
        raise ProviderFailed

    monkeypatch.setattr(stripe_gateway, "create_session", fail)
    assert buy(client_of(UserFactory()), offer).status_code == 503
    assert len(tries) == 1
    assert counters(offer) == (0, 0)


def release(purchase: Purchase) -> None:
    with transaction.atomic():
        transitions.release(
            transitions.lock(purchase.pk),
            reason=ReleaseReason.STAFF,
            now=timezone.now(),
            source="tests",
        )


def test_delayed_payment_reported_while_a_dead_hold_is_ended_keeps_its_stock(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay_async")

    def away(session_id: str) -> None:
        sandbox.deliver()  # Stripe's API is away, its webhooks are not
        raise ProviderUnreachable

    monkeypatch.setattr(stripe_gateway, "expire_session", away)
    sweep(timezone.now() + timedelta(minutes=40))
    assert Purchase.objects.get().status == Status.PAYMENT_PROCESSING
    assert counters(offer) == (1, 0)


def test_stripe_that_turns_us_away_says_nothing_about_a_session(
    sandbox: Any, client_of: Any
) -> None:
    sandbox.faults(error_rate=1.0, error_status=429)
    purchase = PurchaseFactory()
    Purchase.objects.update(checkout_request={"mode": "payment"})
    sweep()
    assert counters(purchase.offer) == (1, 0)


def test_payment_of_a_wrong_amount_is_noted_and_left_to_staff(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    user = UserFactory()
    purchase = buy(client_of(user), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay", amount_total=1)
    answer = client_of(user).post(f"/api/v1/purchases/{purchase['id']}/cancel/")
    assert (answer.status_code, code(answer)) == (409, "not_cancellable")
    assert "cs_test" not in answer.content.decode().replace(purchase["id"], "")
    assert "took 0.01 USD, but" in Purchase.objects.get().problem
    assert Purchase.objects.get().ending_until is None
    assert sweep() == []
    assert counters(offer) == (1, 0)


def test_stray_payment_that_does_not_fit_does_not_keep_the_others_waiting(
    sandbox: Any, client_of: Any
) -> None:
    offers = [OfferFactory(), OfferFactory()]
    bought = [buy(client_of(UserFactory()), offer).json() for offer in offers]
    for purchase in bought:
        release(Purchase.objects.get(pk=purchase["id"]))
    Purchase.objects.update(stray_session_check_due=True)
    sandbox.act(bought[0]["checkout_session_id"], "pay", amount_total=1)
    sandbox.act(bought[1]["checkout_session_id"], "pay")
    assert holds.settle_stray_sessions(now=timezone.now()) == 2
    assert Purchase.objects.get(pk=bought[0]["id"]).problem
    assert counters(offers[0]) == (0, 0)
    assert counters(offers[1]) == (0, 1)


def test_sync_during_a_save_leaves_the_current_price_active(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save's own nudge comes while the first sync still talks to Stripe."""
    offer = OfferFactory(price=Decimal("50.00"))

    def save_and_sync() -> None:
        again = Offer.objects.get(pk=offer.pk)
        again.price = Decimal("60.00")
        again.save()
        stripe_catalog.sync_offer(offer.pk, now=timezone.now())

    with monkeypatch.context() as patch:
        after(patch, stripe_gateway, "create_price", save_and_sync)
        stripe_catalog.sync_offer(offer.pk, now=timezone.now())
    stripe_catalog.sync_due_offers(now=timezone.now())
    offer.refresh_from_db()
    active = sandbox.client.v1.prices.list({"product": offer.stripe_product_id, "active": True})
    assert [(price.id, price.unit_amount) for price in active.data] == [
        (offer.stripe_price_id, 6000)
    ]


def test_offer_that_can_not_be_told_does_not_keep_the_others_from_stripe(sandbox: Any) -> None:
    impossible, fine = OfferFactory(price=Decimal("50.00")), OfferFactory()
    Offer.objects.filter(pk=impossible.pk).update(price=Decimal("50.50"), currency="JPY")
    assert stripe_catalog.sync_due_offers(now=timezone.now()) == 1
    fine.refresh_from_db()
    assert fine.stripe_price_id is not None


def test_edits_that_are_right_alone_are_refused_when_wrong_together(
    client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = MembershipFactory()
    offer = OfferFactory(event__organization=member.organization, price=Decimal("500.00"))
    client = client_of(member.user)
    url = f"/api/v1/offers/{offer.pk}/"
    lock = inventory.lock

    def yen_first(offer_id: Any) -> Offer:
        Offer.objects.filter(pk=offer_id).update(currency="JPY")
        return lock(offer_id)

    monkeypatch.setattr(inventory, "lock", yen_first)
    answer = client.patch(url, {"price": "500.50"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["attr"] == "price"
    offer.refresh_from_db()
    assert offer.price == Decimal("500.00")


def test_total_beyond_what_stripe_charges_is_refused_with_a_reason(client_of: Any) -> None:
    offer = OfferFactory(price=Decimal("999999.99"), inventory_total=None)
    answer = buy(client_of(UserFactory()), offer, 20)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["attr"] == "quantity"
    assert counters(offer) == (0, 0)


def test_hanging_stripe_is_asked_once_by_a_sweep_and_not_for_each_row(
    sandbox: Any, client_of: Any, settings: Any
) -> None:
    for _ in range(3):
        buy(client_of(UserFactory()), OfferFactory())
    sandbox.faults(error_rate=1.0, error_status=500)
    before = len(sandbox.process.get("requests")["data"])
    dead = timezone.now() + timedelta(minutes=40)
    assert [outcome.error for outcome in sweep(dead)] == [None] * 3
    asked = sandbox.process.get("requests")["data"][before:]
    assert len({request["path"] for request in asked}) == 1  # the first, and its repetition
    OfferFactory.create_batch(3)
    before = len(sandbox.process.get("requests")["data"])
    stripe_catalog.sync_due_offers(now=timezone.now())
    assert len(sandbox.process.get("requests")["data"]) - before <= 2  # with the SDK's repetition
