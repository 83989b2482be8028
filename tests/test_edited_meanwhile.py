"""An offer that is edited between a purchase's look at it and the lock on its row."""

import threading
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from offers import wanted
from offers.models import Offer
from purchases.models import Purchase
from tests.conftest import at_once, buy, code, counters
from tests.factories import MembershipFactory, OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def edited_after_each_look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Have somebody save other values after each of the first so many looks."""
    looks: list[int] = []

    def edit(*edits: dict[str, Any]) -> list[int]:
        look = wanted.find

        def find(*args: Any) -> wanted.Wanted:
            found = look(*args)
            if len(looks) < len(edits):
                offer = Offer.objects.get(pk=found.offer.pk)
                for name, value in edits[len(looks)].items():
                    setattr(offer, name, value)
                offer.save()
            looks.append(1)
            return found

        monkeypatch.setattr(wanted, "find", find)
        return looks

    return edit


def test_purchase_is_made_of_the_offer_as_it_is_sold(
    client_of: Any, edited_after_each_look: Callable[..., list[int]], sandbox: Any
) -> None:
    offer = OfferFactory(price=Decimal(50), title="Hoodie")
    looks = edited_after_each_look({"price": Decimal(60), "title": "Hoodie, warm"})
    answer = buy(client_of(UserFactory()), offer, 2, key="one")
    assert answer.status_code == 201
    assert (answer.json()["unit_price"], answer.json()["offer_title"]) == ("60.00", "Hoodie, warm")
    (session,) = sandbox.sessions()
    assert session["amount_total"] == 12_000
    assert len(looks) == 3  # the last one under the lock
    assert counters(offer) == (2, 0)


def test_offer_that_became_priced_is_not_given_away(
    client_of: Any, edited_after_each_look: Callable[..., list[int]], sandbox: Any
) -> None:
    offer = OfferFactory(price=0)
    edited_after_each_look({"price": Decimal(60)})
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, answer.json()["status"]) == (201, "awaiting_payment")
    assert counters(offer) == (1, 0)


@pytest.mark.parametrize(
    ("edit", "refusal"),
    [({"is_active": False}, "offer_inactive"), ({"is_archived": True}, "offer_archived")],
    ids=["paused", "archived"],
)
def test_offer_that_is_over_by_then_is_not_sold(
    client_of: Any,
    edited_after_each_look: Callable[..., list[int]],
    edit: dict[str, Any],
    refusal: str,
) -> None:
    offer = OfferFactory(price=0)
    edited_after_each_look(edit)
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, code(answer)) == (409, refusal)
    assert not Purchase.objects.exists()
    assert counters(offer) == (0, 0)


def test_offer_that_is_edited_all_the_time_is_sold_as_it_is_in_the_end(
    client_of: Any, sandbox: Any
) -> None:
    offer = OfferFactory(price=Decimal(10), title="0", inventory_total=40)
    member = MembershipFactory(organization=offer.event.organization)
    organizer = client_of(member.user)
    is_over = threading.Event()

    def edit() -> list[int]:
        answers = []
        for number in count(1):
            if is_over.is_set():
                return answers
            body = {"title": str(number), "price": f"{10 + number}.00"}
            answers.append(organizer.patch(f"/api/v1/offers/{offer.pk}/", body).status_code)
        raise AssertionError

    def buy_all() -> list[Any]:
        try:
            clients = [client_of(UserFactory()) for _ in range(20)]
            return at_once([lambda client=client: buy(client, offer) for client in clients])
        finally:
            is_over.set()

    edits, answers = at_once([edit, buy_all])
    assert set(edits) <= {200, 409}  # what is held has its price
    assert [answer.status_code for answer in answers] == [201] * 20
    for answer in answers:
        bought = answer.json()
        assert Decimal(bought["unit_price"]) == 10 + int(bought["offer_title"])
    assert counters(offer) == (20, 0)


def test_offer_that_gets_a_price_and_loses_it_all_the_time_is_busy_and_holds_nothing(
    client_of: Any, edited_after_each_look: Callable[..., list[int]], sandbox: Any
) -> None:
    offer = OfferFactory(price=0)
    # The second and later of its own looks are followed by another under the lock.
    edited_after_each_look(*[{"price": Decimal(n % 2 * 60)} for n in (1, 0, 0, 1, 1, 0, 0, 1)])
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, code(answer)) == (503, "busy")
    assert not Purchase.objects.exists()
    assert counters(offer) == (0, 0)


def test_units_that_are_gone_by_then_are_not_sold_again(
    client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory(price=0, inventory_total=1)
    look = wanted.find

    def find(*args: Any) -> wanted.Wanted:
        found = look(*args)
        monkeypatch.setattr(wanted, "find", look)
        assert buy(client_of(UserFactory()), offer).status_code == 201
        return found

    monkeypatch.setattr(wanted, "find", find)
    answer = buy(client_of(UserFactory()), offer)
    assert (answer.status_code, code(answer)) == (409, "sold_out")
    assert counters(offer) == (0, 1)
