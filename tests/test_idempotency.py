"""One Idempotency-Key, one purchase: repeated, at once. After a crash: see ``crash_points``."""

import threading
from typing import Any

import pytest

from tests.conftest import at_once, buy, code, counters
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def test_same_key_and_body_gets_the_same_purchase_back(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())

    first = buy(client, offer, 2, key="k1")
    second = buy(client, offer, 2, key="k1")

    assert (first.status_code, second.status_code) == (201, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.json() == second.json()
    assert counters(offer) == (2, 0)
    assert len(sandbox.sessions()) == 1


def test_replay_tells_the_status_of_today(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    purchase = buy(client, offer, key="k1").json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    sandbox.deliver()
    replay = buy(client, offer, key="k1")
    assert (replay.status_code, replay.json()["status"]) == (200, "paid")


def test_same_key_with_another_body_is_refused(sandbox: Any, client_of: Any) -> None:
    offer, other = OfferFactory(), OfferFactory()
    client = client_of(UserFactory())
    buy(client, offer, 1, key="k1")

    for answer in (buy(client, offer, 2, key="k1"), buy(client, other, 1, key="k1")):
        assert (answer.status_code, code(answer)) == (422, "idempotency_key_reused")
    assert counters(offer) == (1, 0)


def test_keys_of_different_users_have_nothing_to_do_with_each_other(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    answers = [buy(client_of(UserFactory()), offer, key="k1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert counters(offer) == (2, 0)


def test_without_a_key_two_requests_are_two_purchases(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory())
    assert [buy(client, offer).status_code for _ in range(2)] == [201, 201]
    assert counters(offer) == (2, 0)


@pytest.mark.parametrize("latency", [0, 300], ids=["fast", "slow"])
def test_same_key_at_once_makes_one_hold_and_one_session(
    sandbox: Any, client_of: Any, latency: int
) -> None:
    offer = OfferFactory()
    user = UserFactory()
    sandbox.faults(latency_ms=latency)
    barrier = threading.Barrier(5)

    def press() -> Any:
        client = client_of(user)
        barrier.wait()
        return buy(client, offer, key="k1")

    answers = at_once([press] * 5)

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[:4] == [200] * 4, [answer.content for answer in answers]
    # The one that made the hold answers 201, or, if a replay opened the session first, so too.
    assert statuses[4] == 201
    assert len({answer.json()["checkout_session_id"] for answer in answers}) == 1
    assert counters(offer) == (1, 0)
    assert len(sandbox.sessions()) == 1


def test_refused_request_frees_its_key(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=0)
    client = client_of(UserFactory())
    assert code(buy(client, offer, key="k1")) == "sold_out"
    type(offer).objects.filter(pk=offer.pk).update(inventory_total=1)
    assert buy(client, offer, key="k1").status_code == 201
