"""The mirror of a purchase's status, and the address that pages poll, with and without Redis."""

import threading
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.utils import timezone

from offers.breaker import redis_breaker
from offers_project.local.valkey import ValkeyProcess
from purchases import mirror, status_links, transitions
from purchases.errors import PurchaseNotFound
from purchases.models import Purchase
from purchases.states import (
    AWAIT_SETTLEMENT,
    OPEN_CHECKOUT,
    OWE_REFUND,
    PAY,
    REFUND,
    REFUND_FAILED,
    REFUND_RETURNED,
    RELEASE,
    REQUEST_REFUND,
    UNSETTLED,
    ReleaseReason,
    Status,
    Transition,
)
from tests.conftest import at_once, buy
from tests.factories import OfferFactory, PurchaseFactory, UserFactory
from tests.sandbox_process import wait_for
from tests.test_redis_outage import valkey  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db(transaction=True)

FACTS: dict[str, dict[str, Any]] = {
    OPEN_CHECKOUT.name: {"checkout_session_id": "cs_test_mirror"},
    PAY.name: {"paid_at": timezone.now()},
    RELEASE.name: {"release_reason": ReleaseReason.EXPIRED},
}


def change(purchase: Purchase, transition: Transition) -> None:
    with transaction.atomic():
        transitions.apply(
            transitions.lock(purchase.pk),
            transition,
            now=timezone.now(),
            source="tests",
            **FACTS.get(transition.name, {}),
        )


def poll(purchase: Purchase) -> Any:
    return Client().get(status_links.address(purchase.pk))


def mirrored(purchase: Purchase) -> str | None:
    """What Redis has, and nobody else."""
    found = mirror._ask(lambda redis: redis.hmget(mirror._key(purchase.pk), "version", "state"))
    state = mirror._believed(found)
    return state and state.status


def test_poll_of_a_mirrored_purchase_takes_no_query(django_assert_num_queries: Any) -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    browser = Client()
    browser.force_login(purchase.user)
    with django_assert_num_queries(0):
        answer = browser.get(status_links.address(purchase.pk))
    said = answer.json()
    assert said.pop("reserved_until")[:19] == f"{purchase.reserved_until:%Y-%m-%dT%H:%M:%S}"
    assert said == {
        "status": "awaiting_payment",
        "waiting": True,
        "page": f"/purchases/{purchase.pk}",
    }
    assert "no-store" in answer["Cache-Control"]


IN_TIME = (OPEN_CHECKOUT, AWAIT_SETTLEMENT, PAY, REQUEST_REFUND, REFUND_FAILED, REQUEST_REFUND)
TOO_LATE = (OPEN_CHECKOUT, RELEASE, OWE_REFUND, REFUND, REFUND_RETURNED)


@pytest.mark.parametrize("path", [(*IN_TIME, REFUND), TOO_LATE], ids=["paid", "late"])
def test_poll_is_right_after_each_transition(
    path: tuple[Transition, ...], django_assert_num_queries: Any
) -> None:
    purchase = PurchaseFactory()
    assert poll(purchase).json()["status"] == Status.RESERVED
    for transition in path:
        change(purchase, transition)
        with django_assert_num_queries(0):
            answer = poll(purchase).json()
        assert answer["status"] == transition.target
        assert answer["waiting"] == (transition.target in UNSETTLED)


def test_nothing_is_mirrored_of_what_was_rolled_back() -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    with transaction.atomic():
        transitions.apply(
            transitions.lock(purchase.pk), PAY, now=timezone.now(), source="tests",
            paid_at=timezone.now(),
        )  # fmt: skip
        transaction.set_rollback(True)
    assert mirrored(purchase) == Status.AWAITING_PAYMENT


def test_purchase_made_through_the_api_is_mirrored(sandbox: Any, client_of: Any) -> None:
    answer = buy(client_of(UserFactory()), OfferFactory()).json()
    purchase = Purchase.objects.get()
    assert mirrored(purchase) == Status.AWAITING_PAYMENT
    sandbox.act(answer["checkout_session_id"], "pay")
    sandbox.deliver()
    assert mirrored(purchase) == Status.PAID


def test_poll_is_answered_without_redis_and_after_it_came_back_empty(
    valkey: ValkeyProcess,  # noqa: F811 - the fixture
    caplog: Any,
    django_assert_num_queries: Any,
) -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    valkey.kill()
    for _ in range(3):
        with django_assert_num_queries(1):
            assert poll(purchase).json()["status"] == Status.AWAITING_PAYMENT
    change(purchase, PAY)
    assert poll(purchase).json()["status"] == Status.PAID
    assert redis_breaker.is_open
    assert len([r for r in caplog.records if "going on without" in str(r.msg)]) == 1

    valkey.start()
    mirror._ask(lambda redis: redis.flushall())
    wait_for(lambda: cache.set("back", 1))
    with django_assert_num_queries(1):
        assert poll(purchase).json()["status"] == Status.PAID
    with django_assert_num_queries(0):
        assert poll(purchase).json()["status"] == Status.PAID


def test_change_that_redis_missed_is_heard_of_within_half_a_minute() -> None:
    """Redis was away for just that moment, and has what it had before."""
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    redis_breaker.failed(OSError("away"))
    change(purchase, PAY)
    redis_breaker.succeeded()
    assert poll(purchase).json()["status"] == Status.AWAITING_PAYMENT
    with time_machine.travel(timezone.now() + mirror.BELIEVED + timedelta(seconds=1)):
        assert poll(purchase).json()["status"] == Status.PAID
        assert mirrored(purchase) == Status.PAID


def test_older_state_does_not_replace_a_newer_one() -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    old = mirror.state_of(purchase, version=purchase.transitions.latest("id").pk)
    change(purchase, PAY)
    mirror.write(purchase.pk, old)
    assert mirrored(purchase) == Status.PAID


def test_process_held_up_after_its_commit_does_not_turn_the_mirror_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs after commits has an order of its own: here the first one is the last to write."""
    purchase = PurchaseFactory()
    committed, overtaken = threading.Event(), threading.Event()
    write = mirror.write

    def slowly(purchase_id: Any, state: mirror.State) -> None:
        if state.status == Status.AWAITING_PAYMENT:
            committed.set()
            assert overtaken.wait(10)
        write(purchase_id, state)

    def second() -> None:
        assert committed.wait(10)
        change(purchase, PAY)
        overtaken.set()

    monkeypatch.setattr(mirror, "write", slowly)
    assert at_once([lambda: change(purchase, OPEN_CHECKOUT), second]) == [None, None]
    assert mirrored(purchase) == Status.PAID


def test_reader_who_was_held_up_does_not_turn_the_mirror_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    mirror._ask(lambda redis: redis.flushall())
    looked, overtaken = threading.Event(), threading.Event()
    stored = mirror._stored

    def slowly(purchase_id: Any) -> mirror.State:
        state = stored(purchase_id)
        looked.set()
        assert overtaken.wait(10)
        return state

    def pay() -> None:
        assert looked.wait(10)
        change(purchase, PAY)
        overtaken.set()

    monkeypatch.setattr(mirror, "_stored", slowly)
    read, _ = at_once([lambda: mirror.read(purchase.pk), pay])
    assert read.status == Status.AWAITING_PAYMENT  # as it was when it was asked
    assert mirrored(purchase) == Status.PAID


def test_many_writers_and_readers_at_once_end_with_the_newest() -> None:
    purchase = PurchaseFactory(status=Status.PAID)

    def back_and_forth() -> None:
        for _ in range(10):
            with transaction.atomic():
                locked = transitions.lock(purchase.pk)
                to = REFUND_FAILED if locked.status == Status.REFUNDING else REQUEST_REFUND
                transitions.apply(locked, to, now=timezone.now(), source="tests")

    def read() -> None:
        for _ in range(60):
            mirror.read(purchase.pk)

    assert at_once([back_and_forth] * 3 + [read] * 3) == [None] * 6
    purchase.refresh_from_db()
    assert mirrored(purchase) == purchase.status


def test_script_that_redis_forgot_is_sent_again() -> None:
    purchase = PurchaseFactory()
    mirror._ask(lambda redis: redis.script_flush())
    change(purchase, OPEN_CHECKOUT)
    assert mirrored(purchase) == Status.AWAITING_PAYMENT


def test_mirror_forgets_after_a_quarter_of_an_hour() -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    left = mirror._ask(lambda redis: redis.pttl(mirror._key(purchase.pk)))
    assert 0 < left <= mirror.TTL.total_seconds() * 1000


def test_unknown_purchase_is_not_mirrored() -> None:
    purchase = Purchase()
    with pytest.raises(PurchaseNotFound):
        mirror.read(purchase.pk)
    assert poll(purchase).status_code == 404


def test_token_opens_its_own_purchase_only_and_not_for_long() -> None:
    purchase, other = PurchaseFactory(), PurchaseFactory()
    address = status_links.address(purchase.pk)
    token = address.partition("token=")[2]
    stranger = Client()
    assert stranger.get(address).status_code == 200
    for wrong in (
        f"/purchases/{other.pk}/status?token={token}",
        f"/purchases/{purchase.pk}/status?token={token[:-1]}",
        f"/purchases/{purchase.pk}/status?token=",
        f"/purchases/{purchase.pk}/status",
    ):
        answer = stranger.get(wrong)
        assert (answer.status_code, set(answer.json())) == (404, {"error"})
        assert "no-store" in answer["Cache-Control"]
    with time_machine.travel(timezone.now() + status_links.LIFETIME + timedelta(seconds=2)):
        expired = stranger.get(address)
    assert expired.status_code == 403
    assert "expired" in expired.json()["error"]
