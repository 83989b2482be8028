"""The statement that goes together with COMMIT: it is in the transaction like any other."""

import threading
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from offers import inventory
from offers.contention import lock_wait
from offers.errors import SoldOut
from offers.models import Event, Offer
from tests.conftest import at_once, counters
from tests.factories import OfferFactory

pytestmark = pytest.mark.django_db(transaction=True)


def stored(offer: Offer) -> int:
    return Offer.objects.get(pk=offer.pk).inventory_reserved


def reserve(offer: Offer, quantity: int = 1) -> None:
    inventory.reserve(offer_id=offer.pk, quantity=quantity)


@transaction.atomic
def reserve_and_fail(offer: Offer) -> None:
    reserve(offer)
    raise RuntimeError


def test_update_is_there_after_the_commit() -> None:
    offer = OfferFactory()
    with transaction.atomic():
        reserve(offer, 3)
    assert stored(offer) == 3


def test_update_is_there_for_what_the_transaction_asks_next() -> None:
    offer = OfferFactory()
    with transaction.atomic():
        reserve(offer, 3)
        assert stored(offer) == 3
        reserve(offer, 2)
        reserve(offer, 1)
    assert stored(offer) == 6


def test_update_is_gone_with_a_transaction_that_is_rolled_back() -> None:
    offer, other = OfferFactory.create_batch(2)
    with pytest.raises(RuntimeError):
        reserve_and_fail(offer)
    with transaction.atomic():
        reserve(other)
    assert (stored(offer), stored(other)) == (0, 1)


def test_savepoint_that_is_rolled_back_takes_its_update_with_it() -> None:
    offer, other = OfferFactory.create_batch(2)
    with transaction.atomic():
        reserve(offer)
        with pytest.raises(RuntimeError):
            reserve_and_fail(other)
    assert (stored(offer), stored(other)) == (1, 0)


def test_update_that_the_table_refuses_leaves_nothing_of_the_transaction() -> None:
    offer, other = OfferFactory.create_batch(2, inventory_total=5)
    hooks: list[str] = []

    @transaction.atomic
    def oversell() -> None:
        Offer.objects.filter(pk=other.pk).update(title="changed")
        transaction.on_commit(lambda: hooks.append("told"))
        inventory._move(inventory.lock(offer.pk), reserved=6)

    with pytest.raises(IntegrityError, match="offer_never_oversold"):
        oversell()
    assert hooks == []
    assert Offer.objects.get(pk=other.pk).title != "changed"
    assert counters(offer) == (0, 0)
    # The connection is as good as before.
    with transaction.atomic():
        reserve(offer)
    assert stored(offer) == 1


def take(seen: Offer, quantity: int = 1) -> None:
    with inventory.as_seen(), transaction.atomic():
        Event.objects.create(organization=seen.event.organization, slug=f"{uuid4()}", title="New")
        inventory.take_with_commit(seen=seen, quantity=quantity, sold=False)


def test_units_are_taken_with_the_commit() -> None:
    offer = OfferFactory(inventory_total=5)
    take(offer, 3)
    take(offer, 2)  # what was seen of the counters doesn't matter
    assert stored(offer) == 5


@pytest.mark.parametrize("change", [{"title": "Edited"}, {"is_archived": True}])
def test_units_of_an_offer_that_was_edited_are_not_taken(change: dict[str, Any]) -> None:
    offer = OfferFactory()
    edited = Offer.objects.get(pk=offer.pk)
    for name, value in change.items():
        setattr(edited, name, value)
    edited.save()
    with pytest.raises(inventory.NotAsSeen):
        take(offer)
    assert stored(offer) == 0
    assert not Event.objects.filter(title="New").exists()
    take(Offer.objects.get(pk=offer.pk))


def test_units_that_are_gone_are_not_taken() -> None:
    offer = OfferFactory(inventory_total=5)
    take(offer, 3)
    with pytest.raises(inventory.NotAsSeen):
        take(offer, 3)
    assert stored(offer) == 3
    assert Event.objects.filter(title="New").count() == 1


def test_what_another_table_refuses_is_another_error() -> None:
    offer = OfferFactory()
    with pytest.raises(IntegrityError, match="event_slug"), inventory.as_seen():
        Event.objects.create(organization=offer.event.organization, slug=offer.event.slug)


def test_row_that_is_locked_by_somebody_else_is_waited_for_with_the_commit() -> None:
    offer = OfferFactory()
    is_locked, may_end = threading.Event(), threading.Event()

    @transaction.atomic
    def hold() -> None:
        inventory.lock(offer.pk)
        is_locked.set()
        may_end.wait(30)

    def wait() -> None:
        is_locked.wait(30)
        with lock_wait(50):
            take(offer)

    def wait_until_it_ends() -> Any:
        try:
            return at_once([wait])[0]
        finally:
            may_end.set()

    _, refused = at_once([hold, wait_until_it_ends])
    assert isinstance(refused.__cause__, LockNotAvailable)
    assert stored(offer) == 0


def test_connection_that_breaks_before_the_commit_leaves_nothing() -> None:
    offer = OfferFactory()

    @transaction.atomic
    def interrupted() -> None:
        reserve(offer)
        end_backend(connection.connection.info.backend_pid)

    with pytest.raises((OperationalError, InterfaceError)):
        interrupted()
    connection.close()
    assert stored(offer) == 0


def end_backend(pid: int) -> None:
    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        connection.close()

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()


@pytest.mark.parametrize("with_commit", [False, True])
def test_fifty_at_once_take_what_is_there_and_no_more(*, with_commit: bool) -> None:
    offer = OfferFactory(inventory_total=20)
    outcomes: list[Any] = []
    gate = threading.Barrier(50)

    def take_one() -> None:
        gate.wait()
        try:
            if with_commit:
                take(offer)
            else:
                with transaction.atomic():
                    reserve(offer)
            outcomes.append("had")
        except (SoldOut, inventory.NotAsSeen):
            outcomes.append("sold out")
        finally:
            connection.close()

    threads = [threading.Thread(target=take_one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["had"] * 20 + ["sold out"] * 30
    assert stored(offer) == 20
