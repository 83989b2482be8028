"""What carries the SDK's requests to Stripe, against servers that behave badly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from purchases import stripe_connections, stripe_gateway
from purchases.stripe_connections import DirectConnections
from tests.webhook_receiver import Handler, answer, go_on_for_ever, hang, receiving

CERTIFICATES = Path(__file__).parent / "certificates"
PUBLIC = stripe.ca_bundle_path
HEADERS = {"Authorization": "Bearer sk_test_x", "Idempotency-Key": "once"}


def post(url: str, *, ca_bundle: str | Path = PUBLIC, read: float = 5.0) -> Any:
    connections = DirectConnections(number=1, ca_bundle=str(ca_bundle))
    try:
        return connections.request(
            "post", url, headers=HEADERS, data="a=1&b=%C3%A4", timeout=(2.0, read), verify=None
        )
    finally:
        connections.close()


def break_off(handler: Handler) -> None:
    handler.close_connection = True


def break_off_within(handler: Handler) -> None:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal")


def test_form_goes_out_and_the_answer_comes_back() -> None:
    with receiving() as server:
        server.behaviours = [answer(402, b'{"error": {}}', **{"Request-Id": "req_1"})]
        said = post(server.url)
    assert (said.status_code, said.content) == (402, b'{"error": {}}')
    assert said.headers["request-id"] == "req_1"
    (received,) = server.received
    assert received.body == b"a=1&b=%C3%A4"
    assert received.headers["idempotency-key"] == "once"
    assert "gzip" in received.headers["accept-encoding"]


def test_redirect_is_an_answer_and_not_followed() -> None:
    with receiving() as server:
        server.behaviours = [answer(302, Location=server.url)]
        assert post(server.url).status_code == 302
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("behave", "error"),
    [
        (hang, requests.Timeout),
        (break_off, requests.ConnectionError),
        (break_off_within, requests.ConnectionError),
        (go_on_for_ever(b"nonsense", b"\r\n"), requests.ConnectionError),
        (answer(200, b"no gzip", **{"Content-Encoding": "gzip"}), requests.RequestException),
    ],
    ids=["hangs", "breaks off", "breaks off within", "speaks no HTTP", "says gzip"],
)
def test_request_is_sent_once_and_fails_as_the_sdk_expects(
    behave: Callable[[Handler], None], error: type[Exception]
) -> None:
    with receiving() as server:
        server.behaviours = [behave]
        with pytest.raises(error):
            post(server.url, read=0.3 if behave is hang else 30)
    assert len(server.received) == 1


def test_nobody_there_is_a_failed_connection() -> None:
    with receiving() as server:
        url = server.url
    with stripe_connections.counted() as tries, pytest.raises(requests.ConnectionError):
        post(url)
    assert tries.reached_nobody


def test_somebody_was_reached_if_only_the_second_try_was_refused() -> None:
    with stripe_connections.counted() as tries:
        with receiving() as server:
            server.behaviours = [hang]
            with pytest.raises(requests.Timeout):
                post(server.url, read=0.3)
            url = server.url
        with pytest.raises(requests.ConnectionError):
            post(url)
    assert tries == stripe_connections.Tries(made=2, unconnected=1)
    assert not tries.reached_nobody


def test_what_was_not_counted_may_have_reached_somebody() -> None:
    with stripe_connections.counted() as tries:
        assert not tries.reached_nobody


def test_only_a_certificate_of_a_known_authority_is_believed() -> None:
    with receiving(str(CERTIFICATES / "localhost.pem")) as server:
        url = server.url_of("localhost")
        assert post(url, ca_bundle=CERTIFICATES / "authority.pem").status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            post(url)
        with pytest.raises(requests.exceptions.SSLError):
            post(server.url, ca_bundle=CERTIFICATES / "authority.pem")
    assert len(server.received) == 1


def test_sdk_repeats_no_request_to_a_stranger() -> None:
    with receiving(str(CERTIFICATES / "localhost.pem")) as server:
        connections = DirectConnections(number=1, ca_bundle=stripe.ca_bundle_path)
        client = stripe.StripeClient(
            "sk_test_x",
            base_addresses={"api": f"https://localhost:{server.server_port}"},
            max_network_retries=1,
            http_client=stripe.RequestsClient(timeout=(1, 1), session=connections),  # type: ignore[arg-type]  # all it uses of one
        )
        with pytest.raises(stripe.APIConnectionError, match="certificate") as refused:
            client.raw_request("get", "/v1/balance")
        connections.close()
    assert not refused.value.should_retry


def test_proxy_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        connections = stripe_gateway._connections("http://stripe.example")
        connections.request("get", "http://stripe.example/v1/balance")
        connections.close()
    (received,) = proxy.received
    assert received.headers["host"] == "stripe.example"


@pytest.mark.parametrize(
    "others", [{"no_proxy": "stripe.example"}, {"https_proxy": "http://127.0.0.1:9"}]
)
def test_environment_without_a_proxy_for_stripe_means_none(
    monkeypatch: pytest.MonkeyPatch, others: dict[str, str]
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    connections = stripe_gateway._connections("http://stripe.example")
    assert isinstance(connections, DirectConnections)
    connections.close()
