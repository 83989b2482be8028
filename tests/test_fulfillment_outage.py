"""The broker is away while people pay: nothing of theirs is late by more than a sweep."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from fulfillment.digital.models import AccessCode
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.models import Offer
from offers_project.local.valkey import ValkeyProcess
from purchases.models import Purchase
from purchases.states import Status as PurchaseStatus
from tests.conftest import buy, counters
from tests.factories import DigitalContentFactory, OfferFactory, UserFactory
from tests.sandbox_process import SandboxProcess, wait_for
from tests.service_processes import Processes, own_database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(240)]

PAYMENTS = 50


@pytest.fixture
def worker(
    private_valkey: ValkeyProcess, sandbox_process: SandboxProcess, tmp_path: Path
) -> Iterator[Processes]:
    """A worker with beat, as production starts it, on the broker that will be killed."""
    processes = Processes(
        tmp_path,
        DATABASE_URL=own_database_url(),
        REDIS_URL=f"{private_valkey.url}/0",
        STRIPE_API_BASE=sandbox_process.base_url,
        EMAIL_URL=f"filemail:///{tmp_path}/mail",
    )
    processes.start_worker(beat=True)
    yield processes
    processes.stop()


def pay(sandbox: Any, client: Any, offer: Offer) -> str:
    answer = buy(client, offer)
    assert answer.status_code == 201, answer.content
    sandbox.act(answer.json()["checkout_session_id"], "pay")
    sandbox.deliver()
    return str(answer.json()["id"])


def test_everything_paid_while_the_broker_was_away_is_delivered_within_a_minute(
    sandbox: Any,
    client_of: Any,
    private_valkey: ValkeyProcess,
    worker: Processes,
    settings: Any,
) -> None:
    settings.REDIS_BREAKER_SECONDS = 0.2
    settings.CACHES = {
        name: config | {"LOCATION": f"{private_valkey.url}/0"}
        if "BreakerRedisCache" in config["BACKEND"]
        else config
        for name, config in settings.CACHES.items()
    }
    settings.PURCHASE_RATE_LIMIT = "1000/m"
    offer = OfferFactory(offer_type=Offer.Type.EXCLUSIVE_CONTENT, inventory_total=PAYMENTS)
    DigitalContentFactory(offer=offer, codes=PAYMENTS)
    worker.wait_until_up()

    private_valkey.kill()
    for _ in range(PAYMENTS):
        pay(sandbox, client_of(UserFactory()), offer)
    assert Purchase.objects.filter(status=PurchaseStatus.PAID).count() == PAYMENTS
    private_valkey.start()
    wait_for(lambda: cache.set("back", 1))
    back_at: datetime = timezone.now()

    wait_for(lambda: delivered() == PAYMENTS, seconds=90)

    latest = Fulfillment.objects.latest("fulfilled_at").fulfilled_at
    assert latest is not None
    # The done-when of the sweep: beat comes every 30 s.
    assert latest - back_at < timedelta(minutes=1)
    assert counters(offer) == (0, PAYMENTS)
    assert AccessCode.objects.exclude(fulfillment=None).count() == PAYMENTS


def delivered() -> int:
    return Fulfillment.objects.filter(status=Status.FULFILLED).count()
