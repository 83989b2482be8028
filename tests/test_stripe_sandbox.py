"""The sandbox's API, asked by the real SDK: sessions, catalog, refunds, keys and faults."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox_process import SandboxProcess, wait_for

LINE = {
    "price_data": {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "T-shirt"}},
    "quantity": 2,
}
SUCCESS = "https://shop.example/success?session_id={CHECKOUT_SESSION_ID}"


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


def session_params(**changes: Any) -> Any:
    return {"mode": "payment", "line_items": [LINE], "success_url": SUCCESS, **changes}


def new_session(client: Any, **changes: Any) -> Any:
    return client.v1.checkout.sessions.create(session_params(**changes))


def refusal(client: Any, **changes: Any) -> stripe.InvalidRequestError:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        new_session(client, **changes)
    return caught.value


def paid_intent(sandbox: SandboxProcess, client: Any) -> str:
    return str(sandbox.control(f"sessions/{new_session(client).id}/pay")["payment_intent"])


# Sessions


def test_new_session_is_open_and_adds_up(client: Any) -> None:
    before = int(time.time())
    session = new_session(client, client_reference_id="p-1", metadata={"purchase": "p-1"})
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert (session.amount_total, session.currency) == (5000, "usd")
    assert session.metadata.to_dict() == {"purchase": "p-1"}
    assert session.payment_intent is None
    assert session.success_url == SUCCESS
    assert before + 86400 <= session.expires_at <= time.time() + 86400
    assert session.url.startswith("http://127.0.0.1:")


def test_price_of_a_session_must_exist_and_be_active(client: Any) -> None:
    product = client.v1.products.create({"name": "Mug"})
    price = client.v1.prices.create(
        {"product": product.id, "currency": "eur", "unit_amount": 900, "lookup_key": "mug"}
    )
    assert new_session(client, line_items=[{"price": price.id, "quantity": 3}]).amount_total == 2700
    client.v1.prices.update(price.id, {"active": False})
    error = refusal(client, line_items=[{"price": price.id, "quantity": 1}])
    assert (error.http_status, error.param) == (400, "line_items[0][price]")
    assert "inactive" in str(error)
    error = refusal(client, line_items=[{"price": "price_none", "quantity": 1}])
    assert (error.http_status, error.code) == (400, "resource_missing")


@pytest.mark.parametrize("seconds", [30 * 60 - 10, 24 * 60 * 60 + 10])
def test_session_lives_half_an_hour_to_a_day(client: Any, seconds: int) -> None:
    error = refusal(client, expires_at=int(time.time()) + seconds)
    assert (error.http_status, error.param) == (400, "expires_at")


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"coupon": "x"}, "parameter_unknown", "coupon"),
        ({"line_items": [{**LINE, "colour": "red"}]}, "parameter_unknown", "line_items[0][colour]"),
        ({"mode": ""}, "parameter_invalid_empty", "mode"),
        ({"line_items": [{"price_data": LINE["price_data"]}]}, "parameter_missing",
         "line_items[0][quantity]"),
        ({"line_items": [{**LINE, "quantity": "many"}]}, "parameter_invalid_integer",
         "line_items[0][quantity]"),
        ({"success_url": "javascript:alert(1)"}, "url_invalid", "success_url"),
        ({"metadata": {f"k{n}": "v" for n in range(51)}}, None, "metadata"),
        ({"metadata": {"k" * 41: "v"}}, None, "metadata"),
        ({"metadata": {"k": "v" * 501}}, None, "metadata[k]"),
        ({"client_reference_id": "r" * 201}, None, "client_reference_id"),
        ({"locale": "tlh"}, None, "locale"),
    ],
)  # fmt: skip
def test_invalid_parameters_are_named(
    client: Any, changes: Any, code: str | None, param: str
) -> None:
    error = refusal(client, **changes)
    assert (error.http_status, error.code, error.param) == (400, code, param)


@pytest.mark.parametrize(
    ("currency", "amount", "accepted"),
    [("usd", 49, False), ("usd", 50, True), ("gbp", 29, False), ("jpy", 49, False),
     ("jpy", 50, True), ("kwd", 1005, False), ("kwd", 1010, True), ("zzz", 500, False)],
)  # fmt: skip
def test_amounts_stripe_does_not_charge_are_refused(
    client: Any, currency: str, amount: int, accepted: bool
) -> None:
    line = {
        "price_data": {
            "currency": currency,
            "unit_amount": amount,
            "product_data": {"name": "Sticker"},
        },
        "quantity": 1,
    }
    if accepted:
        assert new_session(client, line_items=[line]).amount_total == amount
    else:
        assert refusal(client, line_items=[line]).http_status == 400


def test_expire_works_on_an_open_session_only(sandbox: SandboxProcess, client: Any) -> None:
    expired = client.v1.checkout.sessions.expire(new_session(client).id)
    assert (expired.status, expired.url) == ("expired", None)
    paid = new_session(client)
    sandbox.control(f"sessions/{paid.id}/pay")
    for session_id, status in ((expired.id, "expired"), (paid.id, "complete")):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            client.v1.checkout.sessions.expire(session_id)
        assert caught.value.http_status == 400
        assert caught.value.user_message == (
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of {status}."
        )


def test_session_expires_by_itself_when_its_time_has_come(tmp_path: Path) -> None:
    file = tmp_path / "stripe.db"
    own = SandboxProcess().start(data=file)
    try:
        client = own.client()
        session = new_session(client)
        own.kill()
        # A session lives for half an hour at least, so its time is moved, not waited for.
        with sqlite3.connect(file) as database:
            database.execute(
                "UPDATE records SET body = json_set(body, '$.expires_at', ?) WHERE id = ?"
                " AND kind = 'sessions'",
                (int(time.time()) - 1, session.id),
            )
        database.close()
        own.restart()
        types = {"types": ["checkout.session.expired"]}
        event = wait_for(lambda: client.v1.events.list(types).data)[0]
        assert event.data.object.id == session.id
        assert client.v1.checkout.sessions.retrieve(session.id).status == "expired"
    finally:
        own.stop()


def test_lists_are_newest_first_with_cursor_and_filters(
    sandbox: SandboxProcess, client: Any
) -> None:
    ids = [new_session(client).id for _ in range(5)]
    sandbox.control(f"sessions/{ids[1]}/pay")
    first = client.v1.checkout.sessions.list({"limit": 2})
    assert [s.id for s in first.data] == [ids[4], ids[3]]
    assert first.has_more
    rest = client.v1.checkout.sessions.list({"limit": 3, "starting_after": ids[3]})
    assert [s.id for s in rest.data] == [ids[2], ids[1], ids[0]]
    assert not rest.has_more
    newer = client.v1.checkout.sessions.list({"limit": 2, "ending_before": ids[1]})
    assert [s.id for s in newer.data] == [ids[3], ids[2]]
    assert [s.id for s in first.auto_paging_iter()] == ids[::-1]
    complete = client.v1.checkout.sessions.list({"status": "complete"})
    assert [s.id for s in complete.data] == [ids[1]]
    intent = complete.data[0].payment_intent
    by_intent = client.v1.checkout.sessions.list({"payment_intent": intent})
    assert [s.id for s in by_intent.data] == [ids[1]]
    past = {"created": {"lt": int(time.time()) - 60}}
    assert client.v1.checkout.sessions.list(past).data == []


def test_answers_can_be_expanded(sandbox: SandboxProcess, client: Any) -> None:
    session = new_session(client)
    sandbox.control(f"sessions/{session.id}/pay")
    expand: Any = {"expand": ["line_items", "payment_intent.latest_charge"]}
    full = client.v1.checkout.sessions.retrieve(session.id, expand)
    assert full.line_items.data[0].description == "T-shirt"
    assert full.payment_intent.latest_charge.amount == 5000
    lines = client.v1.checkout.sessions.line_items.list(session.id)
    assert [line.quantity for line in lines.data] == [2]
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.checkout.sessions.retrieve(session.id, {"expand": ["currency"]})


# Products, prices, refunds


def test_products_and_prices_can_be_made_changed_and_listed(client: Any) -> None:
    product = client.v1.products.create({"id": "offer-1", "name": "Mug", "metadata": {"a": "1"}})
    assert product.id == "offer-1"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.products.create({"id": "offer-1", "name": "Mug"})
    assert caught.value.code == "resource_already_exists"
    changed = client.v1.products.update("offer-1", {"name": "Cup", "metadata": {"a": "", "b": "2"}})
    assert (changed.name, changed.metadata.to_dict()) == ("Cup", {"b": "2"})

    old = client.v1.prices.create(
        {"product": "offer-1", "currency": "usd", "unit_amount": 500, "lookup_key": "cup"}
    )
    new: Any = {"product": "offer-1", "currency": "usd", "unit_amount": 600, "lookup_key": "cup"}
    with pytest.raises(stripe.InvalidRequestError, match="lookup key"):
        client.v1.prices.create(new)
    moved = client.v1.prices.create({**new, "transfer_lookup_key": True})
    assert client.v1.prices.retrieve(old.id).lookup_key is None
    by_key = client.v1.prices.list({"lookup_keys": ["cup"], "active": True})
    assert [price.id for price in by_key.data] == [moved.id]
    change: Any = {"unit_amount": 700}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.prices.update(moved.id, change)
    assert caught.value.code == "parameter_unknown"


def test_refunds_never_exceed_what_was_paid(sandbox: SandboxProcess, client: Any) -> None:
    intent = paid_intent(sandbox, client)
    part = client.v1.refunds.create({"payment_intent": intent, "amount": 2000})
    assert (part.amount, part.status) == (2000, "succeeded")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"payment_intent": intent, "amount": 3001})
    assert caught.value.param == "amount"
    assert "greater than unrefunded amount" in str(caught.value)
    assert client.v1.refunds.create({"payment_intent": intent}).amount == 3000
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"payment_intent": intent})
    assert caught.value.code == "charge_already_refunded"
    listed = client.v1.refunds.list({"payment_intent": intent})
    assert [refund.amount for refund in listed.data] == [3000, 2000]
    types = {event.type for event in client.v1.events.list({"limit": 100}).data}
    assert {"refund.created", "refund.updated", "charge.refunded"} <= types


def test_refund_that_fails_gives_the_amount_back_to_the_charge(
    sandbox: SandboxProcess, client: Any
) -> None:
    intent = paid_intent(sandbox, client)
    refund = client.v1.refunds.create({"payment_intent": intent})
    assert sandbox.control(f"refunds/{refund.id}/fail")["status"] == "failed"
    charge = client.v1.charges.retrieve(refund.charge)
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert client.v1.events.list({"type": "refund.failed"}).data[0].data.object.id == refund.id


# Errors and keys


def test_keys_that_are_no_test_keys_are_refused(sandbox: SandboxProcess) -> None:
    client: Any
    for key in ("sk_live_abcdefgh", "rk_live_abcdefgh", "pk_test_abcdefgh"):
        client = stripe.StripeClient(key, base_addresses={"api": sandbox.base_url})
        with pytest.raises(stripe.AuthenticationError):
            new_session(client)
    assert requests.get(f"{sandbox.base_url}/v1/events", timeout=5).status_code == 401
    restricted: Any = stripe.StripeClient("rk_test_x", base_addresses={"api": sandbox.base_url})
    assert new_session(restricted).status == "open"


def test_unknown_ids_and_paths_are_answered_as_stripe_does(
    sandbox: SandboxProcess, client: Any
) -> None:
    for ask in (
        client.v1.checkout.sessions.retrieve,
        client.v1.products.retrieve,
        client.v1.prices.retrieve,
        client.v1.refunds.retrieve,
        client.v1.payment_intents.retrieve,
        client.v1.events.retrieve,
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            ask("none_1")
        assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
        assert str(caught.value.request_id).startswith("req_")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL") as caught:
        client.v1.customers.list()
    assert caught.value.http_status == 404


def test_same_idempotency_key_replays_the_first_answer(
    sandbox: SandboxProcess, client: Any
) -> None:
    options: Any = {"idempotency_key": "checkout:1:1"}
    first = client.v1.checkout.sessions.create(session_params(), options)
    sandbox.control(f"sessions/{first.id}/pay")
    again = client.v1.checkout.sessions.create(session_params(), options)
    assert (again.id, again.status) == (first.id, "open")
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert [entry["replayed"] for entry in sandbox.get("requests")["data"]] == [False, True]


def test_same_idempotency_key_with_other_params_is_refused(client: Any) -> None:
    options: Any = {"idempotency_key": "k"}
    client.v1.checkout.sessions.create(session_params(), options)
    with pytest.raises(stripe.IdempotencyError) as caught:
        client.v1.checkout.sessions.create(session_params(customer_email="a@b.example"), options)
    assert caught.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        client.v1.products.create({"name": "Mug"}, options)


def test_idempotency_key_of_a_failed_validation_may_be_used_again(
    client: Any,
) -> None:
    options: Any = {"idempotency_key": "k"}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.create(session_params(expires_at=1), options)
    assert client.v1.checkout.sessions.create(session_params(), options).status == "open"


def test_too_long_idempotency_key_is_refused(client: Any) -> None:
    client.v1.products.create({"name": "Mug"}, {"idempotency_key": "k" * 255})
    with pytest.raises(stripe.StripeError) as caught:
        client.v1.products.create({"name": "Mug"}, {"idempotency_key": "k" * 256})
    assert caught.value.http_status == 400


def test_idempotency_key_in_use_is_a_conflict(sandbox: SandboxProcess, client: Any) -> None:
    sandbox.control("faults", {"latency_ms": 3_000})
    options: Any = {"idempotency_key": "k"}
    made: list[str] = []
    first = threading.Thread(
        target=lambda: made.append(client.v1.products.create({"name": "Mug"}, options).id)
    )
    first.start()
    wait_for(lambda: sandbox.get("requests")["data"])
    with pytest.raises(stripe.StripeError) as caught:
        client.v1.products.create({"name": "Mug"}, options)
    assert caught.value.http_status == 409
    error: Any = caught.value.error
    assert error.code == "idempotency_key_in_use"
    first.join()
    assert client.v1.products.create({"name": "Mug"}, options).id == made[0]


# Faults


def test_error_of_500_is_kept_under_its_key_and_does_nothing(
    sandbox: SandboxProcess, client: Any
) -> None:
    options: Any = {"idempotency_key": "k"}
    assert sandbox.control("faults", {"error_rate": 1})["error_status"] == 500
    with pytest.raises(stripe.APIError):
        client.v1.products.create({"name": "Mug"}, options)
    assert sandbox.control("faults", {})["error_rate"] == 0
    with pytest.raises(stripe.APIError) as caught:
        client.v1.products.create({"name": "Mug"}, options)
    assert (caught.value.headers or {})["Idempotent-Replayed"] == "true"
    assert client.v1.products.list().data == []


def test_rate_limit_is_not_kept_under_its_key(sandbox: SandboxProcess, client: Any) -> None:
    options: Any = {"idempotency_key": "k"}
    sandbox.control("faults", {"error_rate": 1, "error_status": 429})
    with pytest.raises(stripe.RateLimitError):
        client.v1.products.create({"name": "Mug"}, options)
    sandbox.control("faults", {})
    assert client.v1.products.create({"name": "Mug"}, options).name == "Mug"


@pytest.mark.parametrize(
    ("faults", "done"),
    [({"drop_rate": 1}, 1), ({"hang_rate": 1}, 0), ({"hang_rate": 1, "hang_after_work": True}, 1)],
)
def test_lost_answer_is_found_again_under_its_key(
    sandbox: SandboxProcess, faults: dict[str, Any], done: int
) -> None:
    impatient = sandbox.client(
        max_network_retries=0, http_client=stripe.RequestsClient(timeout=(1, 0.3))
    )
    sandbox.control("faults", faults)
    options: Any = {"idempotency_key": "k"}
    with pytest.raises(stripe.APIConnectionError):
        impatient.v1.products.create({"name": "Mug"}, options)
    sandbox.control("faults", {})
    patient = sandbox.client()
    assert len(patient.v1.products.list().data) == done
    product = patient.v1.products.create({"name": "Mug"}, options)
    assert [each.id for each in patient.v1.products.list().data] == [product.id]


@pytest.mark.parametrize(
    "faults",
    [{"error_rate": 2}, {"error_rate": "1"}, {"webhooks": "sometimes"}, {"webhooks": []},
     {"latency_ms": -1}, {"error_status": 200}, {"colour": "red"}, [1]],
)  # fmt: skip
def test_bad_faults_are_refused_with_a_sentence(sandbox: SandboxProcess, faults: Any) -> None:
    in_force = sandbox.get("faults")
    with pytest.raises(requests.HTTPError, match="400 from POST .*message") as caught:
        sandbox.control("faults", faults)
    assert caught.value.response.json()["error"]["message"].endswith(".")
    assert sandbox.get("faults") == in_force


def test_faults_spare_the_control_calls(sandbox: SandboxProcess, client: Any) -> None:
    session = new_session(client)
    sandbox.control("faults", {"error_rate": 1, "latency_ms": 60_000})
    assert sandbox.get("faults")["latency_ms"] == 60_000
    assert sandbox.control(f"sessions/{session.id}/pay")["payment_status"] == "paid"


# The request log and the process


def test_requests_are_logged_in_order_without_the_key(sandbox: SandboxProcess, client: Any) -> None:
    session = new_session(client, metadata={"purchase": "p-1"})
    client.v1.checkout.sessions.retrieve(session.id)
    made, asked = sandbox.get("requests")["data"]
    assert (made["method"], made["path"], made["status"]) == ("POST", "/v1/checkout/sessions", 200)
    assert made["params"]["metadata"] == {"purchase": "p-1"}
    assert (asked["method"], asked["path"]) == ("GET", f"/v1/checkout/sessions/{session.id}")
    assert "sk_test" not in str([made, asked])


def test_state_survives_a_kill_and_a_restart(tmp_path: Path) -> None:
    own = SandboxProcess().start(data=tmp_path / "stripe.db")
    try:
        client = own.client()
        options: Any = {"idempotency_key": "k"}
        first = client.v1.checkout.sessions.create(session_params(), options)
        intent = own.control(f"sessions/{first.id}/pay")["payment_intent"]
        client.v1.refunds.create({"payment_intent": intent, "amount": 100})
        events = [event.id for event in client.v1.events.list({"limit": 100}).data]
        own.kill()
        own.restart()
        assert client.v1.checkout.sessions.retrieve(first.id).payment_status == "paid"
        again = client.v1.checkout.sessions.create(session_params(), options)
        assert (again.id, again.last_response.headers["Idempotent-Replayed"]) == (first.id, "true")
        assert [event.id for event in client.v1.events.list({"limit": 100}).data] == events
        assert own.get("requests")["data"][0]["idempotency_key"] == "k"
    finally:
        own.stop()


def test_sigterm_ends_it_at_once_also_while_a_request_hangs() -> None:
    own = SandboxProcess().start()
    try:
        own.control("faults", {"hang_rate": 1})
        with socket.create_connection(("127.0.0.1", own.port)) as waiting:
            waiting.sendall(
                b"GET /v1/events HTTP/1.1\r\nHost: sandbox\r\n"
                b"Authorization: Bearer sk_test_x\r\n\r\n"
            )
            wait_for(lambda: [e for e in own.get("requests")["data"] if e["fault"] == "hang"])
            started = time.monotonic()
            assert own.terminate() == 0
            assert time.monotonic() - started < 5
        assert own.errors() == ""
    finally:
        own.stop()


def test_port_that_is_taken_ends_it_with_one_sentence(sandbox: SandboxProcess) -> None:
    second = SandboxProcess()
    with pytest.raises(RuntimeError, match="did not start"):
        second.start(port=sandbox.port)
    assert second.errors().strip() == (
        f"The Stripe sandbox can't listen on 127.0.0.1:{sandbox.port}: Address already in use."
    )
    second.stop()
