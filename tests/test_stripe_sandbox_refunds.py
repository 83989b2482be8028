"""Refunds that take their time or fail, and those that somebody makes in Stripe's dashboard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox_process import SandboxProcess, wait_for

LINE: Any = {
    "price_data": {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "T-shirt"}},
    "quantity": 2,
}


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


def paid_session(sandbox: SandboxProcess, client: Any) -> Any:
    """The JSON of a session of 5000 whose buyer has paid."""
    return sandbox.control(f"sessions/{new_session(client).id}/pay")


def told(client: Any) -> list[tuple[str, str]]:
    """Type and status (or refunded amount) of the events about refunds, the first one first."""
    kinds = {"types": ["refund.created", "refund.updated", "refund.failed", "charge.refunded"]}
    events = list(client.v1.events.list({**kinds, "limit": 100}).auto_paging_iter())[::-1]
    return [
        (
            event.type,
            event.data.object.status
            if event.data.object.object == "refund"
            else str(event.data.object.amount_refunded),
        )
        for event in events
    ]


def test_refund_can_stay_pending_until_it_is_settled(sandbox: SandboxProcess, client: Any) -> None:
    intent = paid_session(sandbox, client)["payment_intent"]
    assert sandbox.control("faults", {"refunds": "pending"})["refunds"] == "pending"
    refund = client.v1.refunds.create({"payment_intent": intent, "amount": 2000})
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert client.v1.charges.retrieve(refund.charge).amount_refunded == 2000
    assert told(client) == [("refund.created", "pending"), ("charge.refunded", "2000")]

    settled = sandbox.control(f"refunds/{refund.id}/settle")
    assert settled["status"] == "succeeded"
    assert "pending_reason" not in settled
    assert client.v1.refunds.retrieve(refund.id).status == "succeeded"
    assert told(client)[2:] == [("refund.updated", "succeeded")]
    with pytest.raises(requests.HTTPError, match="409.*The refund is succeeded"):
        sandbox.control(f"refunds/{refund.id}/settle")


@pytest.mark.parametrize("before", ["pending", "succeeded"])
def test_refund_can_fail_whether_it_was_pending_or_had_succeeded(
    sandbox: SandboxProcess, client: Any, before: str
) -> None:
    intent = paid_session(sandbox, client)["payment_intent"]
    sandbox.control("faults", {"refunds": "pending"})
    refund = client.v1.refunds.create({"payment_intent": intent})
    assert client.v1.charges.retrieve(refund.charge).refunded
    if before == "succeeded":
        sandbox.control(f"refunds/{refund.id}/settle")
    already_told = len(told(client))

    failed = sandbox.control(f"refunds/{refund.id}/fail")
    assert failed["status"] == "failed"
    assert failed["failure_reason"]
    assert failed["failure_balance_transaction"]
    assert "pending_reason" not in failed
    charge = client.v1.charges.retrieve(refund.charge)
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert told(client)[already_told:] == [
        ("refund.updated", "failed"),
        ("refund.failed", "failed"),
    ]
    for act in ("settle", "fail"):
        with pytest.raises(requests.HTTPError, match="409.*The refund is failed"):
            sandbox.control(f"refunds/{refund.id}/{act}")
    assert client.v1.refunds.create({"payment_intent": intent}).amount == 5000


def test_refund_made_to_fail_is_pending_first_and_fails_by_itself(
    sandbox: SandboxProcess, client: Any
) -> None:
    intent = paid_session(sandbox, client)["payment_intent"]
    sandbox.control("faults", {"refunds": "fail"})
    refund = client.v1.refunds.create({"payment_intent": intent})
    assert refund.status == "pending"
    wait_for(lambda: client.v1.refunds.retrieve(refund.id).status == "failed")
    assert told(client) == [
        ("refund.created", "pending"),
        ("charge.refunded", "5000"),
        ("refund.updated", "failed"),
        ("refund.failed", "failed"),
    ]
    assert client.v1.charges.retrieve(refund.charge).amount_refunded == 0
    request = client.v1.events.list({"type": "refund.failed"}).data[0].request
    assert request.id is None


def test_refund_settled_in_time_does_not_fail_by_itself_any_more(
    sandbox: SandboxProcess, client: Any
) -> None:
    intents = [paid_session(sandbox, client)["payment_intent"] for _ in range(2)]
    sandbox.control("faults", {"refunds": "fail"})
    first = client.v1.refunds.create({"payment_intent": intents[0]})
    sandbox.control(f"refunds/{first.id}/settle")
    second = client.v1.refunds.create({"payment_intent": intents[1]})
    wait_for(lambda: client.v1.refunds.retrieve(second.id).status == "failed")
    assert client.v1.refunds.retrieve(first.id).status == "succeeded"


def test_refund_made_to_fail_does_so_after_a_restart_too(tmp_path: Path) -> None:
    own = SandboxProcess().start(data=tmp_path / "stripe.db")
    try:
        client = own.client()
        intent = paid_session(own, client)["payment_intent"]
        own.control("faults", {"refunds": "fail"})
        refund = client.v1.refunds.create({"payment_intent": intent})
        own.kill()
        own.restart()
        wait_for(lambda: client.v1.refunds.retrieve(refund.id).status == "failed")
    finally:
        own.stop()


def test_refund_in_the_dashboard_has_no_metadata_and_sends_the_same_events(
    sandbox: SandboxProcess, client: Any
) -> None:
    session = paid_session(sandbox, client)
    part = sandbox.control(f"sessions/{session['id']}/refund", {"amount": 1000})
    assert (part["object"], part["amount"], part["status"]) == ("refund", 1000, "succeeded")
    assert (part["metadata"], part["payment_intent"]) == ({}, session["payment_intent"])
    assert told(client) == [
        ("refund.created", "succeeded"),
        ("charge.refunded", "1000"),
        ("refund.updated", "succeeded"),
    ]
    rest = sandbox.control(f"sessions/{session['id']}/refund", {"created": 1_700_000_000})
    assert (rest["amount"], rest["created"]) == (4000, 1_700_000_000)
    assert client.v1.events.list({"type": "refund.created"}).data[0].created == 1_700_000_000
    assert client.v1.charges.retrieve(part["charge"]).refunded
    assert [refund["id"] for refund in sandbox.get("refunds")["data"]] == [part["id"], rest["id"]]
    listed = client.v1.refunds.list({"payment_intent": session["payment_intent"]})
    assert [refund.id for refund in listed.data] == [rest["id"], part["id"]]


def test_dashboard_refunds_no_more_than_was_paid(sandbox: SandboxProcess, client: Any) -> None:
    opened = new_session(client)
    with pytest.raises(requests.HTTPError, match="409.*only a paid one can be refunded"):
        sandbox.control(f"sessions/{opened.id}/refund")
    session = paid_session(sandbox, client)
    for body, refusal in (
        ({"amount": 5001}, "409.*greater than unrefunded amount"),
        ({"amount": 0}, "400.*at least 1"),
        ({"amount": "1000"}, "400.*of type int"),
        ({"colour": "red"}, "400.*no option 'colour'"),
    ):
        with pytest.raises(requests.HTTPError, match=refusal):
            sandbox.control(f"sessions/{session['id']}/refund", body)
    assert sandbox.get("refunds")["data"] == []
    sandbox.control(f"sessions/{session['id']}/refund")
    with pytest.raises(requests.HTTPError, match="409.*already been refunded"):
        sandbox.control(f"sessions/{session['id']}/refund")


def test_dashboard_refund_may_be_pending_too(sandbox: SandboxProcess, client: Any) -> None:
    session = paid_session(sandbox, client)
    sandbox.control("faults", {"refunds": "pending"})
    assert sandbox.control(f"sessions/{session['id']}/refund")["status"] == "pending"


def test_pending_refund_leaves_less_to_refund(sandbox: SandboxProcess, client: Any) -> None:
    intent = paid_session(sandbox, client)["payment_intent"]
    sandbox.control("faults", {"refunds": "pending"})
    client.v1.refunds.create({"payment_intent": intent, "amount": 3000})
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
        client.v1.refunds.create({"payment_intent": intent, "amount": 2001})


def test_refunds_are_listed_by_intent_and_by_when_they_were_made(
    sandbox: SandboxProcess, client: Any
) -> None:
    sessions = [paid_session(sandbox, client) for _ in range(2)]
    old = sandbox.control(
        f"sessions/{sessions[0]['id']}/refund", {"amount": 100, "created": 1_700_000_000}
    )
    new = sandbox.control(f"sessions/{sessions[0]['id']}/refund", {"amount": 200})
    sandbox.control(f"sessions/{sessions[1]['id']}/refund")
    wanted: Any = {"payment_intent": sessions[0]["payment_intent"]}

    def found(**created: int) -> list[str]:
        return [refund.id for refund in client.v1.refunds.list({**wanted, "created": created}).data]

    assert found(gte=int(time.time()) - 3600) == [new["id"]]
    assert found(gte=1_700_000_000) == [new["id"], old["id"]]
    assert found(lte=1_700_000_000) == [old["id"]]
    assert found(gt=1_700_000_000, lt=new["created"]) == []
