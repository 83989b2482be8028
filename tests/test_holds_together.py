"""Holds of one offer that are made in one transaction: for each buyer as if it were their own."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from offers import inventory, metrics, shared_writes
from offers.contention import lock_wait
from offers.models import Offer
from purchases import holding
from purchases.models import Purchase, PurchaseTransition
from tests.conftest import at_once, buy, code, counters
from tests.factories import OfferFactory, UserFactory
from tests.sandbox_process import wait_for
from tests.written_log import written_log

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 30
Together = Callable[[Offer, list[Callable[[], Any]]], list[Any]]


def line_of(offer: Offer) -> Any:
    """Those who wait to hold it, or None while nobody is at it."""
    return holding._together._lines.get((offer.pk, offer.catalog_version))


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    """Makes calls that hold units of one offer while somebody else is at it until all wait."""
    monkeypatch.setattr(shared_writes, "PATIENCE", SECONDS)
    pool = ThreadPoolExecutor(max_workers=2)

    def run(
        offer: Offer,
        calls: list[Callable[[], Any]],
        meanwhile: Callable[[], Any] = lambda: None,
    ) -> list[Any]:
        offer.refresh_from_db()
        may_end = threading.Event()
        key: Any = (offer.pk, offer.catalog_version)
        wish: Any = None
        first = pool.submit(
            holding._together.do, key, wish, alone=lambda: may_end.wait(SECONDS), most=16
        )
        wait_for(lambda: line_of(offer) is not None)
        answers = pool.submit(at_once, calls)
        wait_for(lambda: len(line_of(offer)) == len(calls), SECONDS)
        meanwhile()
        may_end.set()
        assert first.result(SECONDS)
        return answers.result(SECONDS)

    yield run
    pool.shutdown()


def transactions() -> int:
    """How many made the holds that there are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT xmin::text) FROM purchases_purchasetransition"
            " WHERE name = 'hold'"
        )
        return int(cursor.fetchone()[0])


def statuses(answers: list[Any]) -> list[int]:
    return [answer.status_code for answer in answers]


@pytest.fixture
def buyers(client_of: Any) -> Callable[[Offer, int], list[Callable[[], Any]]]:
    """Calls of so many attendees who buy a unit each."""

    def make(offer: Offer, number: int) -> list[Callable[[], Any]]:
        clients = [client_of(user) for user in UserFactory.create_batch(number)]
        return [lambda client=client: buy(client, offer) for client in clients]  # type: ignore[misc]

    return make


@pytest.mark.parametrize("price", [0, 25])
def test_who_want_the_same_offer_hold_it_in_one_transaction(
    sandbox: Any, together: Together, buyers: Any, price: int
) -> None:
    offer = OfferFactory(price=price, inventory_total=10)
    answers = together(offer, buyers(offer, 6))
    assert statuses(answers) == [201] * 6
    assert transactions() == 1
    assert counters(offer) == ((6, 0) if price else (0, 6))
    assert len(sandbox.sessions()) == (6 if price else 0)


def test_who_waits_leaves_their_connection_to_others(together: Any, buyers: Any) -> None:
    offer, in_use = OfferFactory(price=0), metrics.pool_in_use.labels("default")
    before, meanwhile = in_use._value.get(), []
    answers = together(offer, buyers(offer, 6), lambda: meanwhile.append(in_use._value.get()))
    assert statuses(answers) == [201] * 6
    assert meanwhile == [before]


def test_one_at_most_is_a_transaction_for_each(settings: Any, buyers: Any) -> None:
    settings.HOLDS_TOGETHER = 1
    offer = OfferFactory(price=0)
    assert statuses(at_once(buyers(offer, 6))) == [201] * 6
    assert transactions() == 6


# What differs between any two purchases.
OWN = {"id", "user", "user_id", "created_at", "paid_at", "reserved_until", "checkout_expires_at"}


def stored(row: Any) -> dict[str, Any]:
    fields = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return {name: value for name, value in fields.items() if name not in OWN}


def steps(entries: list[PurchaseTransition]) -> list[Any]:
    return [(e.name, e.from_status, e.to_status, e.source, e.reason) for e in entries]


@pytest.mark.parametrize("price", [0, 25])
def test_each_is_stored_as_it_would_be_alone(
    sandbox: Any, together: Together, client_of: Any, monkeypatch: pytest.MonkeyPatch, price: int
) -> None:
    """With everything that Stripe will be asked."""
    monkeypatch.setattr("purchases.checkout._open_session", lambda purchase, **_: purchase)
    offer = OfferFactory(price=price, inventory_total=100)
    wanted = [(1, None), (2, "key"), (3, 'a "key" of {its} own, \\with signs')]

    def calls() -> list[Callable[[], Any]]:
        clients = [client_of(user) for user in UserFactory.create_batch(len(wanted))]
        return [
            lambda client=client, quantity=quantity, key=key: buy(client, offer, quantity, key)  # type: ignore[misc]
            for client, (quantity, key) in zip(clients, wanted, strict=True)
        ]

    before = [call() for call in calls()]
    after = together(offer, calls())
    assert statuses([*before, *after]) == [201] * 6
    assert counters(offer) == ((12, 0) if price else (0, 12))
    for alone, shared in zip(before, after, strict=True):
        rows = [Purchase.objects.get(pk=answer.json()["id"]) for answer in (alone, shared)]
        asked = [json.dumps(row.checkout_request) for row in rows]
        for row, text in zip(rows, asked, strict=True):
            asked_at = row.checkout_expires_at
            expires = str(int(asked_at.timestamp())) if asked_at else "none"
            row.checkout_request = text.replace(str(row.pk), "purchase").replace(expires, "then")
        assert stored(rows[0]) == stored(rows[1])
        entries = [list(row.transitions.order_by("pk")) for row in rows]
        assert steps(entries[0]) == steps(entries[1])
        assert {entry.actor_id for entry in entries[1]} == {rows[1].user_id}
        assert {entry.created_at for entry in entries[1]} == {rows[1].created_at}


def test_no_more_are_sold_than_there_are(together: Together, buyers: Any) -> None:
    offer = OfferFactory(price=0, inventory_total=4)
    answers = together(offer, buyers(offer, 6))
    assert sorted(statuses(answers)) == [201] * 4 + [409] * 2
    assert {code(answer) for answer in answers if answer.status_code == 409} == {"sold_out"}
    assert counters(offer) == (0, 4)


def test_limits_of_a_buyer_are_theirs_alone(
    together: Together, buyers: Any, client_of: Any
) -> None:
    offer = OfferFactory(price=0, max_per_user=2)
    greedy = client_of(UserFactory())
    assert buy(greedy, offer, 2).status_code == 201
    answers = together(offer, [*buyers(offer, 3), lambda: buy(greedy, offer)])
    assert statuses(answers) == [201, 201, 201, 409]
    assert code(answers[-1]) == "purchase_limit_reached"
    assert transactions() == 2
    assert counters(offer) == (0, 5)


def test_buyer_who_asks_twice_gets_no_more_than_their_limit(
    together: Together, buyers: Any, client_of: Any
) -> None:
    offer = OfferFactory(price=0, max_per_user=1)
    client = client_of(UserFactory())
    answers = together(offer, [lambda: buy(client, offer)] * 3 + buyers(offer, 2))
    assert sorted(statuses(answers[:3])) == [201, 409, 409]
    assert statuses(answers[3:]) == [201, 201]
    assert counters(offer) == (0, 3)


def test_open_holds_of_a_buyer_are_counted(
    sandbox: Any, settings: Any, together: Together, buyers: Any, client_of: Any
) -> None:
    settings.MAX_OPEN_HOLDS_PER_USER = 1
    offer, client = OfferFactory(), client_of(UserFactory())
    assert buy(client, OfferFactory()).status_code == 201
    *others, refused = together(offer, [*buyers(offer, 2), lambda: buy(client, offer)])
    assert statuses(others) == [201, 201]
    assert code(refused) == "too_many_open_holds"
    assert counters(offer) == (2, 0)


def test_same_key_twice_is_one_purchase(
    sandbox: Any, together: Together, buyers: Any, client_of: Any
) -> None:
    offer, client = OfferFactory(), client_of(UserFactory())
    answers = together(offer, [lambda: buy(client, offer, key="same")] * 3 + buyers(offer, 1))
    assert sorted(statuses(answers[:3])) == [200, 200, 201]
    assert len({answer.json()["id"] for answer in answers[:3]}) == 1
    assert answers[3].status_code == 201
    assert counters(offer) == (2, 0)


def test_repeated_request_is_answered_and_the_others_go_together(
    sandbox: Any, together: Together, buyers: Any, client_of: Any
) -> None:
    offer, client = OfferFactory(), client_of(UserFactory())
    before = buy(client, offer, key="same").json()
    answers = together(offer, [lambda: buy(client, offer, key="same"), *buyers(offer, 3)])
    assert statuses(answers) == [200, 201, 201, 201]
    assert answers[0].json()["id"] == before["id"]
    assert transactions() == 2
    assert counters(offer) == (4, 0)


def test_key_that_another_buyer_has_used_is_nobody_elses(
    sandbox: Any, together: Together, client_of: Any
) -> None:
    offer = OfferFactory()
    one, two = (client_of(user) for user in UserFactory.create_batch(2))
    before = buy(one, offer, key="a").json()["id"]
    answers = together(
        offer,
        [lambda: buy(one, offer, key="b"), lambda: buy(two, offer, key="a")],
    )
    assert statuses(answers) == [201, 201]
    assert len({before, *(answer.json()["id"] for answer in answers)}) == 3


def test_nobody_waits_for_a_buyer_who_is_at_another_purchase(
    together: Together, buyers: Any, client_of: Any
) -> None:
    offer, busy = OfferFactory(price=0), UserFactory()
    others_are_done, is_locked = threading.Event(), threading.Event()

    @transaction.atomic
    def elsewhere() -> None:
        User.objects.select_for_update(no_key=True).get(pk=busy.pk)
        is_locked.set()
        assert others_are_done.wait(SECONDS)

    def count(call: Callable[[], Any]) -> Any:
        answer = call()
        if PurchaseTransition.objects.filter(name="hold").count() == 3:
            others_are_done.set()
        return answer

    with ThreadPoolExecutor(max_workers=1) as pool:
        locked = pool.submit(elsewhere)
        assert is_locked.wait(SECONDS)
        calls = [lambda call=call: count(call) for call in buyers(offer, 3)]  # type: ignore[misc]
        answers = together(offer, [*calls, lambda: buy(client_of(busy), offer)])
        locked.result(SECONDS)
        pool.submit(lambda: connection.close()).result(SECONDS)
    assert statuses(answers) == [201] * 4
    assert counters(offer) == (0, 4)


def test_offer_that_is_edited_meanwhile_is_sold_as_it_is_then(
    sandbox: Any, together: Any, buyers: Any
) -> None:
    offer = OfferFactory(price=25)

    def edit() -> None:
        changed = Offer.objects.get(pk=offer.pk)
        changed.price = 30
        changed.save()

    answers = together(offer, buyers(offer, 4), edit)
    assert statuses(answers) == [201] * 4
    assert {answer.json()["total_price"] for answer in answers} == {"30.00"}
    assert counters(offer) == (4, 0)


def test_offer_that_is_locked_for_too_long_is_busy_for_all(together: Together, buyers: Any) -> None:
    offer = OfferFactory(price=0)
    is_locked, may_end = threading.Event(), threading.Event()

    @transaction.atomic
    def keep() -> None:
        inventory.lock(offer.pk)
        is_locked.set()
        assert may_end.wait(2 * SECONDS)

    def soon(call: Callable[[], Any]) -> Any:
        with lock_wait(50):
            return call()

    with ThreadPoolExecutor(max_workers=1) as pool:
        kept = pool.submit(keep)
        assert is_locked.wait(SECONDS)
        calls = [lambda call=call: soon(call) for call in buyers(offer, 3)]  # type: ignore[misc]
        answers = together(offer, calls)
        may_end.set()
        kept.result(SECONDS)
        pool.submit(lambda: connection.close()).result(SECONDS)
    assert [(answer.status_code, code(answer)) for answer in answers] == [(503, "busy")] * 3
    assert not Purchase.objects.exists()
    assert counters(offer) == (0, 0)


def test_connection_that_breaks_before_the_commit_leaves_nothing_of_anybody(
    together: Together, buyers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, take = OfferFactory(price=0), inventory.take_with_commit

    def broken(**how: Any) -> None:
        take(**how)
        pid = connection.connection.info.backend_pid
        [ended] = at_once([lambda: end(pid)])
        assert ended is True

    def end(pid: int) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            return bool(cursor.fetchone()[0])

    monkeypatch.setattr(inventory, "take_with_commit", broken)
    answers = together(offer, buyers(offer, 3))
    assert statuses(answers) == [503] * 3
    assert not Purchase.objects.exists()
    assert counters(offer) == (0, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("total_price", -1), ("event_id", uuid4()), ("offer_title", "\ud800")],
    ids=["by a check", "by a foreign key, at the commit", "by us, since it is no text"],
)
def test_what_is_refused_of_one_is_refused_to_that_one(
    together: Together,
    client_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: Any,
) -> None:
    offer, odd, draft = OfferFactory(price=0), UserFactory(), holding._draft

    def drafted(*args: Any, **how: Any) -> Purchase:
        purchase = draft(*args, **how)
        if how["user"] == odd:
            setattr(purchase, field, value)
        return purchase

    monkeypatch.setattr(holding, "_draft", drafted)
    clients = [client_of(user) for user in (*UserFactory.create_batch(3), odd)]
    for client in clients:
        # Or each would raise what any of them met: Django tells them all.
        client.raise_request_exception = False
    answers = together(offer, [lambda client=client: buy(client, offer) for client in clients])  # type: ignore[misc]
    assert statuses(answers) == [201, 201, 201, 500]
    assert counters(offer) == (0, 3)


def deadlocked(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds are told so many times that their transaction was the one that had to go."""
    take, left = inventory.take_with_commit, [None] * times

    def refused(**how: Any) -> None:
        if left:
            left.pop()
            with connection.cursor() as cursor:
                cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$")
        take(**how)

    monkeypatch.setattr(inventory, "take_with_commit", refused)


def test_transaction_that_had_to_go_is_made_again_for_all(
    together: Together, buyers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory(price=0)
    deadlocked(2, monkeypatch)
    assert statuses(together(offer, buyers(offer, 4))) == [201] * 4
    assert transactions() == 1
    assert counters(offer) == (0, 4)


def test_line_about_another_attempt_says_nothing_of_the_buyers(
    together: Together, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory(price=0)
    deadlocked(1, monkeypatch)
    clients = [client_of(user) for user in UserFactory.create_batch(3)]
    with written_log() as text:
        answers = together(
            offer,
            [lambda client=client: buy(client, offer, key="their-key") for client in clients],  # type: ignore[misc]
        )
        written = text()
    assert statuses(answers) == [201] * 3
    assert "retry_scheduled" in written
    assert "their-key" not in written


def test_lines_in_the_log_are_of_the_request_that_bought(together: Together, buyers: Any) -> None:
    offer = OfferFactory(price=0)
    with written_log() as text:
        answers = together(offer, buyers(offer, 4))
        lines = [json.loads(line) for line in text().splitlines()]
    assert statuses(answers) == [201] * 4
    for action in ("hold", "pay"):
        written = [line for line in lines if line.get("action") == action]
        assert len({line["purchase_id"] for line in written}) == 4
        assert len({line["request_id"] for line in written}) == 4
    whose = {
        line["request_id"]: line["user_id"] for line in lines if line["event"] == "request_finished"
    }
    assert all(whose[line["request_id"]] == line["user_id"] for line in lines if line.get("action"))
