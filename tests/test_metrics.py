"""/metrics: what waits and for how long, over all processes, and whatever is away."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone
from django_prometheus.middleware import Metrics

from fulfillment import delivery
from fulfillment.models import Fulfillment
from offers import heartbeat, inventory
from offers.breaker import redis_breaker
from offers_project.accounts import letters
from offers_project.accounts.models import AccountLetter
from offers_project.monitoring import exposition, waiting
from offers_project.monitoring.requests import LEFT_OUT
from offers_project.monitoring.waiting import WaitingCollector
from purchases import mail, webhooks
from purchases.bulk.models import BulkItem, BulkJob
from purchases.models import Email, Refund, StripeEvent, WebhookDelivery, WebhookEndpoint
from purchases.states import Status
from tests.conftest import at_once, blocked_backends, buy
from tests.factories import (
    OfferFactory,
    OrganizationFactory,
    PurchaseFactory,
    RefundFactory,
    UserFactory,
)
from tests.ports import own_port
from tests.sandbox_process import wait_for
from tests.scraped import Samples, parsed, total, value
from tests.service_processes import ANSWER_SECONDS, Processes, http, own_database_url

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """No figure is left over from another test."""
    WaitingCollector._kept = (-waiting.KEPT_SECONDS, [])
    yield
    WaitingCollector._kept = (-waiting.KEPT_SECONDS, [])


def scraped(client: Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return parsed(answer.content.decode())


def queue(samples: Samples, name: str) -> tuple[float | None, float | None]:
    """(rows, whole minutes that the oldest waits)"""
    oldest = value(samples, "offers_queue_oldest_seconds", queue=name)
    return value(samples, "offers_queue_rows", queue=name), oldest and oldest // 60


# -- What waits in the database -------------------------------------------------------------------


def overdue_hold(at: datetime) -> None:
    PurchaseFactory(reserved_until=at)
    PurchaseFactory(reserved_until=timezone.now() + MINUTE)


def failed_checkout(at: datetime) -> None:
    PurchaseFactory(checkout_failed_at=at)


def stored_event(at: datetime) -> None:
    for number, state in enumerate(StripeEvent.State):
        StripeEvent.objects.create(
            id=f"evt_{number}", type="x", created=at, payload={}, state=state,
            received_at=at if state == StripeEvent.State.STORED else at + MINUTE, due_at=at,
        )  # fmt: skip


def unheard_payment(at: datetime) -> None:
    paid = PurchaseFactory(status=Status.PAID)
    type(paid).objects.filter(pk=paid.pk).update(paid_at=at, fulfillment_due=True)


def due_fulfilment(at: datetime) -> None:
    paid = PurchaseFactory(status=Status.PAID)
    delivery.hear_of(paid.pk, now=timezone.now())
    Fulfillment.objects.update(paid_at=at, due_at=at)


def stalled_fulfilment(at: datetime) -> None:
    due_fulfilment(at)
    Fulfillment.objects.update(is_stalled=True)


def due_refund(at: datetime) -> None:
    for state in Refund.State:
        Refund.objects.create(
            purchase=PurchaseFactory(status=Status.PAID), payment_intent_id="pi_1", amount=1,
            cause=Refund.Cause.STAFF, state=state, due_at=at, created_at=at,
        )  # fmt: skip


def refund_that_stripe_takes_none_of(at: datetime) -> None:
    """Each try moves its time on, and it waits all the same."""
    RefundFactory(created_at=at, due_at=timezone.now() + 30 * MINUTE, attempts=5)


def refund_under_way(at: datetime) -> None:
    """A bank may take days: it waits for us only once it is to be asked about."""
    days_ago = at - timedelta(days=3)
    for number, due_at in enumerate((at, timezone.now() + 30 * MINUTE)):
        RefundFactory(created_at=days_ago, due_at=due_at, stripe_refund_id=f"re_{number}")


def due_email(at: datetime) -> None:
    purchase = PurchaseFactory(status=Status.PAID)
    Email.objects.all().delete()
    mail.enqueue(purchase, Email.Occasion.CONFIRMED, now=at)


def due_letter(at: datetime) -> None:
    letters.ask_for(AccountLetter.Kind.PASSWORD_RESET, "a@example.com", site="", language="en")
    AccountLetter.objects.update(due_at=at)


def due_delivery(at: datetime) -> None:
    organization = OrganizationFactory()
    for is_active in (True, False):
        endpoint = WebhookEndpoint.objects.create(
            organization=organization, url="https://example.com", is_active=is_active, due_at=at
        )
        WebhookDelivery.objects.create(
            endpoint=endpoint, key="1", type="x", payload={}, due_at=at, created_at=at
        )


def due_bulk_job(at: datetime, *settled_at: datetime) -> None:
    """One item waits, and the others were settled in this order."""
    job = BulkJob.objects.create(
        kind="x", organization=OrganizationFactory(), asked_at=at, started_at=at, due_at=at, total=5
    )
    BulkItem.objects.create(job=job, object_id=uuid4(), due_at=at)
    for state, settled in zip(("done", "refused", "failed"), settled_at, strict=False):
        BulkItem.objects.create(
            job=job, object_id=uuid4(), due_at=at, state=state, settled_at=settled
        )


def bulk_job_at_work_for_hours(at: datetime) -> None:
    due_bulk_job(at - 120 * MINUTE, at - 90 * MINUTE, at - 30 * MINUTE, at)


def bulk_job_that_rested(at: datetime) -> None:
    """Stripe was away; it is due again, and nothing of it was done since."""
    due_bulk_job(at - 120 * MINUTE, at - 90 * MINUTE)
    BulkJob.objects.update(due_at=at, setbacks=1)


def bulk_job_that_stopped_beside_one_at_work(at: datetime) -> None:
    due_bulk_job(at - 120 * MINUTE, at)
    due_bulk_job(at - 120 * MINUTE, at + 6 * MINUTE)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "make", "rows"),
    [
        ("holds", overdue_hold, 1),
        ("holds", failed_checkout, 1),
        ("events", stored_event, 2),
        ("fulfilments", unheard_payment, 1),
        ("fulfilments", due_fulfilment, 1),
        ("fulfilments", stalled_fulfilment, 1),
        ("refunds", due_refund, 2),
        ("refunds", refund_that_stripe_takes_none_of, 1),
        ("refunds", refund_under_way, 1),
        ("emails", due_email, 1),
        ("letters", due_letter, 1),
        ("subscribers", due_delivery, 1),
        ("bulk", due_bulk_job, 1),
        ("bulk", bulk_job_at_work_for_hours, 1),
        ("bulk", bulk_job_that_rested, 1),
        ("bulk", bulk_job_that_stopped_beside_one_at_work, 2),
    ],
)
def test_queue_tells_how_much_waits_and_for_how_long(
    client: Client, name: str, make: Any, rows: int
) -> None:
    assert queue(scraped(client), name) == (0, 0)
    make(timezone.now() - 7 * MINUTE)
    WaitingCollector._kept = (-waiting.KEPT_SECONDS, [])
    assert queue(scraped(client), name) == (rows, 7)


@pytest.mark.django_db
def test_events_that_were_given_up_are_counted(client: Client) -> None:
    stored_event(timezone.now())
    assert value(scraped(client), "offers_dead_events") == 1


@pytest.mark.django_db
def test_no_more_rows_are_counted_than_it_takes_to_be_alarmed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST", 1)
    stored_event(timezone.now())
    assert queue(scraped(client), "events")[0] == 2  # one of each state


@pytest.mark.django_db
def test_worker_that_isnt_seen_is_told_of_by_its_silence(client: Client) -> None:
    assert value(scraped(client), "offers_worker_seen_seconds") is None
    heartbeat.beat(now=timezone.now() - 5 * MINUTE)
    WaitingCollector._kept = (-waiting.KEPT_SECONDS, [])
    seen = value(scraped(client), "offers_worker_seen_seconds")
    assert seen is not None
    assert seen // 60 == 5


@pytest.mark.django_db
def test_messages_that_no_worker_took_are_counted(client: Client) -> None:
    with Celery("sender", set_as_current=False) as sender:
        sender.config_from_object("django.conf:settings", namespace="CELERY")
        before = value(scraped(client), "offers_celery_messages", queue="bulk") or 0
        sender.send_task("purchases.check_inventory")
        WaitingCollector._kept = (-waiting.KEPT_SECONDS, [])
        assert value(scraped(client), "offers_celery_messages", queue="bulk") == before + 1
        sender.control.purge()


@pytest.mark.django_db
def test_many_monitors_ask_the_database_no_more_often_than_one(
    client: Client, django_assert_num_queries: Any
) -> None:
    first = scraped(client)
    with django_assert_num_queries(0):
        second = scraped(client)
    assert value(second, "offers_queue_rows", queue="holds") == 0
    assert value(first, "offers_scrape_failed", part="holds") == 0


# -- While something is away ----------------------------------------------------------------------


def lost(*args: Any) -> None:
    raise OperationalError("connection refused")


@pytest.mark.django_db
def test_scrape_without_a_database_says_what_it_could_not_find_out(client: Client) -> None:
    with connection.execute_wrapper(lost):
        samples = scraped(client)
    for part in (*waiting.QUEUES, "dead_events", "worker"):
        assert value(samples, "offers_scrape_failed", part=part) == 1
    assert value(samples, "offers_queue_rows", queue="holds") is None
    assert value(samples, "offers_scrape_failed", part="celery") == 0
    assert total(samples, "django_http_requests_total_by_method_total") >= 0


@pytest.mark.django_db
def test_one_figure_that_fails_takes_no_other_with_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(now: datetime) -> waiting.Waiting:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")
        raise AssertionError("unreachable: the statement's time is up before")

    monkeypatch.setitem(waiting.QUEUES, "events", slow)
    samples = scraped(client)
    failed = {
        dict(labels)["part"]
        for (name, labels), is_so in samples.items()
        if name == "offers_scrape_failed" and is_so
    }
    assert failed == {"events"}
    assert value(samples, "offers_queue_rows", queue="refunds") == 0


@pytest.mark.django_db
def test_redis_that_is_away_is_told_of_and_not_waited_for(client: Client) -> None:
    redis_breaker.failed(OSError("away"))
    samples = scraped(client)
    assert value(samples, "offers_service_away", service="redis") == 1
    assert value(samples, "offers_scrape_failed", part="celery") == 1
    redis_breaker.succeeded()
    assert value(scraped(client), "offers_service_away", service="redis") == 0


# -- What each process counts ---------------------------------------------------------------------


@pytest.mark.django_db
def test_event_tells_how_long_it_was_on_its_way(client: Client) -> None:
    event = StripeEvent.objects.create(
        id="evt_1", type="customer.created", created=timezone.now() - 5 * MINUTE,
        payload={"data": {"object": {}}}, received_at=timezone.now(), due_at=timezone.now(),
    )  # fmt: skip
    before = value(scraped(client), "offers_event_lag_seconds_sum")
    webhooks.process(event, now=timezone.now())
    after = value(scraped(client), "offers_event_lag_seconds_sum")
    assert before is not None
    assert after is not None
    assert 300 <= after - before < 360


@pytest.mark.django_db(transaction=True)
def test_calls_to_stripe_are_timed(client: Client, client_of: Any, sandbox: Any) -> None:
    before = value(scraped(client), "offers_stripe_call_seconds_count") or 0
    assert buy(client_of(UserFactory()), OfferFactory()).status_code == 201
    samples = scraped(client)
    assert (value(samples, "offers_stripe_call_seconds_count") or 0) > before
    assert value(samples, "offers_stripe_conversations") == 0
    assert value(samples, "offers_stripe_waiting") == 0


def test_counts_that_are_left_out_are_some_that_django_prometheus_has() -> None:
    names: set[str] = set()

    class Names(Metrics):
        def register_metric(self, metric_cls: Any, name: str, *args: Any, **kwargs: Any) -> None:
            names.add(name)

    Names()
    assert names > LEFT_OUT


@pytest.mark.django_db(transaction=True)
def test_lock_wait_is_measured_until_the_row_is_had(client: Client) -> None:
    offer = OfferFactory()
    is_held = threading.Event()

    def hold() -> None:
        with transaction.atomic():
            inventory.lock(offer.pk)
            is_held.set()
            wait_for(blocked_backends)
            time.sleep(0.3)  # what is measured

    def wait() -> None:
        is_held.wait(30)
        with transaction.atomic():
            inventory.lock(offer.pk)

    def seen(name: str, **labels: str) -> float:
        return value(scraped(client), f"offers_lock_wait_seconds_{name}", **labels) or 0

    count, at_most, seconds = seen("count"), seen("bucket", le="0.1"), seen("sum")
    at_once([hold, wait])
    assert seen("count") == count + 2
    # At most the one that found it free had it at once: the other waited for all of 0.3 s.
    assert seen("bucket", le="0.1") <= at_most + 1
    assert seen("sum") >= seconds + 0.3


@pytest.mark.django_db(transaction=True)
def test_connections_are_counted_while_somebody_has_them(client: Client) -> None:
    connection.close()
    before = value(scraped(client), "offers_pool_in_use", database="default")
    is_held, may_end = threading.Event(), threading.Event()

    def have_one() -> None:
        connection.ensure_connection()
        is_held.set()
        may_end.wait(30)

    def look() -> tuple[float | None, ...]:
        is_held.wait(30)
        connection.close()
        seen = parsed(exposition.prometheus_client.generate_latest().decode())
        may_end.set()
        names = ("in_use", "size")
        return tuple(value(seen, f"offers_pool_{name}", database="default") for name in names)

    _, (in_use, size) = at_once([have_one, look])
    assert before is not None
    assert in_use is not None
    assert in_use >= 1
    assert size == 60
    connection.close()
    assert value(scraped(client), "offers_pool_in_use", database="default") == before


# -- Several processes ----------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    it = Processes(
        tmp_path,
        DATABASE_URL=own_database_url(),
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "metrics"),
        WORKER_METRICS_PORT=str(own_port()),
    )
    yield it
    it.stop()


def page_of(url: str) -> Samples:
    answer = http("GET", url)
    assert answer.status_code == 200
    return parsed(answer.text)


@pytest.mark.django_db(transaction=True)
def test_every_process_of_the_web_server_tells_of_all(processes: Processes) -> None:
    processes.start_web(workers=2)
    processes.wait_until_up()

    def lists(samples: Samples) -> float:
        return total(
            samples, "django_http_responses_total_by_status_view_method_total", view="event-list"
        )

    began = lists(page_of(f"{processes.url}/metrics"))
    for _ in range(20):
        assert http("GET", f"{processes.url}/api/v1/events/").status_code == 200
    told = {lists(page_of(f"{processes.url}/metrics")) for _ in range(10)}
    assert told == {began + 20}
    by_process = {path.name for path in processes.folder.glob("metrics/counter_*.db")}
    assert len(by_process) == 2


@pytest.mark.django_db(transaction=True)
def test_worker_tells_of_itself_at_a_port_of_its_own(processes: Processes) -> None:
    processes.start_worker(beat=False)
    processes.wait_until_up()
    samples = page_of(f"http://127.0.0.1:{processes.env['WORKER_METRICS_PORT']}/")
    assert value(samples, "offers_lock_wait_seconds_count") == 0
    assert value(samples, "offers_service_away", service="postgresql") == 0
    assert value(samples, "offers_queue_rows", queue="holds") is None


@pytest.mark.django_db(transaction=True)
def test_process_that_was_killed_is_busy_no_more(processes: Processes) -> None:
    processes.start_web(workers=1)
    processes.wait_until_up()
    folder = processes.folder / "metrics"
    (file,) = folder.glob("gauge_livesum_*.db")
    os.kill(int(file.stem.rpartition("_")[2]), signal.SIGKILL)
    wait_for(lambda: len(list(folder.glob("gauge_livesum_*.db"))) == 2, ANSWER_SECONDS)
    processes.wait_until_up()
    page_of(f"{processes.url}/metrics")
    assert not file.exists()
