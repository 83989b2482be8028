"""`waffle_switch purchases off` on a bad day: no new sales, and everything else goes on."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone
from waffle.models import Switch

from offers_project.local.valkey import ValkeyProcess
from purchases import tasks
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import code, counters, sign
from tests.factories import MembershipFactory, OfferFactory, UserFactory
from tests.sandbox_process import SandboxProcess
from tests.service_processes import Processes, bearer, http, own_database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

# The contract's limit, in seconds.
EVERYWHERE_WITHIN = 5.0
# Which process gets a request is chance: that none of so many met one of two is 1 : 2**30.
IN_A_ROW = 30


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    valkey = ValkeyProcess(folder=tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_setup: None,
    sandbox_process: SandboxProcess,
    valkey: ValkeyProcess,
) -> Iterator[Processes]:
    """A web server of two processes, of which each remembers the switch for itself."""
    shop = Processes(
        tmp_path_factory.mktemp("shop"),
        DATABASE_URL=own_database_url(),
        REDIS_URL=f"{valkey.url}/0",
        STRIPE_API_BASE=sandbox_process.base_url,
        PURCHASE_RATE_LIMIT="100000/m",
        PURCHASE_RATE_LIMIT_IP="100000/m",
        MAX_OPEN_HOLDS_PER_USER="100",
    )
    try:
        shop.start_web(workers=2)
        shop.wait_until_up()
        yield shop
    finally:
        shop.stop()


def buy(shop: Processes, who: dict[str, str], offer: Any, **headers: str) -> Any:
    return http(
        "POST",
        f"{shop.url}/api/v1/purchases/",
        json={"offer": str(offer.pk), "quantity": 1},
        headers=who | headers,
    )


def test_switch_stops_new_purchases_everywhere_and_nothing_else(
    shop: Processes, sandbox: Any
) -> None:
    Switch.objects.get_or_create(name="purchases", defaults={"active": True})
    offer = OfferFactory(inventory_total=100)
    gift = OfferFactory(event=offer.event, price=0, inventory_total=None)
    buyer = UserFactory()
    owner = MembershipFactory(organization=offer.event.organization).user
    who = bearer(buyer)
    to_pay, to_cancel, to_expire, to_refund = (
        buy(shop, who, offer, **{"Idempotency-Key": f"k{n}"}).json() for n in range(4)
    )
    sandbox.act(to_refund["checkout_session_id"], "pay")
    sandbox.deliver()

    switch(shop, "off", 503, who, gift)

    refusal = buy(shop, who, offer)
    assert code(refusal) == "purchases_disabled"
    assert int(refusal.headers["Retry-After"]) > 0
    api = f"{shop.url}/api/v1/purchases"
    # Who holds a unit may pay it: Stripe tells us.
    sandbox.act(to_pay["checkout_session_id"], "pay")
    for event in sandbox.events("checkout.session.completed"):
        payload = json.dumps(event)
        signed = {"Stripe-Signature": sign(payload), "Content-Type": "application/json"}
        stored = http("POST", f"{shop.url}/api/v1/webhooks/stripe/", data=payload, headers=signed)
        assert stored.status_code == 200, stored.text
    assert status_of(to_pay) == Status.PAID
    # Cancel, replay, refund.
    cancelled = http("POST", f"{api}/{to_cancel['id']}/cancel/", headers=who)
    assert (cancelled.status_code, status_of(to_cancel)) == (200, Status.RELEASED)
    replay = buy(shop, who, offer, **{"Idempotency-Key": "k2"})
    assert (replay.status_code, replay.json()["id"]) == (200, to_expire["id"])
    refund = http("POST", f"{api}/{to_refund['id']}/refund/", json={}, headers=bearer(owner))
    assert (refund.status_code, status_of(to_refund)) == (202, Status.REFUNDING)
    tasks.send_refunds()
    assert status_of(to_refund) == Status.REFUNDED
    # The sweep.
    Purchase.objects.filter(pk=to_expire["id"]).update(reserved_until=timezone.now())
    tasks.end_overdue_holds()
    assert status_of(to_expire) == Status.RELEASED
    assert counters(offer) == (0, 1)


def test_switch_needs_no_redis(shop: Processes, valkey: ValkeyProcess) -> None:
    gift = OfferFactory(price=0, inventory_total=None)
    who = bearer(UserFactory())
    Switch.objects.get_or_create(name="purchases", defaults={"active": False})
    Switch.objects.update(active=False)
    valkey.kill()
    try:
        switch(shop, "on", 201, who, gift)
        switch(shop, "off", 503, who, gift)
    finally:
        valkey.start()


def switch(shop: Processes, way: str, status: int, who: dict[str, str], gift: Any) -> None:
    """Switch by the command; within some seconds every process must answer ``status``."""
    shop.manage("waffle_switch", "purchases", way)
    switched = time.monotonic()
    asked: list[tuple[float, int]] = []
    while len(asked) < IN_A_ROW or {said for _, said in asked[-IN_A_ROW:]} != {status}:
        asked.append((time.monotonic(), buy(shop, who, gift).status_code))
        assert len(asked) < 5000, asked[-1]
    late = [said for at, said in asked if at >= switched + EVERYWHERE_WITHIN]
    assert set(late) <= {status}


def status_of(purchase: dict[str, Any]) -> str:
    return Purchase.objects.get(pk=purchase["id"]).status
