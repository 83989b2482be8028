"""Stripe hangs, is slow, or says 429: purchases suffer, and nothing else does."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User

from purchases import tasks
from purchases.errors import ProviderSaturated, ProviderTurnedAway
from purchases.models import Purchase
from purchases.stripe_traffic import Backoff, Bulkhead, bulkhead
from tests.conftest import at_once, buy, code, counters, end_pause, sign
from tests.factories import OfferFactory, UserFactory
from tests.sandbox_process import SandboxProcess, wait_for
from tests.service_processes import Processes, at_the_same_time, bearer, http, own_database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

BOUND = 16
EVENT = '{"id": "evt_traffic", "type": "ping", "created": 1, "data": {"object": {}}}'
CREATE = ("POST", "/v1/checkout/sessions")


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_setup: None,
    sandbox_process: SandboxProcess,
) -> Iterator[Processes]:
    """A web server of one process, with production's number of threads."""
    shop = Processes(
        tmp_path_factory.mktemp("shop"),
        DATABASE_URL=own_database_url(),
        STRIPE_API_BASE=sandbox_process.base_url,
        STRIPE_CONCURRENT_CALLS=str(BOUND),
        PURCHASE_RATE_LIMIT_IP="100000/m",
    )
    try:
        shop.start_web(workers=1, threads=32)
        shop.wait_until_up()
        yield shop
    finally:
        shop.stop()


def buyer_of(shop: Processes, offer: Any) -> Callable[[User], requests.Response]:
    def buy_one(user: User) -> requests.Response:
        body = {"offer": str(offer.pk), "quantity": 1}
        return http("POST", f"{shop.url}/api/v1/purchases/", json=body, headers=bearer(user))

    return buy_one


def test_hanging_stripe_holds_up_so_many_purchases_and_nothing_else(
    shop: Processes, sandbox: Any
) -> None:
    offer = OfferFactory(inventory_total=1000)
    users = UserFactory.create_batch(40)
    sandbox.faults(hang_rate=1.0)
    with at_the_same_time(40) as crowd:
        purchases = [crowd.submit(buyer_of(shop, offer), user) for user in users]
        wait_for(lambda: len(done(purchases)) == 40 - BOUND, 30)

        refused = done(purchases)
        assert {(a.status_code, code(a)) for a in refused} == {
            (503, "payment_provider_unavailable")
        }
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        # Nothing was held for those who were refused.
        assert counters(offer) == (BOUND, 0)
        everything_else_is_served(shop, offer, times=5)
        # Not even for a moment: that Stripe hangs is known by now.
        again = buyer_of(shop, offer)(users[-1])
        assert (again.status_code, code(again)) == (503, "payment_provider_unavailable")
        assert len(done(purchases)) == 40 - BOUND, "the hanging ones had ended already"
        sandbox.faults()
    # The SDK's second try, or a time-out: in both cases they end.
    assert {purchase.result().status_code for purchase in purchases} <= {201, 503}

    with at_the_same_time(40) as crowd:
        answers = list(crowd.map(buyer_of(shop, offer), users))
    assert [answer.status_code for answer in answers] == [201] * 40
    tasks.end_overdue_holds()
    served = sum(purchase.result().status_code == 201 for purchase in purchases)
    assert counters(offer) == (40 + served, 0)


def done(purchases: list[Future[requests.Response]]) -> list[requests.Response]:
    return [purchase.result() for purchase in purchases if purchase.done()]


def everything_else_is_served(shop: Processes, offer: Any, *, times: int) -> None:
    listing = f"{shop.url}/api/v1/offers/?event={offer.event.slug}"
    signed = {"Stripe-Signature": sign(EVENT), "Content-Type": "application/json"}
    for _ in range(times):
        assert len(http("GET", listing).json()["results"]) == 1
        webhook = http("POST", f"{shop.url}/api/v1/webhooks/stripe/", data=EVENT, headers=signed)
        assert webhook.status_code == 200, webhook.text
        assert http("GET", f"{shop.url}/admin/login/").status_code == 200


def test_rush_with_a_healthy_stripe_refuses_nobody(shop: Processes, sandbox: Any) -> None:
    offer = OfferFactory(inventory_total=1000)
    users = UserFactory.create_batch(50)
    sandbox.faults(latency_ms=300)
    with at_the_same_time(50) as crowd:
        answers = list(crowd.map(buyer_of(shop, offer), users))
    assert [answer.status_code for answer in answers] == [201] * 50
    assert counters(offer) == (50, 0)


# -- The bulkhead by itself -----------------------------------------------------------------------


@pytest.fixture
def narrow(settings: Any) -> Bulkhead:
    settings.STRIPE_CONCURRENT_CALLS = 2
    return Bulkhead()


class Call(threading.Thread):
    """One call through a bulkhead, that lasts until it is told to end."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        super().__init__()
        self.bulkhead = bulkhead
        self.began, self.may_end = threading.Event(), threading.Event()
        self.refused = False

    def run(self) -> None:
        try:
            with self.bulkhead.call():
                self.began.set()
                self.may_end.wait(30)
        except ProviderSaturated:
            self.refused = True

    def end(self) -> None:
        self.may_end.set()
        self.join()


def test_who_comes_while_calls_return_waits_and_gets_in_in_order(narrow: Bulkhead) -> None:
    stuck, first = Call(narrow), Call(narrow)
    for call in (stuck, first):
        call.start()
        call.began.wait(30)
    waiting = [Call(narrow) for _ in range(4)]
    for number, call in enumerate(waiting, start=1):
        call.start()
        wait_for(lambda number=number: len(narrow._queue) == number)
    # One call is stuck all the while, and the others go through the room that is left.
    first.end()
    for position, call in enumerate(waiting):
        assert call.began.wait(30)
        assert not any(later.began.is_set() for later in waiting[position + 1 :])
        call.end()
    stuck.end()
    assert not any(call.refused for call in (stuck, first, *waiting))
    assert (narrow._inside, len(narrow._queue)) == (0, 0)


def test_once_no_call_returns_everybody_is_refused_until_one_does(narrow: Bulkhead) -> None:
    stuck = [Call(narrow), Call(narrow)]
    for call in stuck:
        call.start()
        call.began.wait(30)
    waiting = [Call(narrow) for _ in range(3)]
    for call in waiting:
        call.start()
    for call in waiting:
        call.join(30)
    assert all(call.refused for call in waiting)

    began = time.monotonic()
    with pytest.raises(ProviderSaturated), narrow.conversation():
        pass
    assert time.monotonic() - began < 1.0  # no wait at all: it takes microseconds

    for call in stuck:
        call.end()
    with narrow.conversation(), narrow.conversation():
        assert narrow._inside == 1
    assert narrow._inside == 0


def test_failure_inside_gives_the_room_back(narrow: Bulkhead) -> None:
    for _ in range(3):
        with pytest.raises(RuntimeError), narrow.call():
            raise RuntimeError
    assert (narrow._inside, narrow._calls) == (0, {})


# -- Too many requests (429) ----------------------------------------------------------------------


def test_stripe_that_says_429_is_left_in_peace_and_used_again_afterwards(
    sandbox: Any, client_of: Any, settings: Any
) -> None:
    offer = OfferFactory(inventory_total=1000)
    settings.PURCHASE_RATE_LIMIT = "10000/m"
    client = client_of(UserFactory())
    sandbox.faults(error_rate=1.0, error_status=429)

    answers = [buy(client, offer) for _ in range(12)]

    assert {(a.status_code, code(a)) for a in answers} == {(503, "payment_provider_unavailable")}
    # Three tries of the first, and one each time that a pause was over.
    asked = [request["time"] for request in sandbox.requests(*CREATE)]
    assert 3 <= len(asked) <= 8
    assert asked[1] - asked[0] >= Backoff.FIRST
    assert asked[2] - asked[1] >= 2 * Backoff.FIRST
    assert counters(offer) == (0, 0)

    sandbox.faults()
    wait_for(lambda: buy(client, offer).status_code == 201, 30)
    assert buy(client, offer).status_code == 201


def test_pause_doubles_with_each_429_and_one_asks_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "SHORT", 0.0)
    monkeypatch.setattr(Backoff, "FIRST", 0.01)
    monkeypatch.setattr(Backoff, "LONGEST", 0.04)
    backoff = Backoff()
    pauses = []
    assert may_ask(backoff)
    for _ in range(4):
        backoff.turned_away()
        pauses.append(backoff._pause)
        wait_for(lambda: may_ask(backoff))
        # Until it has been told what came of it, nobody else asks.
        assert not may_ask(backoff)
    assert pauses == [0.01, 0.02, 0.04, 0.04]
    backoff.answered()
    assert may_ask(backoff)
    assert may_ask(backoff)


def may_ask(backoff: Backoff) -> bool:
    try:
        backoff.wait()
    except ProviderTurnedAway:
        return False
    return True


class OneRefusal(ThreadingHTTPServer):
    """Stands before the sandbox and answers one request of many with a 429 itself."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, base_url: str, *, refuse: int) -> None:
        proxy = self
        self.seen = 0
        guard = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with guard:
                    proxy.seen += 1
                    refused = proxy.seen == refuse
                if refused:
                    status, content = 429, b'{"error": {"code": "rate_limit", "message": "Slow."}}'
                else:
                    answer = http(
                        "POST", base_url + self.path, data=body, headers=dict(self.headers)
                    )
                    status, content = answer.status_code, answer.content
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


def test_who_repeats_a_request_waits_for_no_room(
    sandbox: Any, client_of: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer, offer = client_of(UserFactory()), OfferFactory()
    first = buy(buyer, offer, key="once")
    settings.STRIPE_CONCURRENT_CALLS = 1

    def waits(self: Bulkhead) -> None:
        raise AssertionError("waits for room")

    inside, done = threading.Event(), threading.Event()

    def speak_to_stripe() -> None:
        with bulkhead.conversation():
            inside.set()
            done.wait(60)

    talker = threading.Thread(target=speak_to_stripe)
    talker.start()
    inside.wait(60)
    try:
        with monkeypatch.context() as full:
            full.setattr(Bulkhead, "_enter", waits)
            again = buy(buyer, offer, key="once")
    finally:
        done.set()
        talker.join()
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


def test_one_429_among_fifty_purchases_fails_none(
    sandbox: Any, client_of: Any, settings: Any
) -> None:
    offer = OfferFactory(inventory_total=1000)
    clients = [client_of(UserFactory()) for _ in range(50)]
    # Nobody waits for room, which a slow machine may not have in time: that is another's test.
    settings.STRIPE_CONCURRENT_CALLS = 50
    with OneRefusal(sandbox.process.base_url, refuse=10) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        settings.STRIPE_API_BASE = proxy.url
        answers = at_once([lambda client=client: buy(client, offer) for client in clients])
        proxy.shutdown()
    assert [answer.status_code for answer in answers] == [201] * 50
    assert proxy.seen == 51
    assert counters(offer) == (50, 0)
    assert Purchase.objects.filter(checkout_attempt=1).count() == 50
    end_pause()
