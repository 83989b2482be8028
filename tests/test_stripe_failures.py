"""Stripe fails, hangs, or loses its answer: the buyer hears 503 and no stock is lost or doubled."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from offers.errors import DomainError
from purchases import holds, refunds, stripe_gateway, stripe_traffic
from purchases.errors import ProviderUnreachable
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from purchases.tasks import end_overdue_holds
from tests.conftest import LATER, buy, code, counters, release_unasked
from tests.factories import OfferFactory, UserFactory
from tests.ports import own_port

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def quick_timeouts(settings: Any) -> None:
    """The same code with shorter patience, so that a hanging Stripe costs a test one second."""
    settings.STRIPE_READ_TIMEOUT = 0.4
    stripe_gateway._client.cache_clear()
    yield
    stripe_gateway._client.cache_clear()


def sweep(now: Any = None) -> list[DomainError | None]:
    now = now or timezone.now()
    outcomes = holds.end_all(
        holds.overdue(now=now), reason=ReleaseReason.EXPIRED, now=now, source="sweep"
    )
    return [outcome.error for outcome in outcomes]


def test_answer_500_gives_the_hold_back_at_once(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    sandbox.faults(error_rate=1.0, error_status=500)

    answer = buy(client, offer, key="k1")

    assert (answer.status_code, code(answer)) == (503, "payment_provider_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert counters(offer) == (0, 0)
    assert Purchase.objects.get().release_reason == "provider_error"
    sandbox.faults()
    again = buy(client, offer, key="k1")
    assert again.status_code == 201
    assert counters(offer) == (1, 0)


def test_one_500_is_overcome_by_a_second_attempt_with_a_new_key(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.faults(error_rate=1.0, error_status=500)
    offer = OfferFactory()
    ask = stripe_gateway.create_session
    keys = []

    def mended_after_the_first(request: Any, *, idempotency_key: str) -> Any:
        keys.append(idempotency_key)
        if len(keys) == 2:
            sandbox.faults()
        return ask(request, idempotency_key=idempotency_key)

    monkeypatch.setattr(stripe_gateway, "create_session", mended_after_the_first)

    answer = buy(client_of(UserFactory()), offer)

    assert answer.status_code == 201
    assert [key.rpartition(":")[2] for key in keys] == ["1", "2"]
    assert counters(offer) == (1, 0)


def test_session_that_stripe_opened_in_spite_of_a_500_is_closed_by_the_sweep(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    sandbox.faults(error_rate=1.0, error_status=500)
    buy(client_of(UserFactory()), offer)
    sandbox.faults()
    purchase = Purchase.objects.get()
    assert purchase.stray_session_check_due
    # Stripe calls what it did in such a case indeterminate: here it did open one.
    request = {
        "mode": "payment",
        "line_items": [
            {
                "price_data": {
                    "currency": "usd",
                    "unit_amount": 5000,
                    "product_data": {"name": "x"},
                },
                "quantity": 1,
            }
        ],
        "client_reference_id": str(purchase.pk),
        "success_url": "http://testserver/",
    }
    stray = sandbox.client.v1.checkout.sessions.create(request)

    end_overdue_holds()

    assert sandbox.client.v1.checkout.sessions.retrieve(stray.id).status == "expired"
    assert not Purchase.objects.get().stray_session_check_due
    assert counters(offer) == (0, 0)


def test_refusal_by_stripe_gives_the_hold_back(sandbox: Any, client_of: Any, settings: Any) -> None:
    settings.FRONTEND_URL = "not-an-address"
    offer = OfferFactory(title="")
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, code(answer)) == (503, "payment_provider_unavailable")
    assert counters(offer) == (0, 0)


def test_nothing_is_held_during_a_long_pause_after_a_429(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    stripe_traffic.backoff._pause = stripe_traffic.backoff.LONGEST
    stripe_traffic.backoff._until = time.monotonic() + 30
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, code(answer)) == (503, "payment_provider_unavailable")
    assert not Purchase.objects.exists()
    assert sandbox.requests("POST", "/v1/checkout/sessions") == []


def test_repetition_is_answered_during_a_long_pause_after_a_429(
    sandbox: Any, client_of: Any
) -> None:
    client, offer = client_of(UserFactory()), OfferFactory()
    first = buy(client, offer, key="once")
    stripe_traffic.backoff._pause = stripe_traffic.backoff.LONGEST
    stripe_traffic.backoff._until = time.monotonic() + 30
    again = buy(client, offer, key="once")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


@pytest.mark.parametrize(
    "fault",
    [
        {"hang_rate": 1.0},
        {"hang_rate": 1.0, "hang_after_work": True},
        {"drop_rate": 1.0},
    ],
    ids=["hangs", "hangs after opening the session", "drops the connection after opening it"],
)
def test_lost_answer_keeps_the_hold_until_the_sweep_has_asked(
    sandbox: Any, client_of: Any, quick_timeouts: None, fault: dict[str, Any]
) -> None:
    offer = OfferFactory()
    sandbox.faults(**fault)

    answer = buy(client_of(UserFactory()), offer, key="k1")

    assert (answer.status_code, code(answer)) == (503, "payment_provider_unavailable")
    assert counters(offer) == (1, 0)
    assert isinstance(sweep()[0], ProviderUnreachable)  # Stripe still can't be asked
    assert counters(offer) == (1, 0)

    sandbox.faults()
    assert sweep() == [None]  # at once: the buyer was told 503, so nobody waits for 15 minutes

    assert counters(offer) == (0, 0)
    assert Purchase.objects.get().release_reason == "provider_error"
    assert [session["status"] for session in sandbox.sessions()] == ["expired"]


def test_retry_after_a_lost_answer_takes_the_same_hold_up(
    sandbox: Any, client_of: Any, quick_timeouts: None
) -> None:
    offer = OfferFactory(inventory_total=1)
    client = client_of(UserFactory())
    sandbox.faults(drop_rate=1.0)
    buy(client, offer, key="k1")
    sandbox.faults()

    answer = buy(client, offer, key="k1")

    assert (answer.status_code, answer.json()["status"]) == (200, "awaiting_payment")
    assert counters(offer) == (1, 0)
    assert [session["status"] for session in sandbox.sessions()] == ["open"]
    assert sweep() == []


@pytest.fixture
def nobody_there(settings: Any) -> Callable[[bool], None]:
    """Whether Stripe's address is one where connections are refused."""
    real, nowhere = settings.STRIPE_API_BASE, f"http://127.0.0.1:{own_port()}"

    def switch(away: bool) -> None:
        settings.STRIPE_API_BASE = nowhere if away else real

    switch(True)
    return switch


def test_purchase_that_reached_nobody_gives_the_hold_back_at_once(
    sandbox: Any, client_of: Any, nobody_there: Any
) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())

    answer = buy(client, offer, key="k1")

    assert (answer.status_code, code(answer)) == (503, "payment_provider_unavailable")
    assert counters(offer) == (0, 0)
    assert Purchase.objects.get().release_reason == "provider_error"
    nobody_there(False)
    assert buy(client, offer, key="k1").status_code == 201
    assert counters(offer) == (1, 0)
    assert [session["status"] for session in sandbox.sessions()] == ["open"]


def test_repetition_that_reached_nobody_keeps_the_hold(
    sandbox: Any, client_of: Any, quick_timeouts: None, nobody_there: Any
) -> None:
    """What the first request asked may have been done, or may yet be."""
    offer = OfferFactory()
    client = client_of(UserFactory())
    nobody_there(False)
    sandbox.faults(drop_rate=1.0)
    buy(client, offer, key="k1")
    nobody_there(True)

    assert code(buy(client, offer, key="k1")) == "payment_provider_unavailable"

    assert counters(offer) == (1, 0)
    nobody_there(False)
    sandbox.faults()
    assert sweep() == [None]
    assert counters(offer) == (0, 0)
    assert [session["status"] for session in sandbox.sessions()] == ["expired"]


def test_hanging_stripe_is_given_up_within_15_seconds(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    sandbox.faults(hang_rate=1.0)
    started = time.monotonic()
    assert buy(client_of(UserFactory()), offer).status_code == 503
    assert time.monotonic() - started < 15


def test_missing_key_is_said_in_the_log_and_gives_the_hold_back(
    client_of: Any, settings: Any, caplog: Any
) -> None:
    settings.STRIPE_SECRET_KEY = ""
    offer = OfferFactory()
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, code(answer)) == (503, "payment_provider_unavailable")
    assert counters(offer) == (0, 0)
    assert "set STRIPE_SECRET_KEY" in caplog.text


def test_stripe_is_never_called_inside_a_transaction(sandbox: Any) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="inside a transaction"):
        stripe_gateway.retrieve_session("cs_test_x")


# -- Ending holds ---------------------------------------------------------------------------------


def test_overdue_hold_is_expired_at_stripe_and_then_released(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    buy(client_of(UserFactory()), offer, 2)
    assert sweep() == []  # not yet
    assert sweep(timezone.now() + LATER) == [None]
    assert counters(offer) == (0, 0)
    assert Purchase.objects.get().release_reason == "expired"
    assert [session["status"] for session in sandbox.sessions()] == ["expired"]


def test_overdue_hold_that_was_paid_is_recorded_as_paid(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay")  # and its webhook got lost
    assert sweep(timezone.now() + LATER) == [None]
    assert Purchase.objects.get().status == Status.PAID
    assert counters(offer) == (0, 1)


def test_overdue_hold_that_is_being_settled_keeps_its_stock(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay_async")
    sweep(timezone.now() + LATER)
    assert Purchase.objects.get().status == Status.PAYMENT_PROCESSING
    assert sweep(timezone.now() + timedelta(days=5)) == []
    assert counters(offer) == (1, 0)


def test_overdue_hold_whose_delayed_payment_failed_unheard_is_released_at_once(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    for what in ("pay_async", "fail_async"):
        sandbox.act(purchase["checkout_session_id"], what)
    assert sweep(timezone.now() + LATER) == [None]
    assert Purchase.objects.get().release_reason == "payment_failed"
    assert counters(offer) == (0, 0)


def test_overdue_hold_stays_while_stripe_is_away_and_its_session_could_be_paid(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.faults(error_rate=1.0, error_status=500)
    assert sweep(timezone.now() + LATER) != [None]
    assert counters(offer) == (1, 0)

    # 40 minutes after the purchase the session has died by itself: that needs no asking.
    assert sweep(timezone.now() + timedelta(minutes=40)) == [None]
    assert counters(offer) == (0, 0)

    # It was paid in its last minute after all, which comes to light when Stripe is back.
    sandbox.faults()
    sandbox.act(purchase["checkout_session_id"], "pay")
    holds.settle_stray_sessions(now=timezone.now())
    assert Purchase.objects.get().status == Status.PAID
    assert counters(offer) == (0, 1)


def test_crashed_request_without_a_session_is_released_when_overdue(sandbox: Any) -> None:
    """Its session never existed: asked again, Stripe opens one, which is expired at once."""
    from tests.factories import PurchaseFactory

    purchase = PurchaseFactory()
    Purchase.objects.filter(pk=purchase.pk).update(
        checkout_request={
            "mode": "payment",
            "line_items": [{"price": "price_gone", "quantity": 1}],
            "success_url": "http://testserver/",
        }
    )
    assert sweep(timezone.now() + LATER) == [None]
    assert counters(purchase.offer) == (0, 0)


def test_paid_too_late_takes_stock_again_while_there_is_some(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=1)
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    release_unasked(purchase["id"])
    sandbox.deliver()
    assert Purchase.objects.get().status == Status.PAID
    assert counters(offer) == (0, 1)


def test_paid_too_late_with_nothing_left_is_refunded(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=1)
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    release_unasked(purchase["id"])
    buy(client_of(UserFactory()), offer)  # somebody else has the last unit now

    sandbox.deliver()

    late = Purchase.objects.get(pk=purchase["id"])
    assert late.status == Status.REFUND_DUE
    assert refunds.send_due(now=timezone.now()) == 1
    late.refresh_from_db()
    assert (late.status, late.refunded_amount) == (Status.REFUNDED, late.total_price)
    assert refunds.send_due(now=timezone.now()) == 0
    assert len(sandbox.client.v1.refunds.list().data) == 1
    assert counters(offer) == (1, 0)
