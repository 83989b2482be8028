"""Webhooks as Stripe sends them: repeated, at once, out of order, forged, wrong."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from purchases import webhooks
from purchases.models import Purchase, PurchaseTransition, StripeEvent
from purchases.states import Status
from tests.conftest import WEBHOOK_SECRET, at_once, buy, counters, sign
from tests.factories import OfferFactory, UserFactory
from tests.sandbox_process import SandboxProcess, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/webhooks/stripe/"
COMPLETED = "checkout.session.completed"


def post(event: Any, signature: str | None = None, client: Client | None = None) -> Any:
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    return (client or Client()).post(
        URL,
        payload,
        content_type="application/json",
        headers={"Stripe-Signature": sign(payload) if signature is None else signature},
    )


@pytest.fixture
def paid(sandbox: Any, client_of: Any) -> dict[str, Any]:
    """The event of a payment that we haven't heard of yet."""
    purchase = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    return sandbox.events(COMPLETED)[0]


def times_paid() -> int:
    return PurchaseTransition.objects.filter(to_status=Status.PAID).count()


def test_same_webhook_twice_is_processed_once(paid: dict[str, Any]) -> None:
    assert [post(paid).status_code for _ in range(2)] == [200, 200]
    assert StripeEvent.objects.get().state == StripeEvent.State.PROCESSED
    assert times_paid() == 1
    assert counters(Purchase.objects.get().offer) == (0, 1)


def test_same_webhook_ten_times_at_once_is_processed_once(paid: dict[str, Any]) -> None:
    barrier = threading.Barrier(10)

    def deliver() -> int:
        barrier.wait()
        return post(paid).status_code

    assert at_once([deliver] * 10) == [200] * 10
    assert StripeEvent.objects.count() == 1
    assert times_paid() == 1
    assert counters(Purchase.objects.get().offer) == (0, 1)


@pytest.mark.parametrize("order", ["as they happened", "the other way round"])
@pytest.mark.parametrize("end", ["settle_async", "fail_async"])
def test_order_of_webhooks_does_not_matter(
    sandbox: Any, client_of: Any, order: str, end: str
) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay_async")
    sandbox.act(purchase["checkout_session_id"], end)
    events = [e for e in sandbox.events() if e["type"].startswith("checkout.session.")]
    assert len(events) == 2
    for event in events if order == "as they happened" else reversed(events):
        assert post(event).status_code == 200
    settled = end == "settle_async"
    assert Purchase.objects.get().status == (Status.PAID if settled else Status.RELEASED)
    assert counters(offer) == ((0, 1) if settled else (0, 0))


def test_webhook_that_overtakes_the_answer_to_our_request_finds_the_purchase(
    sandbox: Any, paid: dict[str, Any]
) -> None:
    """The session's id isn't on record yet, but its client_reference_id is ours."""
    Purchase.objects.update(checkout_session_id=None, status=Status.RESERVED)
    post(paid)
    purchase = Purchase.objects.get()
    assert purchase.status == Status.PAID
    assert purchase.checkout_session_id == paid["data"]["object"]["id"]


@pytest.mark.parametrize(
    "signature",
    ["", "nonsense", "t=1,v1=00", sign(b"{}"), sign(b"{}", "whsec_other"), "t=999,v1=é"],
    ids=["none", "nonsense", "old", "of another body", "of another secret", "not ASCII"],
)
def test_bad_signature_is_refused_and_nothing_is_stored(
    paid: dict[str, Any], signature: str
) -> None:
    assert post(paid, signature).status_code == 400
    assert not StripeEvent.objects.exists()
    assert times_paid() == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b"{}", b'{"id": 1}', b'{"id": "evt_1"}', b"\xff\xfe"],
)
def test_signed_nonsense_is_refused(body: bytes) -> None:
    signature = sign(body.decode("utf-8", "replace"))
    assert post(body, signature).status_code == 400
    assert not StripeEvent.objects.exists()


def test_either_secret_is_valid_while_one_is_rotated(paid: dict[str, Any], settings: Any) -> None:
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new", "whsec_tests"]
    payload = json.dumps(paid).encode()
    assert post(payload, sign(payload, "whsec_new")).status_code == 200
    assert post(payload, sign(payload, "whsec_tests")).status_code == 200
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new"]
    assert post(payload, sign(payload, "whsec_tests")).status_code == 400


def test_event_about_an_unknown_session_is_stored_and_left_alone(paid: dict[str, Any]) -> None:
    paid["data"]["object"] |= {"id": "cs_test_other", "client_reference_id": "order-7"}
    assert post(paid).status_code == 200
    assert StripeEvent.objects.get().state == StripeEvent.State.IGNORED
    assert times_paid() == 0


def test_event_of_an_unknown_type_is_stored_and_left_alone(paid: dict[str, Any]) -> None:
    assert post(paid | {"type": "customer.created"}).status_code == 200
    assert StripeEvent.objects.get().state == StripeEvent.State.IGNORED


def test_event_of_live_mode_is_left_alone_under_a_test_key(paid: dict[str, Any]) -> None:
    paid["data"]["object"]["livemode"] = True
    post(paid)
    assert StripeEvent.objects.get().state == StripeEvent.State.IGNORED
    assert times_paid() == 0


@pytest.mark.parametrize("wrong", [{"amount_total": 1}, {"currency": "eur"}], ids=str)
def test_payment_of_a_wrong_amount_is_kept_for_staff_and_moves_nothing(
    paid: dict[str, Any], wrong: dict[str, Any]
) -> None:
    paid["data"]["object"] |= wrong
    assert post(paid).status_code == 200
    event = StripeEvent.objects.get()
    assert event.state == StripeEvent.State.FAILED
    assert "PaymentMismatch" in event.error
    assert Purchase.objects.get().status == Status.AWAITING_PAYMENT
    assert counters(Purchase.objects.get().offer) == (1, 0)


def test_event_that_fails_is_processed_again_by_the_sweep(
    paid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setitem(webhooks.HANDLERS, COMPLETED, broken)
        assert post(paid).status_code == 200
    event = StripeEvent.objects.get()
    assert (event.state, event.attempts) == (StripeEvent.State.FAILED, 1)
    assert "ZeroDivisionError" in event.error

    assert webhooks.process_unprocessed(now=timezone.now()) == 0  # put off for a while
    assert webhooks.process_unprocessed(now=timezone.now() + timedelta(minutes=1)) == 1
    assert times_paid() == 1


def test_event_whose_request_died_after_storing_it_is_processed_by_the_sweep(
    paid: dict[str, Any],
) -> None:
    StripeEvent.objects.create(
        id=paid["id"],
        type=paid["type"],
        created=timezone.now(),
        payload=paid,
        received_at=timezone.now() - timedelta(minutes=2),
        due_at=timezone.now() - timedelta(minutes=1),
    )
    assert webhooks.process_unprocessed(now=timezone.now()) == 1
    assert times_paid() == 1


def test_webhooks_reach_us_over_http_in_spite_of_duplicates_and_reordering(
    client_of: Any, live_server: Any, settings: Any
) -> None:
    """Nothing is passed by hand here: a sandbox delivers to a server that listens."""
    stripe = SandboxProcess().start(
        webhook_url=f"{live_server.url}{URL}", webhook_secret=WEBHOOK_SECRET
    )
    settings.STRIPE_API_BASE = stripe.base_url
    try:
        offer = OfferFactory()
        purchase = buy(client_of(UserFactory()), offer).json()
        session = f"sessions/{purchase['checkout_session_id']}"
        stripe.control("faults", {"webhooks": "duplicate"})
        stripe.control(f"{session}/pay_async")
        stripe.control("faults", {"webhooks": "reorder"})
        stripe.control(f"{session}/settle_async")
        wait_for(lambda: Purchase.objects.get().status == Status.PAID)
        wait_for(lambda: all(answered(delivery) for delivery in stripe.get("webhooks")["data"]))
    finally:
        stripe.stop()
    assert counters(offer) == (0, 1)


def answered(delivery: dict[str, Any]) -> bool:
    return bool(delivery["attempts"]) and delivery["attempts"][-1]["status"] == 200
