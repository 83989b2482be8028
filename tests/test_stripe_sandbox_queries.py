"""What a reconciliation asks: filters, expansions and long lists, under a rate limit too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox_process import SandboxProcess, WebhookReceiver, wait_for

LINE: Any = {
    "price_data": {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "T-shirt"}},
    "quantity": 2,
}
LONG_AGO = 1_700_000_000


@pytest.fixture(scope="module")
def process() -> Iterator[SandboxProcess]:
    process = SandboxProcess().start()
    yield process
    process.stop()


@pytest.fixture
def sandbox(process: SandboxProcess) -> SandboxProcess:
    process.control("reset")
    return process


@pytest.fixture
def client(sandbox: SandboxProcess) -> Any:
    return sandbox.client(max_network_retries=0)


def new_session(client: Any) -> Any:
    return client.v1.checkout.sessions.create(
        {"mode": "payment", "line_items": [LINE], "success_url": "https://shop.example/"}
    )


# Sessions and payment intents


def test_sessions_are_found_by_intent_and_by_when_they_were_made(
    sandbox: SandboxProcess, client: Any
) -> None:
    before = int(time.time())
    sessions = [new_session(client) for _ in range(3)]
    intent = sandbox.control(f"sessions/{sessions[1].id}/pay")["payment_intent"]

    def found(**filters: Any) -> list[str]:
        return [session.id for session in client.v1.checkout.sessions.list(filters).data]

    all_of_them = [session.id for session in sessions[::-1]]
    last = max(session.created for session in sessions)
    assert found(payment_intent=intent) == [sessions[1].id]
    assert found(payment_intent="pi_none") == []
    assert found(created={"gte": before, "lte": last}) == all_of_them
    assert found(created={"gte": last + 1}) == []
    assert found(created={"lte": before - 1}) == []
    assert found(created={"gte": before}, payment_intent=intent) == [sessions[1].id]


def test_listed_sessions_bring_their_intents_and_charges_along(
    sandbox: SandboxProcess, client: Any
) -> None:
    paid, opened = new_session(client), new_session(client)
    sandbox.control(f"sessions/{paid.id}/pay")
    for expand in (
        ["data.payment_intent", "data.payment_intent.latest_charge"],
        ["data.payment_intent.latest_charge"],
    ):
        first, second = client.v1.checkout.sessions.list({"expand": expand}).data
        assert (first.id, first.payment_intent) == (opened.id, None)
        assert (second.id, second.payment_intent.status) == (paid.id, "succeeded")
        assert second.payment_intent.latest_charge.amount_captured == 5000
    only_intents = client.v1.checkout.sessions.list({"expand": ["data.payment_intent"]}).data
    assert only_intents[1].payment_intent.latest_charge.startswith("ch_")


def test_one_session_and_its_intent_bring_the_charge_along(
    sandbox: SandboxProcess, client: Any
) -> None:
    expand: Any = {"expand": ["payment_intent.latest_charge"]}
    paid = new_session(client)
    sandbox.control(f"sessions/{paid.id}/pay")
    full = client.v1.checkout.sessions.retrieve(paid.id, expand)
    assert full.payment_intent.latest_charge.status == "succeeded"
    intent = client.v1.payment_intents.retrieve(
        full.payment_intent.id, {"expand": ["latest_charge"]}
    )
    assert intent.latest_charge.id == full.payment_intent.latest_charge.id

    declined, untouched = new_session(client), new_session(client)
    sandbox.control(f"sessions/{declined.id}/decline")
    expired = client.v1.checkout.sessions.expire(declined.id, expand)
    assert (expired.status, expired.payment_intent.status) == ("expired", "canceled")
    assert expired.payment_intent.latest_charge.status == "failed"
    assert client.v1.checkout.sessions.expire(untouched.id, expand).payment_intent is None


# A payment in the last moment


def test_payment_bears_the_time_it_was_made_at(sandbox: SandboxProcess, client: Any) -> None:
    session = new_session(client)
    last_moment = session.expires_at - 1
    sandbox.control(f"sessions/{session.id}/pay", {"created": last_moment})
    paid = client.v1.checkout.sessions.retrieve(
        session.id, {"expand": ["payment_intent.latest_charge"]}
    )
    assert (paid.status, paid.payment_status) == ("complete", "paid")
    assert (paid.created, paid.expires_at) == (session.created, session.expires_at)
    assert paid.payment_intent.created == last_moment
    assert paid.payment_intent.latest_charge.created == last_moment
    events = client.v1.events.list({"created": {"gte": last_moment, "lte": last_moment}}).data
    assert [event.type for event in events] == [
        "checkout.session.completed",
        "charge.succeeded",
        "payment_intent.succeeded",
        "payment_intent.created",
    ]


def test_second_attempt_in_the_last_moment_has_a_charge_of_its_own_time(
    sandbox: SandboxProcess, client: Any
) -> None:
    session = new_session(client)
    sandbox.control(f"sessions/{session.id}/decline", {"created": session.created + 60})
    sandbox.control(f"sessions/{session.id}/pay", {"created": session.expires_at - 1})
    intent = client.v1.checkout.sessions.retrieve(
        session.id, {"expand": ["payment_intent.latest_charge"]}
    ).payment_intent
    assert intent.created == session.created + 60
    assert intent.latest_charge.created == session.expires_at - 1


def test_expired_session_can_not_be_paid_in_its_last_moment(
    sandbox: SandboxProcess, client: Any
) -> None:
    session = new_session(client)
    client.v1.checkout.sessions.expire(session.id)
    with pytest.raises(requests.HTTPError, match="409.*The session is expired"):
        sandbox.control(f"sessions/{session.id}/pay", {"created": session.created + 1})


# Events


def test_more_events_than_a_page_holds_are_paged_through_with_their_filters(
    sandbox: SandboxProcess, client: Any
) -> None:
    sessions = [new_session(client) for _ in range(62)]
    started = int(time.time())
    for session in sessions:
        sandbox.control(f"sessions/{session.id}/pay")
    kinds = ["checkout.session.completed", "charge.succeeded"]
    filters: Any = {"types": kinds, "created": {"gte": started}, "limit": 100}
    events = list(client.v1.events.list(filters).auto_paging_iter())
    assert len(events) == len({event.id for event in events}) == 124
    assert {event.type for event in events} == set(kinds)
    completed = [event.data.object.id for event in events if event.type == kinds[0]]
    assert completed == [session.id for session in sessions[::-1]]
    lists = [r for r in sandbox.get("requests")["data"] if r["path"] == "/v1/events"]
    assert len(lists) == 2


def test_events_are_found_by_type_and_by_when_they_happened(
    sandbox: SandboxProcess, client: Any
) -> None:
    old, new = new_session(client), new_session(client)
    sandbox.control(f"sessions/{old.id}/pay", {"created": LONG_AGO})
    sandbox.control(f"sessions/{new.id}/pay")
    completed: Any = {"types": ["checkout.session.completed"]}

    def found(**created: int) -> list[str]:
        events = client.v1.events.list({**completed, "created": created}).data
        return [event.data.object.id for event in events]

    assert found(gte=LONG_AGO) == [new.id, old.id]
    assert found(gte=LONG_AGO + 1) == [new.id]
    assert found(lte=LONG_AGO) == [old.id]
    twenty: Any = {"types": [*completed["types"], *(f"none.{n}" for n in range(19))]}
    assert len(client.v1.events.list(twenty).data) == 2
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.events.list({"types": [*twenty["types"], "none.19"]})
    assert caught.value.param == "types"


def test_undelivered_events_are_paged_through_too() -> None:
    with WebhookReceiver() as receiver:
        own = SandboxProcess().start(webhook_url=receiver.url)
        try:
            client = own.client()
            delivered, *lost = [new_session(client) for _ in range(102)]
            own.control(f"sessions/{delivered.id}/expire")
            wait_for(lambda: receiver.received)
            own.control("faults", {"webhooks": "drop"})
            for session in lost:
                own.control(f"sessions/{session.id}/expire")
            wait_for(lambda: own.get("webhooks")["data"][-1]["state"] == "dropped")
            filters: Any = {
                "delivery_success": False,
                "types": ["checkout.session.expired"],
                "created": {"gte": delivered.created},
                "limit": 100,
            }
            missed = [
                event.data.object.id for event in client.v1.events.list(filters).auto_paging_iter()
            ]
            assert missed == [session.id for session in lost[::-1]]
            filters["delivery_success"] = True
            arrived = client.v1.events.list(filters).data
            assert [event.data.object.id for event in arrived] == [delivered.id]
        finally:
            own.stop()


# Rate limiting


def outcome(call: Callable[[], Any]) -> Any:
    """What the call returns, or the refusal for asking too often."""
    try:
        return call()
    except stripe.RateLimitError as refusal:
        return refusal


def test_more_requests_a_second_than_allowed_are_refused_as_stripe_does(
    sandbox: SandboxProcess, client: Any
) -> None:
    def mug(number: int) -> Any:
        options: Any = {"idempotency_key": f"mug-{number}"}
        return outcome(lambda: client.v1.products.create({"name": f"Mug {number}"}, options))

    assert sandbox.control("faults", {"rate_limit": 2})["rate_limit"] == 2
    answers = [mug(0)]
    while not isinstance(answers[-1], stripe.RateLimitError):
        answers.append(mug(len(answers)))
    *made, refusal = answers
    assert len(made) >= 2
    assert (refusal.http_status, refusal.error.code) == (429, "rate_limit")
    assert refusal.headers["Stripe-Rate-Limited-Reason"] == "global-rate"
    entry = sandbox.get("requests")["data"][-1]
    assert (entry["status"], entry["fault"]) == (429, "rate_limit")

    # What was refused was not done, nor is the refusal kept under its key.
    last = len(made)
    wait_for(lambda: not isinstance(mug(last), stripe.RateLimitError))
    sandbox.control("faults", {})
    names = [product.name for product in client.v1.products.list({"limit": 100}).data]
    assert names == [f"Mug {number}" for number in reversed(range(last + 1))]


def test_rate_limit_holds_over_any_second(sandbox: SandboxProcess, client: Any) -> None:
    sandbox.control("faults", {"rate_limit": 5})
    passed: list[tuple[float, float]] = []
    refused = 0

    def twelve_have_passed() -> bool:
        nonlocal refused
        asked = time.monotonic()
        if isinstance(outcome(client.v1.products.list), stripe.RateLimitError):
            refused += 1
        else:
            passed.append((asked, time.monotonic()))
        return len(passed) >= 12

    wait_for(twelve_have_passed)
    assert refused
    for (first, _), (_, sixth) in zip(passed, passed[5:], strict=False):
        assert sixth - first >= 1


@pytest.mark.parametrize("off", [{"rate_limit": None}, {"rate_limit": 0}, {}])
def test_rate_limit_is_off_unless_it_is_asked_for(
    sandbox: SandboxProcess, client: Any, off: dict[str, Any]
) -> None:
    sandbox.control("faults", {"rate_limit": 1})
    assert sandbox.control("faults", off)["rate_limit"] == 0
    for _ in range(5):
        client.v1.products.list()


@pytest.mark.parametrize(
    "faults",
    [{"rate_limit": -1}, {"rate_limit": "5"}, {"rate_limit": 1.5}, {"rate_limit": True},
     {"refunds": "slowly"}, {"refunds": None}, {"refunds": ["fail"]}],
)  # fmt: skip
def test_bad_rate_limits_and_refund_modes_are_refused(
    sandbox: SandboxProcess, faults: dict[str, Any]
) -> None:
    in_force = sandbox.get("faults")
    with pytest.raises(requests.HTTPError, match="400 from POST .*must be"):
        sandbox.control("faults", faults)
    assert sandbox.get("faults") == in_force
