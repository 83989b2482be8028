"""No address inside our own network is called, however it is written, hidden or changed."""

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests.adapters
from django.db import transaction
from django.utils import timezone

from purchases.errors import AddressRefused
from purchases.subscribers import addresses, deliveries, publish
from purchases.subscribers.models import WebhookDelivery, WebhookEndpoint
from tests.factories import OrganizationFactory
from tests.webhook_receiver import Receiver, receiving

CERTIFICATES = Path(__file__).parent / "certificates"
PUBLIC = "93.184.215.14"

PRIVATE = [
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "127.8.9.10", "0.0.0.0",  # noqa: S104
    "169.254.169.254", "192.0.0.1", "192.0.2.1", "198.18.0.1", "192.88.99.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:7f00:1::", "5f00::1", "3fff::1", "100::1", "4000::1",
]  # fmt: skip


@pytest.fixture
def in_production(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = False


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names that a test makes up: what each look-up finds, the last one again and again."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        found = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [entry for address in found for entry in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def written(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# -- What is allowed ------------------------------------------------------------------------------


@pytest.mark.parametrize("address", PRIVATE)
def test_address_that_is_not_public_is_refused(in_production: None, address: str) -> None:
    assert not addresses.is_allowed(ipaddress.ip_address(address))
    with pytest.raises(AddressRefused, match="public internet"):
        addresses.check(f"https://{written(address)}/hook")


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", f"::ffff:{PUBLIC}"]
)
def test_public_address_is_allowed(in_production: None, address: str) -> None:
    for port in ("", ":443", ":8443", ":1", ":65535"):
        addresses.check(f"https://{written(address)}{port}/hook?key=1")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "0", "[::1%1]"],
)
def test_this_machine_is_refused_however_it_is_written(in_production: None, host: str) -> None:
    with pytest.raises(AddressRefused):
        addresses.check(f"https://{host}/hook")


@pytest.mark.parametrize(
    "found",
    [["10.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"], [PUBLIC, "64:ff9b::a00:1"]],
    ids=str,
)
def test_name_is_refused_if_one_of_its_addresses_is_not_public(
    in_production: None, names: Any, found: list[str]
) -> None:
    names["hooks.example"] = [found]
    with pytest.raises(AddressRefused, match=r"hooks\.example is not on the public internet"):
        addresses.check("https://hooks.example/")


def test_name_with_public_addresses_is_allowed(in_production: None, names: Any) -> None:
    names["hooks.example"] = [[PUBLIC, "2606:2800:220:1:248:1893:25c8:1946"]]
    addresses.check("https://hooks.example/")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"http://{PUBLIC}/", "https://"),
        ("http://127.0.0.1/", "https://"),
        (f"ftp://{PUBLIC}/", "https://"),
        ("file:///etc/passwd", "https://"),
        (f"//{PUBLIC}/", "https://"),
        ("https:///path", "https://"),
        ("", "https://"),
        (f"https://me:secret@{PUBLIC}/", "signed"),
        (f"https://me@{PUBLIC}/", "signed"),
        (f"https://{PUBLIC}:0/", "port 0"),
        (f"https://{PUBLIC}:65536/", "https://example.com/hook"),
        (f"https://{PUBLIC}:x/", "https://example.com/hook"),
        ("https://nowhere.invalid/", "nowhere.invalid can't be found"),
        (f"https://{'a' * 64}.example/", "can't be found"),
        (rf"https://127.0.0.1\@{PUBLIC}/", "public internet"),
        (f"https://{PUBLIC}#@127.0.0.1:0@/", None),
    ],
)
def test_address_is_refused_with_what_to_do(
    in_production: None, url: str, said: str | None
) -> None:
    if said is None:
        addresses.check(url)
        return
    with pytest.raises(AddressRefused, match=said):
        addresses.check(url)


def test_local_run_may_call_this_machine_without_tls_and_nobody_else(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = True
    for allowed in ("http://127.0.0.1:8000/", "http://[::1]/", "https://127.0.0.1/"):
        addresses.check(allowed)
    for refused in (f"http://{PUBLIC}/", "https://10.0.0.1/", "http://169.254.169.254/latest"):
        with pytest.raises(AddressRefused):
            addresses.check(refused)


# -- At each delivery -----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def secure_server() -> Iterator[Receiver]:
    with receiving(str(CERTIFICATES / "localhost.pem")) as server:
        yield server


def delivered_to(url: str) -> WebhookDelivery:
    """What became of an event for an endpoint that was stored with this address."""
    endpoint = WebhookEndpoint.objects.create(organization=OrganizationFactory(), url=url)
    now = timezone.now()
    with transaction.atomic():
        publish(
            organization_id=endpoint.organization_id,
            type="purchase.paid",
            key="k",
            data={},
            now=now,
        )
    deliveries.send_due(now=now)
    return WebhookDelivery.objects.get(endpoint=endpoint)


@pytest.mark.django_db(transaction=True)
def test_stored_address_is_checked_before_each_delivery(
    server: Receiver, secure_server: Receiver, in_production: None
) -> None:
    tried = delivered_to(secure_server.url)
    assert (tried.state, tried.attempts, tried.response_status) == ("waiting", 1, None)
    assert "not on the public internet" in tried.error
    assert "https://" in delivered_to(server.url).error
    assert "not on the public internet" in delivered_to(secure_server.url_of("localhost")).error
    assert server.received == secure_server.received == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hidden", ["127.0.0.1", "::ffff:127.0.0.1", "::1"])
def test_name_that_changes_after_the_check_leads_nowhere(
    secure_server: Receiver, in_production: None, names: Any, hidden: str
) -> None:
    names["localhost"] = [[PUBLIC], [hidden]]
    tried = delivered_to(secure_server.url_of("localhost"))
    assert "not on the public internet" in tried.error
    assert secure_server.received == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hidden", ["::127.0.0.1", "fec0::1"])
def test_address_that_only_our_rule_refuses_is_refused_at_the_connection(
    in_production: None, names: Any, hidden: str
) -> None:
    names["hooks.example"] = [[PUBLIC], [hidden]]
    assert "not on the public internet" in delivered_to("https://hooks.example/").error


@pytest.mark.django_db(transaction=True)
def test_connection_goes_to_the_address_that_was_checked(server: Receiver, names: Any) -> None:
    """A third look-up, by whoever connects, would go elsewhere and fail."""
    names["hooks.example"] = [["127.0.0.1"], ["127.0.0.1"], [PUBLIC]]
    assert delivered_to(server.url_of("hooks.example")).state == "delivered"
    (request,) = server.received
    assert request.headers["host"] == f"hooks.example:{server.server_port}"


@pytest.mark.django_db(transaction=True)
def test_proxy_of_the_environment_is_not_used(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("NO_PROXY", "")
        assert delivered_to(server.url).state == "delivered"
        assert proxy.received == []
    assert server.received[0].path == "/hook"


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the authority of the tests, instead of those that browsers trust."""
    authority = str(CERTIFICATES / "authority.pem")
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", authority)


@pytest.mark.django_db(transaction=True)
def test_certificate_is_checked_against_the_name_though_the_address_is_pinned(
    secure_server: Receiver, names: Any, trusted: None
) -> None:
    """It is for ``localhost``, which 127.0.0.1 and any other name aren't."""
    assert delivered_to(secure_server.url_of("localhost")).state == "delivered"
    assert len(secure_server.received) == 1

    names["hooks.example"] = [["127.0.0.1"]]
    for url in (secure_server.url_of("hooks.example"), secure_server.url):
        tried = delivered_to(url)
        assert tried.error.startswith("No secure connection: ")
        assert "for another name" in tried.error
    assert len(secure_server.received) == 1


@pytest.mark.django_db(transaction=True)
def test_certificate_of_an_unknown_authority_is_refused(secure_server: Receiver) -> None:
    tried = delivered_to(secure_server.url_of("localhost"))
    assert tried.error.startswith("No secure connection: ")
    assert secure_server.received == []
