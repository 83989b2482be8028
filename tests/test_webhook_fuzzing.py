"""Malformed webhooks by the hundred: they leave nothing but a 400.

What Stripe has signed and makes no sense is in ``test_signed_webhook_fuzzing.py``.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from offers.models import Offer
from purchases.models import Purchase, PurchaseTransition, StripeEvent
from tests.conftest import WEBHOOK_SECRET, buy, sign
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/webhooks/stripe/"
COMPLETED = "checkout.session.completed"


def signed(body: bytes, *, timestamp: int | None = None) -> str:
    """Stripe's signature over any bytes; the SDK's own function takes text only."""
    at = int(time.time()) if timestamp is None else timestamp
    mac = hmac.new(WEBHOOK_SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def post(body: bytes, signature: str | None, content_type: str = "application/json") -> Any:
    headers = {} if signature is None else {"Stripe-Signature": signature}
    client = Client(raise_request_exception=False)
    return client.post(URL, body, content_type=content_type, headers=headers)


@pytest.fixture
def paid(sandbox: Any, client_of: Any) -> dict[str, Any]:
    """The event of a payment that we haven't heard of yet."""
    purchase = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    return sandbox.events(COMPLETED)[0]


def everything() -> dict[str, Any]:
    """All that a webhook could move: if it is the same before and after, nothing moved."""
    # What staff are told of it may change; see `problem`.
    fields = [f.name for f in Purchase._meta.concrete_fields if f.name != "problem"]
    return {
        "purchases": list(Purchase.objects.order_by("pk").values(*fields)),
        "offers": list(Offer.objects.order_by("pk").values()),
        "history": list(PurchaseTransition.objects.order_by("pk").values()),
    }


NESTED = 100_000
# Text of a JSON value that is fine in itself, and no webhook.
ODD_JSON = {
    "nothing": "",
    "a blank": " ",
    "null": "null",
    "a boolean": "true",
    "a number": "1",
    "a large number": "1e400",
    "a long number": "1" + "0" * 5000,
    "a text": '"text"',
    "an empty list": "[]",
    "a list": "[{}]",
    "an empty object": "{}",
    "half an object": '{"id": "evt_1", "type":',
    "two objects": "{}{}",
    "single quotes": "{'id': 1}",
    "a comment": "{} // no",
    "a comma too many": '{"id": "evt_1",}',
    "no number": "NaN",
    "infinity": "-Infinity",
    "deep lists": "[" * NESTED + "]" * NESTED,
    "deep lists without an end": "[" * NESTED,
    "deep objects": '{"a":' * NESTED + "1" + "}" * NESTED,
    "a form": "id=evt_1&type=checkout.session.completed",
    "XML": "<?xml version='1.0'?><event/>",
}
ODD_BYTES = {
    "NUL": b"\0",
    "NULs": b"\0" * 1000,
    "a byte order mark": b"\xef\xbb\xbf{}",
    "half a letter": b'{"id": "\xc3"}',
    "an overlong slash": b'{"id": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"id": "\xed\xa0\x80"}',
    "UTF-16": '{"id": "evt_1"}'.encode("utf-16"),
    "UTF-32": '{"id": "evt_1"}'.encode("utf-32"),
    "compressed": bytes.fromhex("1f8b0800000000000003abae050043bfa6a302000000"),
}
MALFORMED = {name: text.encode() for name, text in ODD_JSON.items()} | ODD_BYTES


def bad_signatures(body: bytes) -> dict[str, str | None]:
    """Headers that are none of Stripe's for ``body``."""
    now = int(time.time())
    good = signed(body, timestamp=now)
    mac = good.partition("v1=")[2]
    return {
        "none": None,
        "empty": "",
        "a blank": " ",
        "a word": "nonsense",
        "commas": ",,,,",
        "equal signs": "=====",
        "no time": f"v1={mac}",
        "no signature": f"t={now}",
        "an empty time": f"t=,v1={mac}",
        "an empty signature": f"t={now},v1=",
        "a time that is no number": f"t=now,v1={mac}",
        "a fraction of a second": f"t={now}.5,v1={mac}",
        "a time with a blank": f"t={now} 0,v1={mac}",
        "a negative time": f"t=-{now},v1={mac}",
        "an enormous time": f"t={10**40},v1={mac}",
        "a time of 5000 digits": f"t={'9' * 5000},v1={mac}",
        "a time in hexadecimal": f"t={hex(now)},v1={mac}",
        "another time": good.replace(f"t={now}", f"t={now + 1}"),
        "no time, properly signed": signed(body).replace("t=", "T="),
        "signed ten minutes ago": signed(body, timestamp=now - 600),
        "signed in 1970": signed(body, timestamp=0),
        "signed before 1970": signed(body, timestamp=-now),
        "of another body": signed(body + b" "),
        "of another secret": sign(body.decode("utf-8", "replace"), "whsec_other"),
        "of an empty secret": sign(body.decode("utf-8", "replace"), ""),
        "an older scheme": good.replace("v1=", "v0="),
        "a newer scheme": good.replace("v1=", "v2="),
        "in capitals": good.upper(),
        "half of it": good[:-10],
        "a letter too many": good + "0",
        "not ASCII": f"t={now},v1=é",
        "not ASCII at all": f"t={now},v1={'é' * 64}",
        "a NUL": f"t={now},v1={mac[:-1]}\0",
        "a thousand of them": f"t={now}," + ",".join(f"v1={'0' * 64}" for _ in range(1000)),
        "ten thousand parts": ",".join(["x"] * 10_000),
        "many equal signs": f"t={now},v1={'=' * 1000}",
        "the secret itself": WEBHOOK_SECRET,
        "the body itself": body.decode("latin-1")[:1000].replace("\n", ""),
        "JSON": json.dumps({"t": now, "v1": mac}),
        "SQL": f"t={now},v1=' OR 1=1 --",
    }


def refused(answers: Iterator[tuple[str, Any]]) -> dict[str, int]:
    """The answers that are not what a malformed webhook gets, by the name of the case."""
    return {name: answer.status_code for name, answer in answers if answer.status_code != 400}


def test_malformed_body_is_refused_whatever_it_is_signed_with(paid: dict[str, Any]) -> None:
    before = everything()

    def answers() -> Iterator[tuple[str, Any]]:
        other = signed(json.dumps(paid).encode())
        for name, body in MALFORMED.items():
            yield f"{name}, unsigned", post(body, None)
            yield f"{name}, garbled", post(body, "t=1,v1=00")
            yield f"{name}, with the signature of a real event", post(body, other)
            yield f"{name}, signed", post(body, signed(body))

    assert refused(answers()) == {}
    assert not StripeEvent.objects.exists()
    assert everything() == before


def test_truncated_event_is_refused_wherever_it_ends(paid: dict[str, Any]) -> None:
    body = json.dumps(paid).encode()
    ends = range(0, len(body), max(1, len(body) // 60))
    assert refused((str(end), post(body[:end], signed(body[:end]))) for end in ends) == {}
    assert refused((str(end), post(body[:end], signed(body))) for end in ends) == {}
    assert not StripeEvent.objects.exists()


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "é"]
)
def test_event_with_a_bad_signature_is_refused_as_whatever_it_is_declared(
    paid: dict[str, Any], content_type: str
) -> None:
    body = json.dumps(paid).encode()
    before = everything()
    signatures = bad_signatures(body)
    assert refused((n, post(body, s, content_type)) for n, s in signatures.items()) == {}
    assert not StripeEvent.objects.exists()
    assert everything() == before


random_requests = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@random_requests
@given(body=st.binary(max_size=300), header=st.text(st.characters(codec="latin-1"), max_size=100))
def test_random_bytes_are_refused(sandbox: Any, body: bytes, header: str) -> None:
    assert [post(body, header).status_code, post(body, signed(body)).status_code] == [400, 400]
    assert not StripeEvent.objects.exists()


@random_requests
@given(
    event=st.dictionaries(
        st.sampled_from(["id", "type", "created", "data", "livemode", "object"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_random_json_that_is_signed_is_never_an_error_of_ours(
    sandbox: Any, event: dict[str, Any]
) -> None:
    body = json.dumps(event).encode()
    assert post(body, signed(body)).status_code in (200, 400)
    assert post(body, "t=1,v1=0").status_code == 400


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "trace"])
def test_other_methods_than_post_are_refused(paid: dict[str, Any], method: str) -> None:
    body = json.dumps(paid)
    answer = Client().generic(
        method.upper(), URL, body, "application/json", headers={"Stripe-Signature": sign(body)}
    )
    assert answer.status_code == 405
    assert not StripeEvent.objects.exists()


def test_body_that_is_too_large_is_refused_unread(settings: Any, paid: dict[str, Any]) -> None:
    body = json.dumps(paid | {"padding": "x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE}).encode()
    assert post(body, signed(body)).status_code == 413
    assert not StripeEvent.objects.exists()
