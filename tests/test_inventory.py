"""The counters of an offer, on real rows and real locks."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from offers import inventory
from offers.errors import (
    InsufficientInventory,
    NotEnoughReserved,
    NotEnoughSold,
    SoldOut,
    TotalBelowCommitted,
)
from offers.models import Offer
from tests.conftest import at_once, buy, code, counters
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def stock(offer: Offer) -> tuple[int, int]:
    offer.refresh_from_db()
    return offer.inventory_reserved, offer.inventory_sold


@pytest.fixture
def offer() -> Offer:
    return OfferFactory(inventory_total=10)


@transaction.atomic
def do(function: Callable[..., Any], offer: Offer, quantity: int) -> Any:
    return function(offer_id=offer.pk, quantity=quantity)


def test_confirm_refuses_more_than_is_reserved_and_moves_nothing(offer: Offer) -> None:
    do(inventory.reserve, offer, 5)

    with pytest.raises(NotEnoughReserved, match="10 units asked for, but only 5"):
        do(inventory.confirm, offer, 10)
    assert stock(offer) == (5, 0)

    confirmed = do(inventory.confirm, offer, 5)
    assert stock(offer) == (0, 5)
    assert confirmed.inventory_available == 5


def test_reserve_refuses_more_than_remains(offer: Offer) -> None:
    do(inventory.reserve, offer, 8)
    with pytest.raises(InsufficientInventory, match="Only 2 left"):
        do(inventory.reserve, offer, 3)
    do(inventory.reserve, offer, 2)
    with pytest.raises(SoldOut):
        do(inventory.reserve, offer, 1)
    assert stock(offer) == (10, 0)


def test_release_and_restock_give_back_what_was_taken_and_no_more(offer: Offer) -> None:
    do(inventory.reserve, offer, 4)
    do(inventory.release, offer, 1)
    do(inventory.confirm, offer, 3)
    do(inventory.restock, offer, 2)
    assert stock(offer) == (0, 1)
    with pytest.raises(NotEnoughReserved):
        do(inventory.release, offer, 1)
    with pytest.raises(NotEnoughSold):
        do(inventory.restock, offer, 2)
    assert stock(offer) == (0, 1)


def test_unlimited_offer_counts_what_is_taken() -> None:
    offer = OfferFactory(inventory_total=None)
    assert do(inventory.reserve, offer, 1_000).inventory_available is None
    assert stock(offer) == (1_000, 0)


def test_total_can_not_go_below_what_is_committed(offer: Offer) -> None:
    do(inventory.reserve, offer, 6)
    with pytest.raises(TotalBelowCommitted), transaction.atomic():
        inventory.set_total(offer_id=offer.pk, total=5)
    with transaction.atomic():
        assert inventory.set_total(offer_id=offer.pk, total=6).inventory_available == 0


@pytest.mark.parametrize("quantity", [0, -1])
def test_nonsense_quantities_are_refused(offer: Offer, quantity: int) -> None:
    for function in (inventory.reserve, inventory.confirm, inventory.release, inventory.restock):
        with pytest.raises(ValueError, match="at least 1"):
            do(function, offer, quantity)


def test_counters_can_not_be_written_outside_a_transaction(offer: Offer) -> None:
    with pytest.raises(transaction.TransactionManagementError):
        inventory.reserve(offer_id=offer.pk, quantity=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inventory_reserved": 11},
        {"inventory_reserved": 6, "inventory_sold": 5},
        {"inventory_sold": -1},
        {"inventory_total": -1},
    ],
    ids=str,
)
def test_database_itself_refuses_impossible_counters(offer: Offer, wrong: dict[str, int]) -> None:
    with pytest.raises(IntegrityError):
        Offer.objects.filter(pk=offer.pk).update(**wrong)


def buy_at_once(client_of: Any, offer: Offer, buyers: int) -> list[Any]:
    """That many attendees press Buy in the same moment."""
    clients = [client_of(user) for user in UserFactory.create_batch(buyers)]
    barrier = threading.Barrier(buyers)

    def press(client: Any) -> Any:
        barrier.wait()
        return buy(client, offer)

    return at_once([lambda client=client: press(client) for client in clients])


@pytest.mark.parametrize(("buyers", "units"), [(10, 5), (50, 20)])
def test_exactly_as_many_buyers_succeed_as_there_are_units(
    sandbox: Any, client_of: Any, buyers: int, units: int
) -> None:
    offer = OfferFactory(inventory_total=units)

    answers = buy_at_once(client_of, offer, buyers)

    assert sorted(answer.status_code for answer in answers) == (
        [201] * units + [409] * (buyers - units)
    )
    assert {code(answer) for answer in answers if answer.status_code == 409} == {"sold_out"}
    assert counters(offer) == (units, 0)
    assert len(sandbox.sessions()) == units


def test_the_race_oversells_when_the_lock_is_taken_out(
    client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proof that the race above is one: the same purchases, with the lock replaced by a read."""
    units, buyers = 5, 10
    offer = OfferFactory(inventory_total=units, price=0)
    everybody_has_read = threading.Barrier(buyers)

    def take_without_lock(*, seen: Offer, quantity: int, sold: bool) -> None:
        assert sold
        found = Offer.objects.get(pk=seen.pk)
        everybody_has_read.wait(timeout=30)
        inventory._move(found, sold=quantity)

    monkeypatch.setattr(inventory, "take_with_commit", take_without_lock)
    answers = buy_at_once(client_of, offer, buyers)

    sold = [answer for answer in answers if getattr(answer, "status_code", None) == 201]
    broke_the_check = [answer for answer in answers if isinstance(answer, IntegrityError)]
    assert len(sold) > units or broke_the_check
