"""Showings are counted on Redis and kept in PostgreSQL: none twice, none at any query's cost."""

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from offers import heartbeat, impressions
from offers.breaker import redis_breaker
from offers.impressions import Impression
from offers.models import Event, Offer
from offers.tasks import flush_impressions
from offers_project.local.valkey import ValkeyProcess
from tests.conftest import at_once
from tests.factories import EventFactory, OfferFactory
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


def test_counting_takes_one_command_and_no_query(client_of: Any) -> None:
    event = EventFactory()
    OfferFactory.create_batch(30, event=event)
    redis = impressions._redis()

    def asked() -> tuple[int, int]:
        """Queries, and commands that reached Redis, of one answer."""
        before = redis.info("stats")["total_commands_processed"]
        with CaptureQueriesContext(
            connection,
        ) as queries:
            listed(client_of(), event)
        return len(queries), redis.info("stats")["total_commands_processed"] - before

    listed(client_of(), event)  # Redis has the script now
    queries, commands = asked()
    redis_breaker.failed(OSError("away"))
    without = asked()
    assert without[0] == queries
    # A script's own commands count as well: one for each offer, and the script itself.
    assert commands - without[1] == 31


def test_script_that_redis_forgot_is_sent_again() -> None:
    offer = OfferFactory()
    show(offer)
    impressions._redis().script_flush()
    show(offer)
    assert impressions.flush() == 2


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
