"""Two web servers behind the proxy: what it lets through, what it repeats, and no request lost."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.deployment.load import Answers, load
from tests.deployment.shop import PURCHASES, Shop
from tests.deployment.stack import HOST, REPLICAS, Stack
from tests.local_processes import wait_for

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("proxy"),
    pytest.mark.allow_hosts(["127.0.0.1", *REPLICAS]),
]

STRANGER, OTHER = "127.0.0.9", "127.0.0.10"


@pytest.mark.parametrize(
    "service", ["proxy", "web", "worker", "beat", "pgbouncer", "postgres", "valkey"]
)
def test_health_check_is_green(stack: Stack, service: str) -> None:
    for address in REPLICAS if service == "web" else ("127.0.0.1",):
        wait_for(lambda at=address: stack.check(service, address=at) == 0, service, timeout=90)


# -- What clients claim -------------------------------------------------------------------------

FORGED = [
    {"X-Forwarded-For": "203.0.113.{}"},
    {"X-Real-IP": "203.0.113.{}"},
    {"X_Real_IP": "203.0.113.{}"},
    {"x_real-ip": "203.0.113.{}"},
    {"Forwarded": "for=203.0.113.{}"},
]


def log_in(stack: Stack, source: str, headers: dict[str, str]) -> int:
    """With a wrong password; the trusted proxy passes on where the request came from."""
    wrong = {"username": f"nobody-{time.monotonic_ns()}", "password": "wrong"}
    with stack.client() as client:
        url, headers = f"{stack.url}/api/v1/auth/token/", {"X-Real-IP": source} | headers
        return client.post(url, json=wrong, headers=headers, timeout=30).status_code


def test_rate_limits_count_by_the_address_that_the_trusted_proxy_names(stack: Stack) -> None:
    # LOGIN_RATE_LIMIT_IP is 3/h. What the client itself sent is in other headers.
    forged = [
        {k: v.format(n) for k, v in FORGED[n % 5].items() if k != "X-Real-IP"} for n in range(5)
    ]
    assert [log_in(stack, OTHER, headers) for headers in forged] == [401] * 3 + [429] * 2
    assert log_in(stack, "127.0.0.11", {}) == 401


def test_stranger_is_believed_neither_their_address_nor_that_they_came_by_tls(
    stack: Stack, shop: Shop
) -> None:
    headers = {key: value.format(7) for forged in FORGED for key, value in forged.items()}
    headers["X-Forwarded-Proto"] = "https"
    with stack.client(STRANGER) as client:
        answer = client.get(f"{stack.url}/api/v1/events/", headers=headers, allow_redirects=False)
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"https://{HOST}/api/v1/events/"


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/%6detrics", "/%72eadyz"])
def test_what_is_for_the_inside_stays_there(stack: Stack, path: str) -> None:
    with stack.client() as client:
        assert client.get(stack.url + path).status_code == 404


# -- What is repeated ------------------------------------------------------------------------------


class Broken:
    """A web server that is well, and breaks every connection once it has read the request."""

    def __init__(self, address: str, port: int) -> None:
        self.requests: list[str] = []
        self._listener = socket.create_server((address, port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(65536).decode(errors="replace")
                line = head.partition("\r\n")[0]
                if "/livez" in line:
                    connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"status": "ok"}')
                else:
                    self.requests.append(line.rpartition(" ")[0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def broken_replica(stack: Stack) -> Iterator[Broken]:
    broken = Broken("127.0.0.4", stack.ports["web"])
    stack.names.addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    try:
        wait_for(lambda: stack.servers_up() == 3, "the broken one is found", timeout=30)
        yield broken
    finally:
        stack.names.addresses = list(REPLICAS)
        broken.close()
        wait_for(lambda: stack.servers_up() == 2, "the broken one is forgotten", timeout=30)


def test_only_what_may_be_done_twice_is_sent_again(stack: Stack, shop: Shop) -> None:
    offer, event = shop.offer()
    (buyer,) = shop.buyers(1)
    with broken_replica(stack) as broken:
        while f"POST {PURCHASES}" not in broken.requests:
            assert buyer.buy(offer, f"key {time.monotonic_ns()}").status_code == 201
        while f"GET /api/v1/offers/?event={event}" not in broken.requests:
            assert buyer.get(f"/api/v1/offers/?event={event}").status_code == 200
        broken.requests.clear()
        # Each on a connection of their own: one that was used before is closed without a word.
        answers = [buyer.buy(offer).status_code for buyer in shop.buyers(9)]
        tried = broken.requests.count(f"POST {PURCHASES}")
    assert tried > 0
    assert answers.count(502) == tried
    assert answers.count(201) == 9 - tried


def test_proxy_finds_as_many_servers_as_it_has_places_for(stack: Stack) -> None:
    try:
        stack.names.addresses = [REPLICAS[0]]
        wait_for(lambda: stack.servers_up() == 1, "one is forgotten", timeout=30)
        nobody = [f"127.0.1.{number}" for number in range(40 - len(REPLICAS))]
        stack.names.addresses = [*nobody, *REPLICAS]
        wait_for(lambda: stack.servers_up() == 2, "the last of forty is found", timeout=30)
    finally:
        stack.names.addresses = list(REPLICAS)
        wait_for(lambda: stack.servers_up() == 2, "the others are forgotten", timeout=30)


# -- Servers that end ------------------------------------------------------------------------------


def nothing_was_lost(shop: Shop, offer: str, answers: Answers) -> None:
    """Everybody was answered, and each purchase is there once."""
    assert set(answers.said) == {("buy", 201), ("list", 200)}
    rows = shop.query(
        "SELECT id::text, idempotency_key FROM purchases_purchase WHERE offer_id = %s", offer
    )
    assert dict(rows) == answers.bought
    assert len(rows) == answers.said["buy", 201]
    assert shop.counters(offer) == (0, len(rows))


def go_on(answers: Answers, more: int = 40) -> None:
    """Until so many more requests were answered."""
    enough = answers.count() + more
    wait_for(lambda: answers.count() >= enough, "more answers", timeout=60)


def test_rolling_restart_loses_no_request(stack: Stack, shop: Shop) -> None:
    offer, event = shop.offer()
    with load(shop.buyers(12), offer, event, some_keyless=True) as answers:
        go_on(answers)
        for address in REPLICAS:
            web = stack.children[f"web-{address}"]
            assert web.stop(timeout=60), f"{address} ends by itself"
            go_on(answers)
            web.start()
            stack.wait_for_web(address)
            wait_for(lambda: stack.servers_up() == 2, "both again", timeout=30)
            go_on(answers)
    nothing_was_lost(shop, offer, answers)


def test_killed_server_loses_nothing_that_may_be_repeated(stack: Stack, shop: Shop) -> None:
    offer, event = shop.offer()
    address = REPLICAS[0]
    with load(shop.buyers(12), offer, event, again_if_broken_off=True) as answers:
        go_on(answers)
        stack.children[f"web-{address}"].kill()
        go_on(answers, more=80)
    stack.children[f"web-{address}"].start()
    stack.wait_for_web(address)
    wait_for(lambda: stack.servers_up() == 2, "both again", timeout=30)
    # A purchase that was made before its answer got lost is answered as a replay.
    replayed = answers.said.pop(("buy", 200), 0)
    answers.said["buy", 201] += replayed
    nothing_was_lost(shop, offer, answers)


def test_server_that_is_asked_to_end_says_so_and_goes_on_meanwhile(stack: Stack) -> None:
    address = REPLICAS[1]
    url = f"http://{address}:{stack.ports['web']}"
    web = stack.children[f"web-{address}"]

    def get(path: str) -> requests.Response:
        with stack.client() as client:
            return client.get(url + path, timeout=10)

    # As the proxy's, when the signal comes between its connection and its request.
    made_before = socket.create_connection((address, stack.ports["web"]), timeout=10)
    web.ask_to_stop()
    wait_for(lambda: get("/livez").json() == {"status": "draining"}, "draining", timeout=5)
    assert get("/livez").status_code == 200
    assert get("/readyz").status_code == 503
    with made_before:
        made_before.sendall(f"GET /livez HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert made_before.recv(100).startswith(b"HTTP/1.1 200 ")
    assert get("/api/v1/events/").status_code == 200
    assert web.stop(timeout=30, ask=False)
    web.start()
    stack.wait_for_web(address)
    assert get("/livez").json() == {"status": "ok"}


def test_worker_that_is_asked_to_end_finishes_its_task_and_leaves_the_others(
    stack: Stack, shop: Shop
) -> None:
    offer, _ = shop.offer(total=20, price="25.00")
    buyers = shop.buyers(10)
    sold = [buyer.buy(offer).json() for buyer in buyers]
    waiting = [purchase["id"] for purchase in sold]
    overdue = "UPDATE purchases_purchase SET reserved_until = now() - interval '1 minute' WHERE "
    shop.query(overdue + "offer_id = %s RETURNING 1", offer)
    stack.sandbox.control("faults", {"latency_ms": 700})
    stack.children["beat"].stop(timeout=30)
    shop.run("from purchases.tasks import end_overdue_holds; end_overdue_holds.delay()")

    def asked() -> bool:
        return any("/expire" in done["path"] for done in stack.sandbox.get("requests")["data"])

    wait_for(asked, "the sweep has begun", timeout=60)
    worker = stack.children["worker"]
    assert worker.stop(timeout=60), "it ends by itself"
    stack.sandbox.control("faults", {})
    left = "SELECT count(*) FROM purchases_purchase WHERE id::text = ANY(%s) AND status = %s"
    assert shop.query(left, waiting, "released") == [(10,)]
    stack.children["worker"].start()
    stack.children["beat"].start()
    assert shop.counters(offer) == (0, 0)
