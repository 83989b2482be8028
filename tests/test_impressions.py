"""Showings are counted in each process, and come to PostgreSQL by way of Redis: none twice, none at
the cost of a query or a command.
"""

import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis.connection import AbstractConnection

from offers import heartbeat, impressions
from offers.breaker import redis_breaker
from offers.impressions import Impression
from offers.models import Event, Offer
from offers.tasks import flush_impressions
from offers_project.local.valkey import ValkeyProcess
from tests.conftest import at_once
from tests.factories import EventFactory, OfferFactory
from tests.sandbox_process import wait_for
from tests.service_processes import Processes, http, own_database_url
from tests.test_redis_outage import valkey  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def seen() -> dict[tuple[str, str, date], int]:
    return {
        (row.offer.title, row.placement, row.day): row.seen
        for row in Impression.objects.select_related("offer")
    }


def show(offer: Offer, *, now: datetime = NOW, method: str = "GET", **headers: str) -> None:
    request = RequestFactory().generic(method, "/", headers=headers)
    impressions.note(request, [(offer.pk, offer.placement)], now=now)


def listed(client: Any, event: Event, **query: Any) -> Any:
    return client.get("/api/v1/offers/", {"event": event.slug, **query})


def test_list_counts_the_offers_of_its_page_and_no_others(client_of: Any) -> None:
    event = EventFactory()
    for placement in ("IN_EVENT", "CHECKOUT"):
        OfferFactory(event=event, title=placement, placement=placement)
    OfferFactory(event=event, title="gone", inventory_total=0)
    today = timezone.now().date()

    assert len(listed(client_of(), event).json()["results"]) == 2
    listed(client_of(), event, placement="CHECKOUT")
    listed(client_of(), event, page_size=1)
    assert seen() == {}
    assert flush_impressions() == 4

    assert sum(seen().values()) == 4
    assert seen()["CHECKOUT", "CHECKOUT", today] in (2, 3)
    assert set(seen()) == {("CHECKOUT", "CHECKOUT", today), ("IN_EVENT", "IN_EVENT", today)}


def test_attendees_page_counts_what_it_shows(client: Client) -> None:
    offer = OfferFactory(title="A")
    client.get(f"/events/{offer.event.slug}/offers")
    client.get(f"/events/{offer.event.slug}/offers")
    impressions.flush()
    assert list(seen().values()) == [2]


def test_what_shows_nothing_counts_nothing(client_of: Any, client: Client) -> None:
    offer = OfferFactory()
    client_of().head(f"/api/v1/offers/?event={offer.event.slug}")
    client.head(f"/events/{offer.event.slug}/offers")
    client_of().get(f"/api/v1/offers/{offer.pk}/")
    listed(client_of(), EventFactory())
    show(offer, **{"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"})
    show(offer, **{"Sec-Purpose": "prefetch;prerender"})
    assert impressions.flush() == 0
    show(offer, **{"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/149.0"})
    assert impressions.flush() == 1


def test_day_is_that_of_utc() -> None:
    offer = OfferFactory(title="A")
    midnight = datetime(2026, 6, 2, tzinfo=UTC)
    show(offer, now=midnight - timedelta(microseconds=1))
    show(offer, now=midnight)
    impressions.flush()
    assert seen() == {
        ("A", "IN_EVENT", date(2026, 6, 1)): 1,
        ("A", "IN_EVENT", date(2026, 6, 2)): 1,
    }


def test_counting_takes_no_command_and_no_query(
    client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impressions, "HAND_OVER_EVERY", 3600)
    event = EventFactory()
    OfferFactory.create_batch(30, event=event)
    sent: list[int] = []  # by which thread: other tests' last ones may still be at it
    send = AbstractConnection.send_packed_command

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        sent.append(threading.get_ident())
        send(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", noted)

    def asked(client: Any, **headers: str) -> tuple[int, int]:
        """Queries, and messages to Redis, of one answer."""
        sent.clear()
        with CaptureQueriesContext(connection) as queries:
            client.get("/api/v1/offers/", {"event": event.slug}, headers=headers)
        return len(queries), sent.count(threading.get_ident())

    impressions.hand_over()
    robots = asked(client_of(), **{"User-Agent": "Googlebot/2.1"})
    assert asked(client_of()) == robots
    assert impressions.flush() == 30
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and thread.function is impressions.hand_over:
            thread.cancel()


def test_what_was_counted_is_on_redis_a_moment_later_without_anybodys_doing() -> None:
    offer = OfferFactory()
    for _ in range(3):
        show(offer)
    redis = impressions._redis()
    for counted in (b"3", b"4"):
        wait_for(lambda counted=counted: [*redis.hgetall(impressions.KEY).values()] == [counted])
        show(offer)


def test_server_that_is_stopped_hands_over_what_it_has_counted(tmp_path: Path) -> None:
    offer = OfferFactory(title="A")
    processes = Processes(tmp_path, DATABASE_URL=own_database_url())
    try:
        web = processes.start_web(workers=1)
        processes.wait_until_up()
        for _ in range(3):
            assert http("GET", f"{processes.url}/api/v1/offers/?event={offer.event.slug}").ok
        web.stop(timeout=10)
    finally:
        processes.stop()
    assert impressions.flush() == 3


def test_counts_of_several_flushes_add_up() -> None:
    offer = OfferFactory(title="A")
    for times in (1, 2, 3):
        for _ in range(times):
            show(offer)
        assert impressions.flush() == times
    assert impressions.flush() == 0
    assert list(seen().values()) == [6]


def test_showings_and_flushes_at_once_lose_and_repeat_nothing() -> None:
    offers = OfferFactory.create_batch(5)

    def shows() -> None:
        for _ in range(40):
            for offer in offers:
                show(offer)

    def flushes() -> int:
        return sum(impressions.flush() for _ in range(25))

    answers = at_once([shows, flushes, shows, flushes, flushes, shows])
    moved = sum(answer for answer in answers if answer is not None)
    moved += impressions.flush()
    assert moved == sum(seen().values()) == 3 * 40 * 5


def test_offer_that_is_gone_since_is_left_out() -> None:
    kept = OfferFactory(title="A")
    gone = OfferFactory()
    show(kept)
    show(gone)
    gone.delete()
    show(Offer(pk=uuid4(), placement="EMAIL"))
    impressions.flush()
    assert seen() == {("A", "IN_EVENT", NOW.date()): 1}


def test_counts_are_lost_only_between_the_taking_and_the_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody could tell a commit that failed from one whose answer got lost: no count twice."""
    offer = OfferFactory(title="A")
    show(offer)
    with monkeypatch.context() as patched:
        patched.setattr(connection, "ensure_connection", lambda: _fail())
        with pytest.raises(OperationalError):
            impressions.flush()
    assert impressions.flush() == 1

    show(offer)
    with monkeypatch.context() as patched:
        patched.setattr(impressions, "_keep", lambda counted: _fail())
        with pytest.raises(OperationalError):
            impressions.flush()
    assert impressions.flush() == 0
    assert list(seen().values()) == [1]


def _fail() -> None:
    raise OperationalError("away")


def test_nothing_waits_for_a_redis_that_is_away(client_of: Any, valkey: ValkeyProcess) -> None:  # noqa: F811 - the fixture
    offer = OfferFactory()
    show(offer)
    valkey.kill()
    redis_breaker.succeeded()
    for _ in range(3):
        assert listed(client_of(), offer.event).status_code == 200
    impressions.hand_over()
    assert redis_breaker.is_open
    assert impressions.flush() == 0
    valkey.start()
    redis_breaker.succeeded()
    cache.get("back")
    listed(client_of(), offer.event)
    assert impressions.flush() == 1


def test_each_run_of_the_task_is_a_sign_of_the_worker() -> None:
    assert heartbeat.last() is None
    for _ in range(2):
        flush_impressions()
    last = heartbeat.last()
    assert last is not None
    assert timezone.now() - last < timedelta(minutes=1)
    assert heartbeat.Heartbeat.objects.count() == 1


def test_flush_waits_for_another_ones_rows_and_adds_to_them() -> None:
    """Two workers with counts of one offer and day: each adds to what the others wrote."""
    offer = OfferFactory()
    day, placement = NOW.date(), offer.placement
    field = f"{day} {placement} {offer.pk}"
    start = threading.Barrier(4)

    def keep() -> None:
        start.wait()
        impressions._keep({field: 5})

    assert at_once([keep] * 4) == [None] * 4
    assert list(seen().values()) == [20]
