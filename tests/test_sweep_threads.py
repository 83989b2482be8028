"""A sweep ends several holds at once, each the safe way, and one after the other in their order."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from offers.models import Offer
from purchases import holds, stripe_gateway, tasks
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from tests.conftest import at_once, buy, counters
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

HOLDS = 12


@pytest.fixture
def offer(sandbox: Any, client_of: Any) -> Offer:
    """An offer with holds whose time is up, each with an open session."""
    offer = OfferFactory(inventory_total=100)
    for _ in range(HOLDS):
        assert buy(client_of(UserFactory()), offer).status_code == 201
    Purchase.objects.update(reserved_until=timezone.now() - timedelta(minutes=1))
    return offer


def end_all(threads: int) -> list[holds.Ended]:
    now = timezone.now()
    how: Any = {"reason": ReleaseReason.EXPIRED, "now": now, "source": "sweep"}
    return list(holds.end_all(holds.overdue(now=now), **how, at_once=threads))


def test_threads_release_each_hold_once(offer: Offer, sandbox: Any) -> None:
    sandbox.faults(latency_ms=100)
    ended = end_all(6)
    assert [outcome.error for outcome in ended] == [None] * HOLDS
    assert counters(offer) == (0, 0)
    assert {session["status"] for session in sandbox.sessions()} == {"expired"}
    assert all(p.transitions.filter(name="release").count() == 1 for p in Purchase.objects.all())


def test_threads_wait_for_stripe_together(
    offer: Offer, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits at Stripe until another one does: one by one they would wait for ever."""
    meeting = threading.Barrier(3, timeout=30)
    ask = stripe_gateway.expire_session

    def expire(session_id: str) -> Any:
        meeting.wait()
        return ask(session_id)

    monkeypatch.setattr(stripe_gateway, "expire_session", expire)
    assert [outcome.error for outcome in end_all(3)] == [None] * HOLDS


def test_paid_holds_stay_sold_whichever_thread_finds_out(offer: Offer, sandbox: Any) -> None:
    for purchase in Purchase.objects.order_by("pk")[:4]:
        sandbox.act(purchase.checkout_session_id, "pay")
    ended = end_all(4)
    assert sorted(outcome.purchase.status for outcome in ended) == sorted(
        [Status.PAID] * 4 + [Status.RELEASED] * (HOLDS - 4)
    )
    assert counters(offer) == (0, 4)


def test_stripe_away_is_asked_by_no_more_than_the_threads(
    offer: Offer, sandbox: Any, settings: Any
) -> None:
    sandbox.faults(error_rate=1.0, error_status=401)
    ended = end_all(3)
    assert all(outcome.error is not None for outcome in ended)
    assert len(ended) == HOLDS
    asked = [r for r in sandbox.process.get("requests")["data"] if r["path"].endswith("/expire")]
    assert 1 <= len(asked) <= 3
    assert counters(offer) == (HOLDS, 0)


def test_sweeps_at_once_release_each_hold_once(offer: Offer, sandbox: Any) -> None:
    sandbox.faults(latency_ms=50)
    at_once([lambda: end_all(4), lambda: end_all(4)])
    assert counters(offer) == (0, 0)
    assert all(p.transitions.filter(name="release").count() == 1 for p in Purchase.objects.all())


def test_task_of_the_worker_uses_the_threads_and_leaves_no_connection_behind(
    offer: Offer, settings: Any
) -> None:
    settings.SWEEP_THREADS = 4
    assert tasks.end_overdue_holds() == HOLDS
    assert connection.pool.get_stats()["requests_waiting"] == 0
    stats = connection.pool.get_stats()
    # This thread's own is the one that is out.
    assert stats["pool_size"] - stats["pool_available"] <= 1


def test_lines_of_the_threads_name_the_task(offer: Offer, caplog: Any) -> None:
    with bound_contextvars(task_id="the-sweep"):
        end_all(3)
    released = [r.msg for r in caplog.records if r.msg.get("action") == "release"]
    assert len(released) == HOLDS
    assert {line["task_id"] for line in released} == {"the-sweep"}


def test_buyers_may_cancel_while_the_sweep_is_at_it(offer: Offer, client_of: Any) -> None:
    purchases = list(Purchase.objects.select_related("user"))

    def cancel(purchase: Purchase) -> int:
        client = client_of(User.objects.get(pk=purchase.user_id))
        status: int = client.post(f"/api/v1/purchases/{purchase.pk}/cancel/").status_code
        return status

    answers = at_once([lambda: end_all(4), *[lambda p=p: cancel(p) for p in purchases]])
    assert set(answers[1:]) <= {200, 409}
    end_all(1)
    assert counters(offer) == (0, 0)


def test_sweep_that_is_interrupted_ends_no_more_than_it_had_begun(
    offer: Offer, sandbox: Any
) -> None:
    sandbox.faults(latency_ms=300)
    now = timezone.now()
    how: Any = {"reason": ReleaseReason.STAFF, "now": now, "source": "command"}
    ends = holds.end_all(holds.open_holds(), **how, at_once=2)
    next(ends)
    ends.close()
    released = Purchase.objects.filter(status=Status.RELEASED).count()
    assert 1 <= released <= 6 < HOLDS
    assert counters(offer) == (HOLDS - released, 0)
