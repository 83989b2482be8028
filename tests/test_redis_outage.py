"""Redis may vanish at any time: one warning, a slower answer, the same result."""

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from celery import Celery
from django.core.cache import cache, caches
from django.utils import timezone

from offers.breaker import redis_breaker
from offers.caching import BreakerRedisCache
from offers.wake import wake
from offers_project.celery import BrokerlessScheduler
from offers_project.local.valkey import ValkeyProcess
from purchases import reconciliation, tasks
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import buy, counters
from tests.factories import OfferFactory, UserFactory
from tests.sandbox_process import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def valkey(private_valkey: ValkeyProcess, settings: Any) -> Iterator[ValkeyProcess]:
    """A Valkey of this test's own, used by caches and rate limits, that may be killed."""
    url = f"{private_valkey.url}/0"
    settings.REDIS_BREAKER_SECONDS = 0.2
    settings.CACHES = {
        name: config | {"LOCATION": url} if "RedisCache" in config["BACKEND"] else config
        for name, config in settings.CACHES.items()
    }
    assert isinstance(cache._connections["default"], BreakerRedisCache)
    cache.set("probe", 1)
    assert cache.get("probe") == 1
    return private_valkey


def works(client: Any, offer: Any, sandbox: Any) -> None:
    """Buy and pay one unit."""
    answer = buy(client, offer)
    assert answer.status_code == 201, answer.content
    sandbox.act(answer.json()["checkout_session_id"], "pay")
    sandbox.deliver()
    assert Purchase.objects.get(pk=answer.json()["id"]).status == Status.PAID


def warnings(caplog: Any) -> list[Any]:
    return [r for r in caplog.records if "going on without" in str(r.msg)]


def test_purchases_go_on_before_during_and_after_an_outage(
    sandbox: Any, client_of: Any, valkey: ValkeyProcess, caplog: Any
) -> None:
    offer = OfferFactory(inventory_total=5)
    client = client_of(UserFactory())

    works(client, offer, sandbox)
    valkey.kill()
    works(client, offer, sandbox)
    works(client, offer, sandbox)
    assert redis_breaker.is_open
    valkey.start()
    wait_for(lambda: cache.set("back", 1))
    works(client, offer, sandbox)

    assert not redis_breaker.is_open
    assert len(warnings(caplog)) == 1
    assert counters(offer) == (0, 4)


def test_redis_killed_while_a_purchase_waits_for_stripe(
    sandbox: Any, client_of: Any, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from purchases import stripe_gateway

    ask = stripe_gateway.create_session

    def kill_then_ask(*args: Any, **kwargs: Any) -> Any:
        valkey.kill()
        return ask(*args, **kwargs)

    monkeypatch.setattr(stripe_gateway, "create_session", kill_then_ask)
    offer = OfferFactory()
    works(client_of(UserFactory()), offer, sandbox)
    assert counters(offer) == (0, 1)


def test_replay_needs_no_redis(sandbox: Any, client_of: Any, valkey: ValkeyProcess) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    first = buy(client, offer, key="k1")
    valkey.kill()
    second = buy(client, offer, key="k1")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


def test_rate_limits_fall_back_to_a_counter_of_the_process(
    client_of: Any, valkey: ValkeyProcess
) -> None:
    offer = OfferFactory(price=0, inventory_total=100)
    client = client_of(UserFactory())
    valkey.kill()
    with time_machine.travel(timezone.now(), tick=False):  # all of it in one window
        statuses = [buy(client, offer).status_code for _ in range(15)]
    assert statuses.count(201) == 10
    assert statuses.count(429) == 5


def test_hanging_redis_is_asked_once_and_then_left_alone(settings: Any, caplog: Any) -> None:
    """The slow kind of absent, where each try costs the time-out: of fifty reads one tries."""
    with socket.create_server(("127.0.0.1", 0)) as never_answers:
        address = f"redis://127.0.0.1:{never_answers.getsockname()[1]}/0"
        settings.REDIS_BREAKER_SECONDS = 600
        settings.CACHES = settings.CACHES | {
            "default": settings.CACHES["default"] | {"LOCATION": address}
        }
        assert [cache.get("anything", "missed") for _ in range(50)] == ["missed"] * 50
        never_answers.settimeout(0)
        never_answers.accept()[0].close()
        with pytest.raises(BlockingIOError):
            never_answers.accept()
    assert len(warnings(caplog)) == 1


OPERATIONS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "get": (lambda c: c.get("k", "default"), "default"),
    "get_many": (lambda c: c.get_many(["k"]), {}),
    "set": (lambda c: c.set("k", 1), False),
    "set_many": (lambda c: c.set_many({"k": 1}), ["k"]),
    "add": (lambda c: c.add("k", 1), True),
    "incr": (lambda c: c.incr("k"), 1),
    "touch": (lambda c: c.touch("k"), False),
    "delete": (lambda c: c.delete("k"), False),
    "delete_many": (lambda c: c.delete_many(["k"]), 0),
    "has_key": (lambda c: c.has_key("k"), False),
    "clear": (lambda c: c.clear(), False),
    "get_or_set": (lambda c: c.get_or_set("k", 7), 7),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_cache_operation_misses_instead_of_failing(
    valkey: ValkeyProcess, operation: str
) -> None:
    call, answer = OPERATIONS[operation]
    valkey.kill()
    assert call(caches["default"]) == answer


def test_message_to_the_worker_is_dropped_while_redis_is_away(
    valkey: ValkeyProcess, caplog: Any
) -> None:
    valkey.kill()
    for _ in range(20):
        wake("purchases.end_overdue_holds")
    assert len(warnings(caplog)) == 1


def test_sweep_runs_in_beat_while_the_broker_is_away(
    sandbox: Any, client_of: Any, valkey: ValkeyProcess, tmp_path: Path, settings: Any
) -> None:
    settings.RESERVATION_MINUTES = 0
    offer = OfferFactory()
    buy(client_of(UserFactory()), offer)
    assert counters(offer) == (1, 0)
    beat = Celery("beat", set_as_current=False)
    beat.config_from_object("django.conf:settings", namespace="CELERY")
    beat.conf.broker_url = f"{valkey.url}/0"
    valkey.kill()

    scheduler = BrokerlessScheduler(beat, schedule_filename=str(tmp_path / "schedule"))
    entry = scheduler.schedule["end overdue holds"]
    assert entry.task == tasks.end_overdue_holds.name
    scheduler.apply_async(entry, advance=False)
    scheduler.close()

    assert counters(offer) == (0, 0)


def test_sweep_in_beat_has_the_arguments_that_the_worker_would_have_had(
    valkey: ValkeyProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[reconciliation.Run] = []

    def note(run: reconciliation.Run) -> list[Any]:
        asked.append(run)
        return []

    monkeypatch.setattr(reconciliation, "reconcile", note)
    beat = Celery("beat", set_as_current=False)
    beat.config_from_object("django.conf:settings", namespace="CELERY")
    beat.conf.broker_url = f"{valkey.url}/0"
    valkey.kill()
    scheduler = BrokerlessScheduler(beat, schedule_filename=str(tmp_path / "schedule"))
    scheduler.apply_async(scheduler.schedule["reconcile lately"], advance=False)
    scheduler.close()
    (run,) = asked
    assert (run.now - run.since, run.is_thorough) == (timedelta(hours=0.5), False)
