"""Fixtures: the Stripe sandbox as a real process, API clients, threads with own connections."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import stripe
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import caches
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from fulfillment import queue
from fulfillment.models import Fulfillment
from offers import impressions
from offers.breaker import redis_breaker
from offers.models import Offer
from purchases import (
    reconciliation,
    states,
    stripe_gateway,
    stripe_traffic,
    transitions,
    webhooks,
)
from purchases.states import ReleaseReason
from tests.sandbox_process import SandboxProcess

WEBHOOK_SECRET = "whsec_tests"

# The settings' 0.1 s are for a Redis that is away. A slow one would be left alone for seconds, and
# its counters with it: slow is no failure here, and a test that wants Redis away takes it away.
for _name in ("default", "ratelimit"):
    settings.CACHES[_name]["OPTIONS"].update(SOCKET_CONNECT_TIMEOUT=5, SOCKET_TIMEOUT=5)


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    """No rate counter, showing, switch or broken breaker is left over from another test."""
    redis_breaker.succeeded()
    impressions.hand_over()
    stripe_gateway._note(away=False)
    stripe_gateway._client.cache_clear()  # it keeps the time-outs that it was made with
    end_pause()
    for name in ("default", "process", "switches"):
        caches[name].clear()
    yield
    redis_breaker.succeeded()


def end_pause() -> None:
    """The pause after a 429, or a Stripe that hung, was long ago."""
    stripe_traffic.backoff._pause = stripe_traffic.backoff._until = 0.0
    stripe_traffic.bulkhead._hung_at = None


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProcess]:
    process = SandboxProcess().start(webhook_secret=WEBHOOK_SECRET)
    yield process
    process.stop()


class Sandbox:
    """Stripe, for one test: what a buyer or a fault does, and what the app asked."""

    def __init__(self, process: SandboxProcess) -> None:
        self.process = process
        self.delivered: set[str] = set()

    def act(self, session_id: str, action: str, **body: Any) -> dict[str, Any]:
        return self.process.control(f"sessions/{session_id}/{action}", body or None)

    def faults(self, **faults: Any) -> None:
        self.process.control("faults", faults)

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        return [
            request
            for request in self.process.get("requests")["data"]
            if request["method"] == method and request["path"] == path
        ]

    @property
    def client(self) -> Any:
        return self.process.client()

    def sessions(self) -> list[dict[str, Any]]:
        listed = self.client.v1.checkout.sessions.list({"limit": 100})
        return [session.to_dict() for session in listed.auto_paging_iter()]

    def events(self, *types: str) -> list[dict[str, Any]]:
        """Stripe's events, oldest first."""
        listed = self.client.v1.events.list({"limit": 100}).auto_paging_iter()
        # The SDK makes decimals of some numbers; on the wire they are strings.
        events = [json.loads(json.dumps(event.to_dict(), default=str)) for event in listed]
        return [e for e in reversed(events) if not types or e["type"] in types]

    def deliver(self, *types: str) -> None:
        """Process the events that were not delivered yet, as the signed webhooks they'd be."""
        for event in self.events(*types):
            if event["id"] not in self.delivered:
                self.delivered.add(event["id"])
                receive(event)


def sign(payload: bytes | str, secret: str = WEBHOOK_SECRET) -> str:
    text = payload.decode() if isinstance(payload, bytes) else payload
    return stripe.WebhookSignature.generate_signature_header(text, secret)


def receive(event: dict[str, Any]) -> Any:
    """What the webhook endpoint does with ``event``, without HTTP around it."""
    payload = json.dumps(event)
    return webhooks.receive(payload.encode(), sign(payload), now=timezone.now())


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess, settings: Any) -> Iterator[Sandbox]:
    sandbox_process.control("reset")
    settings.STRIPE_API_BASE = sandbox_process.base_url
    yield Sandbox(sandbox_process)
    sandbox_process.control("faults", {})


@pytest.fixture
def client_of() -> Callable[[User | None], APIClient]:
    """An API client with a user's token, or nobody's."""

    def make(user: User | None = None) -> APIClient:
        client = APIClient()
        if user is not None:
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(user)}")
        return client

    return make


def buy(client: APIClient, offer: Offer, quantity: Any = 1, key: str | None = None) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(
        "/api/v1/purchases/", {"offer": str(offer.pk), "quantity": quantity}, headers=headers
    )


def code(response: Any) -> str:
    return response.json()["errors"][0]["code"]


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Run ``calls`` in as many threads, each on its own connection; an exception is an answer."""

    def run(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the test looks at what was raised
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        return list(pool.map(run, calls))


def counters(offer: Offer) -> tuple[int, int]:
    """(reserved, sold) as they are in the database, checked against the purchases."""
    assert [str(difference) for difference in reconciliation.counter_differences()] == []
    offer.refresh_from_db()
    return offer.inventory_reserved, offer.inventory_sold


def release_unasked(purchase_id: str) -> None:
    """Put a purchase where no path of ours leads while its session can be paid."""
    with transaction.atomic():
        transitions.apply(
            transitions.lock(uuid.UUID(purchase_id)),
            states.RELEASE,
            now=timezone.now(),
            source="tests",
            release_reason=ReleaseReason.EXPIRED,
        )


def deliver_now(purchase_id: Any) -> Fulfillment:
    """What the worker does after a payment, and the fulfilment as it is then."""
    queue.deliver_one(uuid.UUID(str(purchase_id)), now=timezone.now())
    return Fulfillment.objects.select_related("purchase").get(purchase=purchase_id)


def blocked_backends() -> int:
    """How many wait for somebody else's lock in this database."""
    with connection.cursor() as cursor:
        # PostgreSQL shows a transaction the same backends all the time, unless told not to.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        return int(cursor.fetchone()[0])


def behind(first: Callable[[], Any], second: Callable[[], Any], *, is_kept: bool) -> Any:
    """What ``second`` answers, which waits for a row that the transaction of ``first`` has.

    That is committed then or, unless it ``is_kept``, rolled back.
    """
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.extend(at_once([second])))
    with transaction.atomic():
        first()
        waiting.start()
        while not blocked_backends():
            assert waiting.is_alive(), answers
        transaction.set_rollback(not is_kept)
    waiting.join()
    (answer,) = answers
    return answer


LATER = timedelta(minutes=16)
