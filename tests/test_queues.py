"""Celery's queues: what is urgent waits for nothing else, and a killed worker loses nothing."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery
from django.utils import timezone

from offers import row_queue
from offers_project import queues
from offers_project.celery import app
from offers_project.local.valkey import ValkeyProcess
from purchases import tasks, webhooks
from purchases.models import StripeEvent
from tests.sandbox_process import wait_for
from tests.service_processes import Processes, own_database_url

SECONDS = 60.0
# Keys on Redis, for tests.held_tasks.
BEGAN, MAY_END = "tests:began", "tests:may-end"


class Broker:
    """A Valkey of the test's own, and workers on it."""

    def __init__(self, valkey: ValkeyProcess, folder: Path) -> None:
        url = f"{valkey.url}/0"
        self.redis = redis.Redis.from_url(url)
        self.processes = Processes(folder, REDIS_URL=url, DATABASE_URL=own_database_url())
        self._sender = Celery("sender", set_as_current=False)
        self._sender.config_from_object("django.conf:settings", namespace="CELERY")
        self._sender.conf.broker_url = url

    def send(self, task: str, *args: Any, **options: Any) -> None:
        self._sender.send_task(task, args=args, **options)

    def hold(self, name: str, *, queue: str) -> None:
        self.send("tests.hold", name, BEGAN, MAY_END, queue=queue)

    def worker(self, name: str = "worker", **options: Any) -> Any:
        child = self.processes.start_worker(
            beat=False, name=name, application="tests.held_tasks", **options
        )
        self.processes.wait_until_up()
        return child

    def began(self) -> list[str]:
        return [name.decode() for name in self.redis.lrange(BEGAN, 0, -1)]

    def wait_until_began(self, *names: str) -> None:
        wait_for(lambda: self.began() == list(names), SECONDS)

    def let_go(self) -> None:
        self.redis.set(MAY_END, 1)

    def close(self) -> None:
        self.let_go()
        self.processes.stop()
        self.redis.close()
        self._sender.close()


@pytest.fixture
def broker(private_valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Broker]:
    it = Broker(private_valkey, tmp_path)
    yield it
    it.close()


def stored_event(name: str = "evt_waiting") -> StripeEvent:
    """An event that nothing here depends on: processing it is to ignore it."""
    now = timezone.now()
    return StripeEvent.objects.create(
        id=name,
        type="customer.created",
        created=now,
        payload={"data": {"object": {}}},
        received_at=now,
        due_at=now,
    )


@pytest.mark.django_db(transaction=True)
def test_urgent_message_overtakes_bulk_ones_that_were_there_first(broker: Broker) -> None:
    for name in ("bulk 1", "bulk 2", "bulk 3"):
        broker.hold(name, queue="bulk")
    broker.hold("sweep", queue="default")
    broker.hold("urgent 1", queue="urgent")
    broker.hold("urgent 2", queue="urgent")
    broker.let_go()
    broker.worker(threads=1)
    wait_for(lambda: len(broker.began()) == 6, SECONDS)
    assert broker.began() == ["urgent 1", "urgent 2", "sweep", "bulk 1", "bulk 2", "bulk 3"]


@pytest.mark.django_db(transaction=True)
def test_urgent_message_isnt_kept_by_a_worker_that_is_busy_with_bulk(broker: Broker) -> None:
    """What is prefetched by a thread's worker waits for that thread, whoever else is free."""
    broker.worker("both", threads=1)
    broker.hold("bulk", queue="bulk")
    broker.wait_until_began("bulk")
    broker.hold("urgent", queue="urgent")
    broker.worker("free", threads=1)
    broker.wait_until_began("bulk", "urgent")


@pytest.mark.django_db(transaction=True)
def test_events_are_processed_while_every_bulk_thread_is_taken(broker: Broker) -> None:
    broker.worker("bulk", queues="bulk", threads=2)
    broker.worker("urgent", queues="urgent", threads=1)
    broker.hold("bulk 1", queue="bulk")
    broker.wait_until_began("bulk 1")  # of two threads, either might be first
    broker.hold("bulk 2", queue="bulk")
    broker.wait_until_began("bulk 1", "bulk 2")
    broker.hold("bulk 3", queue="bulk")
    event = stored_event()
    broker.send("purchases.process_events", expires=row_queue.SWEEP_SECONDS)
    wait_for(
        lambda: StripeEvent.objects.get(pk=event.pk).state == StripeEvent.State.IGNORED, SECONDS
    )
    assert broker.began() == ["bulk 1", "bulk 2"]


@pytest.mark.django_db(transaction=True)
def test_task_of_a_worker_that_was_killed_is_run_by_another(broker: Broker) -> None:
    broker.processes.env["KILLED_WORKERS_SECONDS"] = "2"
    killed = broker.worker("killed", threads=1)
    broker.hold("reconciliation", queue="bulk")
    broker.wait_until_began("reconciliation")
    killed.kill()
    broker.worker("other", threads=1)
    broker.wait_until_began("reconciliation", "reconciliation")


@pytest.mark.django_db(transaction=True)
def test_task_of_a_pools_process_that_was_killed_is_run_again_at_once(broker: Broker) -> None:
    """Where somebody chooses a pool of processes: Linux kills the largest when memory runs out."""
    worker = broker.worker(threads=1, pool="prefork")
    event = stored_event()
    broker.send("purchases.process_events")
    wait_for(lambda: StripeEvent.objects.get(pk=event.pk).processed_at, SECONDS)
    broker.hold("reconciliation", queue="bulk")
    broker.wait_until_began("reconciliation")
    for process in psutil.Process(worker.pid).children():
        process.kill()
    broker.wait_until_began("reconciliation", "reconciliation")


@pytest.mark.django_db(transaction=True)
def test_what_a_worker_had_when_it_was_told_to_stop_is_done_first(broker: Broker) -> None:
    worker = broker.worker(threads=1)
    broker.hold("under way", queue="urgent")
    broker.wait_until_began("under way")
    worker.ask_to_stop()
    wait_for(lambda: "Warm shutdown" in broker.processes.log("worker"), SECONDS)
    broker.let_go()
    assert worker.stop(timeout=SECONDS, ask=False)
    assert broker.redis.hlen("unacked") == 0
    assert broker.redis.llen("urgent") == 0


@pytest.mark.django_db
def test_sweep_begins_no_row_when_its_time_is_up() -> None:
    for number in range(3):
        stored_event(f"evt_{number}")
    began = time.monotonic()
    assert webhooks.process_unprocessed(now=timezone.now(), until=began) == 1
    assert webhooks.process_unprocessed(now=timezone.now(), until=began + SECONDS) == 2


def test_every_task_has_a_queue_and_every_queue_is_one_of_ours() -> None:
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if not name.startswith(("celery.", "tests."))}
    assert ours == set(queues.ROUTES)
    assert set(queues.ROUTES.values()) == {queue.name for queue in queues.QUEUES}


def test_no_message_is_given_to_another_worker_while_its_task_may_run() -> None:
    longest = max(row_queue.SWEEP_SECONDS, tasks.RECONCILE_SECONDS)
    limits = (queues.SOFT_TIME_LIMIT, queues.TIME_LIMIT, queues.VISIBILITY_TIMEOUT)
    soft, hard, visibility = (limit.total_seconds() for limit in limits)
    assert longest < soft < hard < visibility
    assert app.conf.broker_transport_options["visibility_timeout"] == visibility
