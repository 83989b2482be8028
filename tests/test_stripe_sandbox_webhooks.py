"""What buyers, banks and time do to a session, the webhooks that tell of it, and the pay page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import stripe

from tests.sandbox_process import SandboxProcess, WebhookReceiver, wait_for

SECRET = "whsec_of_these_tests"
SUCCESS = "https://shop.example/success?session_id={CHECKOUT_SESSION_ID}"
COMPLETED = "checkout.session.completed"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def process() -> Iterator[SandboxProcess]:
    process = SandboxProcess().start(webhook_secret=SECRET)
    yield process
    process.stop()


@pytest.fixture
def sandbox(process: SandboxProcess, receiver: WebhookReceiver) -> SandboxProcess:
    process.control("reset")
    process.control("webhook-endpoint", {"url": receiver.url, "secret": SECRET})
    return process


def new_session(sandbox: SandboxProcess, **changes: Any) -> Any:
    line: Any = {
        "price_data": {
            "currency": "usd",
            "unit_amount": 2500,
            "product_data": {"name": "Speaker <dinner>"},
        },
        "quantity": 2,
    }
    params: Any = {
        "mode": "payment",
        "line_items": [line],
        "success_url": SUCCESS,
        "cancel_url": "https://shop.example/offers",
        "payment_intent_data": {"metadata": {"purchase": "p-1"}},
        **changes,
    }
    return sandbox.client().v1.checkout.sessions.create(params)


def delivery_of(sandbox: SandboxProcess, kind: str, *, attempts: int = 1) -> dict[str, Any]:
    """The only delivery of a type, once it has had that many attempts."""

    def found() -> dict[str, Any] | None:
        deliveries = [d for d in sandbox.get("webhooks")["data"] if d["type"] == kind]
        assert len(deliveries) <= 1
        return next((d for d in deliveries if len(d["attempts"]) >= attempts), None)

    delivery: dict[str, Any] = wait_for(found)
    return delivery


# What happens to a session


def test_paying_completes_the_session_and_says_so(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    paid = sandbox.control(f"sessions/{session.id}/pay")
    assert (paid["status"], paid["payment_status"], paid["url"]) == ("complete", "paid", None)
    intent = sandbox.client().v1.payment_intents.retrieve(paid["payment_intent"])
    assert (intent.status, intent.amount_received) == ("succeeded", 5000)
    assert intent.metadata.to_dict() == {"purchase": "p-1"}
    wait_for(lambda: receiver.events(COMPLETED))
    event = receiver.events(COMPLETED)[0]
    assert event["data"]["object"] == paid
    assert (event["livemode"], event["api_version"]) == (False, "2026-10-28.endive")


def test_delayed_payment_is_settled_or_fails(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    for act, status, kind in (
        ("settle_async", "paid", "checkout.session.async_payment_succeeded"),
        ("fail_async", "unpaid", "checkout.session.async_payment_failed"),
    ):
        session = new_session(sandbox)
        later = sandbox.control(f"sessions/{session.id}/pay_async")
        assert (later["status"], later["payment_status"]) == ("complete", "unpaid")
        after = sandbox.control(f"sessions/{session.id}/{act}")
        assert (after["status"], after["payment_status"]) == ("complete", status)
        wait_for(partial(receiver.events, kind))
        event = receiver.events(kind)[0]
        assert event["data"]["object"]["id"] == session.id
        with pytest.raises(requests.HTTPError, match="409"):
            sandbox.control(f"sessions/{session.id}/{act}")


def test_declined_card_leaves_the_session_open(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    declined = sandbox.control(f"sessions/{session.id}/decline")
    assert (declined["status"], declined["payment_status"]) == ("open", "unpaid")
    failed = wait_for(lambda: receiver.events("payment_intent.payment_failed"))[0]
    assert failed["data"]["object"]["last_payment_error"]["code"] == "card_declined"
    paid = sandbox.control(f"sessions/{session.id}/pay")
    assert paid["payment_intent"] == declined["payment_intent"]
    assert paid["payment_status"] == "paid"


def test_dispute_names_the_day_by_which_to_answer(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    with pytest.raises(requests.HTTPError, match="only a paid one can be disputed"):
        sandbox.control(f"sessions/{session.id}/dispute")
    sandbox.control(f"sessions/{session.id}/pay")
    sandbox.control(f"sessions/{session.id}/dispute")
    opened = wait_for(lambda: receiver.events("charge.dispute.created"))[0]["data"]["object"]
    assert opened["evidence_details"]["due_by"] > time.time() + 6 * 86400
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.client().v1.refunds.create({"charge": opened["charge"]})
    assert caught.value.code == "charge_disputed"
    assert sandbox.control(f"disputes/{opened['id']}/close", {"status": "won"})["status"] == "won"
    wait_for(lambda: receiver.events("charge.dispute.closed"))


@pytest.mark.parametrize("ended", ["pay", "expire"])
def test_what_has_ended_can_not_be_paid_declined_or_expired(
    sandbox: SandboxProcess, ended: str
) -> None:
    session = new_session(sandbox)
    before = sandbox.control(f"sessions/{session.id}/{ended}")
    for act in ("pay", "pay_async", "settle_async", "fail_async", "decline", "expire"):
        with pytest.raises(requests.HTTPError, match=f"409.*The session is {before['status']}"):
            sandbox.control(f"sessions/{session.id}/{act}")
    assert sandbox.get(f"sessions/{session.id}") == before
    with pytest.raises(requests.HTTPError, match="404"):
        sandbox.control("sessions/cs_test_none/pay")


def test_payment_of_a_wrong_amount_can_be_made_up(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    sandbox.control(f"sessions/{session.id}/pay", {"amount_total": 1, "created": 1_700_000_000})
    event = wait_for(lambda: receiver.events(COMPLETED))[0]
    assert event["data"]["object"]["amount_total"] == 1
    assert event["created"] == 1_700_000_000
    with pytest.raises(requests.HTTPError, match="400.*no option 'colour'"):
        sandbox.control(f"sessions/{session.id}/pay", {"colour": "red"})


# Deliveries


def test_webhook_is_signed_as_the_sdk_expects(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    sandbox.control(f"sessions/{session.id}/expire")
    wait_for(lambda: receiver.events("checkout.session.expired"))
    header, body = receiver.received[-1]
    event = stripe.Webhook.construct_event(body, header, SECRET)
    assert event.data.object.id == session.id
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, header, "whsec_another")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", header, SECRET)


def test_webhook_is_tried_again_until_it_is_accepted(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    receiver.answers = [500, 302]
    sandbox.control(f"sessions/{session.id}/expire")
    first = delivery_of(sandbox, "checkout.session.expired")
    undelivered: Any = {"delivery_success": False}
    assert [e.id for e in sandbox.client().v1.events.list(undelivered).data] == [first["event_id"]]
    delivery = delivery_of(sandbox, "checkout.session.expired", attempts=3)
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 302, 200]
    assert delivery["state"] == "delivered"
    assert delivery["url"] == receiver.url
    times = [attempt["time"] for attempt in delivery["attempts"]]
    # Never sooner than planned; how much later is the machine's business.
    assert times[1] - times[0] >= 0.99
    assert times[2] - times[1] >= 1.99
    assert sandbox.client().v1.events.list(undelivered).data == []
    event = sandbox.client().v1.events.retrieve(first["event_id"])
    assert event.pending_webhooks == 0


def test_webhook_to_nobody_is_noted_and_can_be_sent_again(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    sandbox.control("webhook-endpoint", {"url": "http://127.0.0.1:1/"})
    sandbox.control(f"sessions/{session.id}/expire")
    delivery = delivery_of(sandbox, "checkout.session.expired")
    assert delivery["attempts"][0]["status"] is None
    assert "ConnectError" in delivery["attempts"][0]["error"]
    sandbox.control("webhook-endpoint", {"url": receiver.url})
    again = sandbox.control(f"webhooks/{delivery['event_id']}/resend")
    assert again["state"] == "delivered"
    assert again["attempts"][-1]["status"] == 200
    with pytest.raises(requests.HTTPError, match="404"):
        sandbox.control("webhooks/evt_none/resend")


def test_dropped_webhook_never_arrives_unless_it_is_sent_again(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    sandbox.control("faults", {"webhooks": "drop"})
    sandbox.control(f"sessions/{session.id}/expire")
    delivery = delivery_of(sandbox, "checkout.session.expired")
    assert delivery["state"] == "dropped"
    assert receiver.received == []
    missed = sandbox.client().v1.events.list({"delivery_success": False})
    assert [event.id for event in missed.data] == [delivery["event_id"]]
    sandbox.control(f"webhooks/{delivery['event_id']}/resend")
    assert len(receiver.events("checkout.session.expired")) == 1


def test_duplicated_webhook_arrives_twice_with_one_id(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    sandbox.control("faults", {"webhooks": "duplicate"})
    sandbox.control(f"sessions/{session.id}/expire")
    wait_for(lambda: len(receiver.events("checkout.session.expired")) == 2)
    assert len({event["id"] for event in receiver.events()}) == 1


def test_reordered_webhooks_arrive_the_last_first(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    session = new_session(sandbox)
    sandbox.control("faults", {"webhooks": "reorder"})
    sandbox.control(f"sessions/{session.id}/pay_async")
    sandbox.control(f"sessions/{session.id}/settle_async")
    happened = [event.id for event in sandbox.client().v1.events.list({"limit": 100}).data]
    wait_for(lambda: len(receiver.events()) == len(happened))
    assert [event["id"] for event in receiver.events()] == happened


def test_delayed_webhook_arrives_later(sandbox: SandboxProcess, receiver: WebhookReceiver) -> None:
    session = new_session(sandbox)
    sandbox.control("faults", {"webhook_delay_ms": 600})
    started = time.monotonic()
    sandbox.control(f"sessions/{session.id}/expire")
    wait_for(lambda: receiver.received)
    assert time.monotonic() - started >= 0.6


def test_slow_receiver_does_not_hold_up_the_other_events(
    sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    sessions = [new_session(sandbox) for _ in range(10)]
    receiver.delay = 0.5
    for session in sessions:
        sandbox.control(f"sessions/{session.id}/expire")
    started = time.monotonic()
    wait_for(lambda: all(d["state"] == "delivered" for d in sandbox.get("webhooks")["data"]))
    assert time.monotonic() - started < 3


def test_undelivered_webhook_survives_a_restart(tmp_path: Path, receiver: WebhookReceiver) -> None:
    own = SandboxProcess().start(data=tmp_path / "stripe.db", webhook_url=receiver.url)
    try:
        receiver.answers = [503]
        session = new_session(own)
        own.control(f"sessions/{session.id}/expire")
        delivery_of(own, "checkout.session.expired")
        own.kill()
        own.restart()
        delivery = delivery_of(own, "checkout.session.expired", attempts=2)
        assert [attempt["status"] for attempt in delivery["attempts"]] == [503, 200]
    finally:
        own.stop()


def test_without_an_address_events_are_only_recorded() -> None:
    own = SandboxProcess().start()
    try:
        session = new_session(own)
        own.control(f"sessions/{session.id}/pay")
        events = own.client().v1.events.list({"type": COMPLETED}).data
        assert [event.pending_webhooks for event in events] == [0]
        assert own.get("webhooks")["data"] == []
        with pytest.raises(requests.HTTPError, match="409.*--webhook-url"):
            own.control(f"webhooks/{events[0].id}/resend")
    finally:
        own.stop()


def test_reset_forgets_everything(sandbox: SandboxProcess, receiver: WebhookReceiver) -> None:
    session = new_session(sandbox)
    receiver.answers = [500] * 5
    sandbox.control(f"sessions/{session.id}/expire")
    delivery_of(sandbox, "checkout.session.expired")
    sandbox.control("faults", {"latency_ms": 10})
    sandbox.control("reset")
    assert sandbox.get("webhooks")["data"] == []
    assert sandbox.get("requests")["data"] == []
    assert sandbox.get("faults")["latency_ms"] == 0
    with pytest.raises(requests.HTTPError, match="404"):
        sandbox.get(f"sessions/{session.id}")
    assert sandbox.client().v1.events.list().data == []


# The pay page


def click(url: str, action: str, **fields: str) -> requests.Response:
    return requests.post(url, data={"action": action, **fields}, timeout=5, allow_redirects=False)


def test_pay_page_shows_what_is_bought_and_leads_back_to_the_shop(sandbox: SandboxProcess) -> None:
    session = new_session(sandbox)
    page = requests.get(session.url, timeout=5)
    assert page.status_code == 200
    assert "Speaker &lt;dinner&gt;" in page.text
    assert "$50.00" in page.text
    assert 'href="https://shop.example/offers"' in page.text
    paid = click(session.url, "pay", email="ada@example.com", name="Ada")
    assert paid.status_code == 303
    query = parse_qs(urlsplit(paid.headers["Location"]).query)
    assert query == {"session_id": [session.id]}
    after = sandbox.get(f"sessions/{session.id}")
    assert after["payment_status"] == "paid"
    assert after["customer_details"]["email"] == "ada@example.com"
    assert "This checkout is complete" in requests.get(session.url, timeout=5).text


def test_pay_page_can_pay_later_and_decline(sandbox: SandboxProcess) -> None:
    session = new_session(sandbox)
    declined = click(session.url, "decline")
    assert declined.status_code == 200
    assert "Your card was declined. Try another card or go back." in declined.text
    assert click(session.url, "pay_later").status_code == 303
    after = sandbox.get(f"sessions/{session.id}")
    assert (after["status"], after["payment_status"]) == ("complete", "unpaid")
    assert click(session.url, "steal").status_code == 400


def test_pay_page_of_an_expired_session_charges_nothing(sandbox: SandboxProcess) -> None:
    session = new_session(sandbox)
    sandbox.client().v1.checkout.sessions.expire(session.id)
    assert "This checkout has expired" in requests.get(session.url, timeout=5).text
    late = click(session.url, "pay")
    assert late.status_code == 200
    assert "This checkout has expired" in late.text
    assert sandbox.get(f"sessions/{session.id}")["payment_status"] == "unpaid"


def test_pay_page_asks_for_an_address_where_one_is_needed(sandbox: SandboxProcess) -> None:
    session = new_session(sandbox, shipping_address_collection={"allowed_countries": ["DE", "US"]})
    assert 'name="postal_code"' in requests.get(session.url, timeout=5).text
    typed = {"line1": "Unter den Linden 1", "city": "Berlin", "postal_code": "10117"}
    click(session.url, "pay", name="Ada", country="DE", **typed)
    after = sandbox.get(f"sessions/{session.id}")
    details = after["collected_information"]["shipping_details"]
    assert details["name"] == "Ada"
    assert details["address"] == {**typed, "country": "DE", "line2": None, "state": None}


def test_front_page_lists_sessions_and_faults(sandbox: SandboxProcess) -> None:
    session = new_session(sandbox, client_reference_id="purchase-7")
    sandbox.control("faults", {"latency_ms": 20})
    page = requests.get(sandbox.base_url, timeout=5).text
    assert session.id[-10:] in page
    assert "purchase-7" in page
    assert "latency_ms = 20" in page
