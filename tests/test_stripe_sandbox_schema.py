"""The sandbox's answers, and the requests of these tests, against Stripe's public schema.

The schema is not part of this repository: the tests are skipped where it is absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import stripe

from tests.sandbox_process import ROOT, SandboxProcess, wait_for

SCHEMA_FILE = ROOT.parent / "shared" / "stripe" / "openapi-subset.json"

pytestmark = pytest.mark.skipif(
    not SCHEMA_FILE.is_file(), reason="Stripe's OpenAPI subset is not beside the repository"
)

# Objects that events carry and no path of the subset answers.
_SNAPSHOTS = {
    "charge": "charge",
    "checkout.session": "checkout.session",
    "dispute": "dispute",
    "payment_intent": "payment_intent",
    "price": "price",
    "product": "product",
    "refund": "refund",
}


class Document:
    """Stripe's OpenAPI document, asked for the schema of an operation."""

    def __init__(self, file: Path) -> None:
        self._document = json.loads(file.read_text())

    def check_answer(self, method: str, path: str, status: int, body: Any) -> None:
        """Raise jsonschema.ValidationError unless `body` is what Stripe may answer there."""
        responses = self._operation(method, path)["responses"]
        content = responses["200" if status == 200 else "default"]["content"]
        self._check(content["application/json"]["schema"], body)

    def check_request(self, method: str, path: str, params: Any) -> None:
        """Raise jsonschema.ValidationError unless Stripe takes these (typed) parameters there."""
        content = self._operation(method, path)["requestBody"]["content"]
        self._check(content["application/x-www-form-urlencoded"]["schema"], params)

    def check_object(self, name: str, body: Any) -> None:
        self._check({"$ref": f"#/components/schemas/{name}"}, body)

    def _operation(self, method: str, path: str) -> Any:
        wanted = path.split("/")
        for template, operations in self._document["paths"].items():
            steps = template.split("/")
            if len(steps) == len(wanted) and all(
                step.startswith("{") or step == given
                for step, given in zip(steps, wanted, strict=True)
            ):
                return operations[method.lower()]
        raise LookupError(f"{path} is not in the subset")

    def _check(self, schema: Any, instance: Any) -> None:
        # The references are local to the document, so the schema travels with its components.
        whole = {**schema, "components": self._document["components"]}
        jsonschema.Draft202012Validator(whole).validate(instance)


@pytest.fixture(scope="module")
def document() -> Document:
    return Document(SCHEMA_FILE)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    process = SandboxProcess().start()
    yield process
    process.stop()


class CheckedClient:
    """The SDK's client with every answer checked; `checked` holds their statuses and bodies."""

    def __init__(self, sandbox: SandboxProcess, document: Document) -> None:
        self.checked: list[tuple[int, Any]] = []
        transport = _CheckedTransport(document, self.checked)
        self.v1 = sandbox.client(max_network_retries=0, http_client=transport).v1


class _CheckedTransport(stripe.RequestsClient):
    def __init__(self, document: Document, checked: list[tuple[int, Any]]) -> None:
        super().__init__(timeout=10)
        self._document = document
        self._checked = checked

    def request(
        self, method: str, url: str, headers: Any, post_data: Any = None, **more: Any
    ) -> Any:
        body, status, answered = super().request(method, url, headers, post_data, **more)
        path = "/v1/" + url.split("/v1/", 1)[1].split("?")[0]
        answer = json.loads(body)
        self._document.check_answer(method, path, status, answer)
        self._checked.append((status, answer))
        return body, status, answered


@pytest.fixture
def client(sandbox: SandboxProcess, document: Document) -> CheckedClient:
    sandbox.control("reset")
    return CheckedClient(sandbox, document)


SESSION: Any = {
    "mode": "payment",
    "line_items": [
        {
            "price_data": {
                "currency": "usd",
                "unit_amount": 2500,
                "product_data": {
                    "name": "T-shirt",
                    "description": "Blue",
                    "images": ["https://shop.example/shirt.png"],
                },
            },
            "quantity": 2,
        }
    ],
    "success_url": "https://shop.example/success?session_id={CHECKOUT_SESSION_ID}",
    "cancel_url": "https://shop.example/offers",
    "client_reference_id": "p-1",
    "customer_email": "ada@example.com",
    "metadata": {"purchase": "p-1"},
    "payment_intent_data": {"metadata": {"purchase": "p-1"}, "description": "T-shirt"},
    "shipping_address_collection": {"allowed_countries": ["US", "DE"]},
    "payment_method_types": ["card", "us_bank_account"],
    "locale": "auto",
    "submit_type": "pay",
}


def test_sessions_in_every_state_match_the_schema(
    sandbox: SandboxProcess, document: Document, client: CheckedClient
) -> None:
    document.check_request("post", "/v1/checkout/sessions", SESSION)
    sessions = client.v1.checkout.sessions
    ids = {act: sessions.create(SESSION).id for act in ("pay", "pay_async", "decline", "expire")}
    for act, session_id in ids.items():
        sandbox.control(f"sessions/{session_id}/{act}")
        sessions.retrieve(session_id, {"expand": ["payment_intent.latest_charge", "line_items"]})
        sessions.line_items.list(session_id)
    sessions.update(ids["decline"], {"metadata": {"more": "yes"}})
    sessions.expire(ids["decline"])
    sandbox.control(f"sessions/{ids['pay_async']}/settle_async")
    assert {s.status for s in sessions.list({"limit": 100}).data} == {"complete", "expired"}
    assert len(client.checked) == 15


def test_products_and_prices_match_the_schema(document: Document, client: CheckedClient) -> None:
    product: Any = {"name": "Mug", "description": "Holds tea", "metadata": {"offer": "1"}}
    document.check_request("post", "/v1/products", product)
    made = client.v1.products.create(product)
    client.v1.products.update(made.id, {"active": False})
    client.v1.products.retrieve(made.id)
    client.v1.products.list()
    price: Any = {
        "product": made.id,
        "currency": "jpy",
        "unit_amount": 500,
        "lookup_key": "mug",
        "nickname": "Mug",
        "transfer_lookup_key": True,
    }
    document.check_request("post", "/v1/prices", price)
    dear = client.v1.prices.create(price)
    client.v1.prices.update(dear.id, {"active": False})
    client.v1.prices.retrieve(dear.id, {"expand": ["product"]})
    client.v1.prices.list({"lookup_keys": ["mug"]})
    assert len(client.checked) == 8


def test_refunds_intents_and_disputes_match_the_schema(
    sandbox: SandboxProcess, document: Document, client: CheckedClient
) -> None:
    session = sandbox.control(f"sessions/{client.v1.checkout.sessions.create(SESSION).id}/pay")
    intent = session["payment_intent"]
    wanted: Any = {
        "payment_intent": intent,
        "amount": 1000,
        "reason": "requested_by_customer",
        "metadata": {"purchase": "p-1"},
    }
    document.check_request("post", "/v1/refunds", wanted)
    refund = client.v1.refunds.create(wanted)
    sandbox.control(f"refunds/{refund.id}/fail")
    client.v1.refunds.retrieve(refund.id, {"expand": ["charge", "payment_intent"]})
    client.v1.refunds.list({"payment_intent": intent})
    client.v1.payment_intents.retrieve(intent, {"expand": ["latest_charge"]})
    sandbox.control(f"sessions/{session['id']}/dispute")
    dispute = client.v1.events.list({"type": "charge.dispute.created"}).data[0].data.object
    client.v1.disputes.retrieve(dispute.id)
    assert len(client.checked) == 7


def test_refunds_that_take_their_time_match_the_schema(
    sandbox: SandboxProcess, document: Document, client: CheckedClient
) -> None:
    session = sandbox.control(f"sessions/{client.v1.checkout.sessions.create(SESSION).id}/pay")
    sandbox.control("faults", {"refunds": "pending"})
    settled = client.v1.refunds.create({"payment_intent": session["payment_intent"], "amount": 1})
    failed = client.v1.refunds.create({"payment_intent": session["payment_intent"], "amount": 2})
    for refund, act in ((settled, "settle"), (failed, "fail")):
        sandbox.control(f"refunds/{refund.id}/{act}")
        client.v1.refunds.retrieve(refund.id, {"expand": ["charge", "payment_intent"]})
    by_hand = sandbox.control(f"sessions/{session['id']}/refund", {"amount": 3})
    client.v1.refunds.list({"payment_intent": session["payment_intent"]})
    assert [refund["status"] for refund in client.checked[-1][1]["data"]] == [
        "pending",
        "failed",
        "succeeded",
    ]
    document.check_object("refund", by_hand)
    kinds = ["refund.created", "refund.updated", "refund.failed", "charge.refunded"]
    client.v1.events.list({"types": kinds, "limit": 100})
    _, events = client.checked[-1]
    for event in events["data"]:
        document.check_object(
            _SNAPSHOTS[event["data"]["object"]["object"]], event["data"]["object"]
        )
    assert {event["type"] for event in events["data"]} == set(kinds)


def test_lists_with_everything_expanded_match_the_schema(
    sandbox: SandboxProcess, client: CheckedClient
) -> None:
    expand: Any = {"expand": ["data.payment_intent", "data.payment_intent.latest_charge"]}
    paid, declined, _ = (client.v1.checkout.sessions.create(SESSION).id for _ in range(3))
    sandbox.control(f"sessions/{paid}/pay")
    sandbox.control(f"sessions/{declined}/decline")
    client.v1.checkout.sessions.list({**expand, "created": {"gte": 1}})
    client.v1.checkout.sessions.expire(declined, {"expand": ["payment_intent.latest_charge"]})
    expired = client.checked[-1][1]
    assert expired["payment_intent"]["latest_charge"]["object"] == "charge"
    assert len(client.checked) == 5


def test_refusal_under_a_rate_limit_matches_the_schema(
    sandbox: SandboxProcess, client: CheckedClient
) -> None:
    sandbox.control("faults", {"rate_limit": 1})

    def refused() -> bool:
        try:
            client.v1.events.list()
        except stripe.RateLimitError:
            return True
        return False

    wait_for(refused)
    assert client.checked[-1][0] == 429


def test_events_and_the_objects_in_them_match_the_schema(
    sandbox: SandboxProcess, document: Document, client: CheckedClient
) -> None:
    product = client.v1.products.create({"name": "Mug"})
    client.v1.prices.create({"product": product.id, "currency": "usd", "unit_amount": 500})
    for acts in (
        ["pay", "dispute"],
        ["pay_async", "settle_async"],
        ["pay_async", "fail_async"],
        ["decline", "expire"],
        ["pay"],
    ):
        session_id = client.v1.checkout.sessions.create(SESSION).id
        for act in acts:
            after = sandbox.control(f"sessions/{session_id}/{act}")
    refund = client.v1.refunds.create({"payment_intent": after["payment_intent"]})
    sandbox.control(f"refunds/{refund.id}/fail")
    client.v1.events.list({"limit": 100})
    _, events = client.checked[-1]
    snapshots = [event["data"]["object"] for event in events["data"]]
    for event, snapshot in zip(events["data"], snapshots, strict=True):
        client.v1.events.retrieve(event["id"])
        document.check_object(_SNAPSHOTS[snapshot["object"]], snapshot)
    assert {snapshot["object"] for snapshot in snapshots} == set(_SNAPSHOTS)


def test_refusals_match_the_schema(
    sandbox: SandboxProcess, document: Document, client: CheckedClient
) -> None:
    unknown: Any = {"colour": "red"}
    for ask, given in (
        (client.v1.products.create, unknown),
        (client.v1.checkout.sessions.create, {**SESSION, "expires_at": 1}),
        (client.v1.prices.retrieve, "price_none"),
        (client.v1.refunds.create, {"payment_intent": "pi_none"}),
    ):
        with pytest.raises(stripe.InvalidRequestError):
            ask(given)
    for status in (402, 404, 409, 429, 500, 503):
        sandbox.control("faults", {"error_rate": 1, "error_status": status})
        with pytest.raises(stripe.StripeError):
            client.v1.events.list()
    statuses = [status for status, _ in client.checked]
    assert statuses == [400, 400, 404, 404, 402, 404, 409, 429, 500, 503]
    answer = requests.get(f"{sandbox.base_url}/v1/nothing", timeout=5)
    document.check_object("error", answer.json())
