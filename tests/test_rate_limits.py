"""Who asks too often is told when to come back."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from django.core.cache import caches
from django.test import RequestFactory

from offers.throttling import PurchasesPerAddress
from tests.conftest import buy, code
from tests.factories import OfferFactory, UserFactory

# django-ratelimit's windows begin at a different second for each key; a burst within one second,
# as with the clock held still, is always in one window.
STILL = time_machine.travel("2026-01-01T12:00:00Z", tick=False)

pytestmark = pytest.mark.django_db


@pytest.fixture
def offer() -> Any:
    return OfferFactory(price=0, inventory_total=None)


def test_fifteen_purchases_within_a_minute_ten_pass_and_five_are_told_to_wait(
    offer: Any, client_of: Any
) -> None:
    with STILL:
        client = client_of(UserFactory())
        answers = [buy(client, offer) for _ in range(15)]
        other = buy(client_of(UserFactory()), offer)
    assert [answer.status_code for answer in answers] == [201] * 10 + [429] * 5
    assert code(answers[-1]) == "throttled"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert other.status_code == 201


def test_limit_is_over_when_retry_after_says_so(offer: Any, client_of: Any) -> None:
    user = UserFactory()
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False) as clock:
        answers = [buy(client_of(user), offer) for _ in range(11)]
        clock.shift(int(answers[-1].headers["Retry-After"]) + 1)
        assert buy(client_of(user), offer).status_code == 201


def test_one_address_has_a_limit_over_all_its_users(
    offer: Any, client_of: Any, settings: Any
) -> None:
    settings.PURCHASE_RATE_LIMIT_IP = "3/m"
    with STILL:
        answers = [buy(client_of(UserFactory()), offer) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]


def test_whole_ipv6_network_of_one_client_has_one_limit(client_of: Any, settings: Any) -> None:
    settings.LOGIN_RATE_LIMIT_IP = "2/m"

    def log_in(address: str) -> Any:
        body = {"username": address, "password": "x"}
        return client_of().post("/api/v1/auth/token/", body, REMOTE_ADDR=address)

    with STILL:
        answers = [log_in(f"2001:db8:1:2:{n}::{n}") for n in range(3)]
        neighbour = log_in("2001:db8:1:3::1")
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert neighbour.status_code == 401


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:DB8:0001:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1:443"),
        ("", "unknown"),
    ],
)
def test_what_of_an_address_is_counted(address: str, counted: str) -> None:
    request: Any = RequestFactory().get("/", REMOTE_ADDR=address)
    assert PurchasesPerAddress().key(request) == counted


def test_reading_and_cancelling_are_not_limited(offer: Any, client_of: Any) -> None:
    with STILL:
        client = client_of(UserFactory())
        for _ in range(11):
            buy(client, offer)
        assert client.get("/api/v1/purchases/").status_code == 200


def test_login_attempts_on_one_name_are_limited(client_of: Any, settings: Any) -> None:
    user = UserFactory()

    def log_in(name: str, password: str) -> Any:
        body = {"username": name, "password": password}
        return client_of().post("/api/v1/auth/token/", body)

    with STILL:
        answers = [log_in(user.username, "wrong") for _ in range(10)]
        blocked = log_in(user.username.upper(), "secret")
        other = log_in(UserFactory().username, "secret")
    assert {answer.status_code for answer in answers} == {401}
    assert blocked.status_code == 429
    assert other.status_code == 200
    assert set(other.json()) == {"access", "refresh"}


def test_logins_from_one_address_are_limited(client_of: Any, settings: Any) -> None:
    settings.LOGIN_RATE_LIMIT_IP = "2/m"
    with STILL:
        statuses = [
            client_of().post("/api/v1/auth/token/", {"username": f"u{n}", "password": "x"})
            for n in range(3)
        ]
    assert [answer.status_code for answer in statuses] == [401, 401, 429]


def test_counter_counts_each_request_once_and_ends_by_itself() -> None:
    """django-ratelimit's ``add`` and ``incr`` are one step here; the counts must be as before."""
    limits = caches["ratelimit"]
    told = [1 if limits.add("visits", 1, 60) else limits.incr("visits") for _ in range(5)]
    assert told == [1, 2, 3, 4, 5]
    assert limits.get("visits") == 5
    assert 0 < limits.ttl("visits") <= 60


def test_count_of_one_key_is_not_told_for_another() -> None:
    limits = caches["ratelimit"]
    limits.set("other", 7)
    assert limits.add("visits", 1, 60)
    assert not limits.add("visits", 1, 60)
    assert limits.incr("other") == 8
    assert limits.incr("visits") == 3


def test_threads_are_told_counts_of_their_own() -> None:
    limits = caches["ratelimit"]

    def visit(_: int) -> int:
        return 1 if limits.add("visits", 1, 60) else int(limits.incr("visits"))

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert sorted(pool.map(visit, range(100))) == list(range(1, 101))
