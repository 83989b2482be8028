"""Few requests are worked on at once, and none of those that wait outside keeps others waiting."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client

from offers import turns
from offers.models import Offer
from offers.shared_reads import SharedReads
from tests.conftest import counters
from tests.factories import OfferFactory, UserFactory
from tests.sandbox_process import wait_for
from tests.service_processes import Processes, at_the_same_time, bearer, http, own_database_url

LONG = 60


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a turn waits for as long as it takes."""
    monkeypatch.setattr(turns, "PATIENCE", LONG)


class Office:
    """The middleware around a view that stays until it is let go, and notes who came."""

    def __init__(self, settings: Any, pool: ThreadPoolExecutor, *, at_once: int) -> None:
        settings.REQUESTS_AT_ONCE = at_once
        self.came: list[str] = []
        self.doors: dict[str, threading.Event] = {}
        self.outside: dict[str, threading.Event] = {}
        self.in_line: Callable[[HttpRequest], Any] = turns.few_at_once(self._view)
        self._pool = pool

    def _view(self, request: HttpRequest) -> HttpResponse:
        name = request.META["name"]
        self.came.append(name)
        if name in self.outside:
            with turns.let_others():
                assert self.outside[name].wait(LONG)
            self.came.append(f"{name} again")
        if name == "broken":
            raise ZeroDivisionError
        assert self.doors[name].wait(LONG)
        return HttpResponse(name)

    def send(self, name: str, *, goes_out: bool = False) -> Future[Any]:
        self.doors[name] = threading.Event()
        if goes_out:
            self.outside[name] = threading.Event()
        request = HttpRequest()
        request.META["name"] = name
        return self._pool.submit(self.in_line, request)

    def send_and_wait(self, name: str, **how: Any) -> Future[Any]:
        """Send it, and return when it is at work."""
        answer = self.send(name, **how)
        wait_for(lambda: name in self.came)
        return answer

    def send_to_the_line(self, name: str, *, waiting: int) -> Future[Any]:
        """Send it, and return when so many wait."""
        answer = self.send(name)
        self.wait_for_line(waiting)
        return answer

    def wait_for_line(self, waiting: int) -> None:
        wait_for(lambda: len(self._turns()._line) + len(self._turns()._back) == waiting)

    def is_free(self, number: int) -> bool:
        line = self._turns()
        return line._free == number and not line._line and not line._back

    def _turns(self) -> turns.Turns:
        middleware: Any = self.in_line
        [found] = [
            cell.cell_contents
            for cell in middleware.__closure__
            if isinstance(cell.cell_contents, turns.Turns)
        ]
        return found


@pytest.fixture
def office_of(settings: Any) -> Iterator[Callable[[int], Office]]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield lambda at_once: Office(settings, pool, at_once=at_once)


@pytest.mark.usefixtures("patient")
def test_so_many_are_at_work_and_the_others_come_in_their_order(
    office_of: Callable[[int], Office],
) -> None:
    office = office_of(2)
    at_work = [office.send_and_wait(name) for name in ("one", "two")]
    waiting = [
        office.send_to_the_line(name, waiting=place)
        for place, name in enumerate(("three", "four", "five"), start=1)
    ]
    assert office.came == ["one", "two"]
    for left, name in enumerate(("one", "two", "three", "four", "five")):
        office.doors[name].set()
        wait_for(lambda left=left: len(office.came) >= min(3 + left, 5))  # type: ignore[misc]
    assert office.came == ["one", "two", "three", "four", "five"]
    assert [answer.result(LONG).content for answer in at_work + waiting]
    assert office.is_free(2)


@pytest.mark.usefixtures("patient")
def test_who_waits_outside_lets_others_work_and_comes_back_before_those_in_line(
    office_of: Callable[[int], Office],
) -> None:
    office = office_of(1)
    one = office.send_and_wait("one", goes_out=True)
    two = office.send_and_wait("two")
    three = office.send_to_the_line("three", waiting=1)
    office.outside["one"].set()
    office.wait_for_line(2)
    assert office.came == ["one", "two"], "came back while another was at work"
    for name in ("two", "one", "three"):
        office.doors[name].set()
    for answer in (one, two, three):
        answer.result(LONG)
    assert office.came == ["one", "two", "one again", "three"]
    assert office.is_free(1)


def test_those_who_are_stuck_keep_nobody_for_long(
    office_of: Callable[[int], Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    office = office_of(1)
    stuck = office.send_and_wait("stuck")
    without = office.send_and_wait("without", goes_out=True)
    assert not stuck.done()
    office.outside["without"].set()
    wait_for(lambda: "without again" in office.came)
    # It had no turn, so it passes none on: there would be two of them from then on.
    office.doors["without"].set()
    without.result(LONG)
    assert not office.is_free(1)
    office.doors["stuck"].set()
    stuck.result(LONG)
    assert office.is_free(1)


@pytest.mark.usefixtures("patient")
def test_a_view_that_fails_passes_its_turn_on(office_of: Callable[[int], Office]) -> None:
    office = office_of(1)
    with pytest.raises(ZeroDivisionError):
        office.send("broken").result(LONG)
    assert office.is_free(1)


def test_a_turn_that_comes_at_the_last_moment_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed on after the wait was over, and before the line was left."""
    line = turns.Turns(1)
    assert line.take()
    monkeypatch.setattr(turns, "PATIENCE", 0)
    monkeypatch.setattr(turns.metrics.turn_wait, "observe", lambda _: line.pass_on())
    assert line.take()
    assert not line._free
    line.pass_on()
    assert line._free == 1


@pytest.mark.parametrize("is_passed_on", [False, True])
def test_a_wait_that_breaks_off_loses_no_turn(
    monkeypatch: pytest.MonkeyPatch, is_passed_on: Any
) -> None:
    line = turns.Turns(1)
    assert line.take()
    monkeypatch.setattr(turns, "PATIENCE", 0)

    def interrupted(_: float) -> None:
        if is_passed_on:
            line.pass_on()
        raise KeyboardInterrupt

    monkeypatch.setattr(turns.metrics.turn_wait, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        line.take()
    if not is_passed_on:
        line.pass_on()
    assert line._free == 1
    assert not line._line


def test_once_they_are_known_to_be_stuck_nobody_waits_until_one_passes_its_turn_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    monkeypatch.setattr(turns.metrics.turn_wait, "observe", waited.append)
    line = turns.Turns(1)
    assert line.take()
    assert not line.take()
    assert len(waited) == 1
    assert not line.take()
    assert not line.take(again=True)
    assert len(waited) == 1
    line.pass_on()
    assert line.take()
    assert not line.take()
    assert len(waited) == 2


def test_a_long_line_that_moves_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    line = turns.Turns(2)
    assert line.take()
    assert line.take()
    monkeypatch.setattr(turns, "PATIENCE", 0)

    def another_comes_and_goes(_: float) -> None:
        line._passed += 1

    monkeypatch.setattr(turns.metrics.turn_wait, "observe", another_comes_and_goes)
    assert not line.take()
    assert not line._is_stuck


@pytest.mark.usefixtures("patient")
def test_those_who_come_back_go_before_the_line_in_their_order() -> None:
    line = turns.Turns(1)
    assert line.take()
    had: list[str] = []

    def come(name: str, *, again: bool) -> None:
        assert line.take(again=again)
        had.append(name)
        line.pass_on()

    with ThreadPoolExecutor(max_workers=3) as pool:
        came = []
        for place, name in enumerate(("new", "back first", "back second"), start=1):
            came.append(pool.submit(come, name, again=name != "new"))
            wait_for(lambda place=place: len(line._line) + len(line._back) == place)  # type: ignore[misc]
        line.pass_on()
        for each in came:
            each.result(LONG)
    assert had == ["back first", "back second", "new"]


@pytest.mark.usefixtures("patient")
def test_what_fails_outside_comes_back_to_its_turn(office_of: Callable[[int], Office]) -> None:
    office = office_of(1)

    def view(request: HttpRequest) -> HttpResponse:
        try:
            with turns.let_others():
                assert office.is_free(1)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert office.is_free(0)
        return HttpResponse()

    office.in_line = turns.few_at_once(view)
    assert office.in_line(HttpRequest()).status_code == 200
    assert office.is_free(1)


def test_a_thread_without_a_turn_just_waits() -> None:
    with turns.let_others():
        pass
    assert getattr(turns._mine, "turns", None) is None


@pytest.mark.usefixtures("patient")
def test_who_shares_a_reading_lets_others_work(office_of: Callable[[int], Office]) -> None:
    office = office_of(1)
    shared: SharedReads[str] = SharedReads()
    begun, let_go = threading.Event(), threading.Event()

    def read() -> str:
        begun.set()
        assert let_go.wait(LONG)
        return "page"

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(shared.get("key", read))

    office.in_line = turns.few_at_once(view)
    with ThreadPoolExecutor(max_workers=3) as pool:
        # One that isn't of this line reads, so that the line's turn is free for those that wait.
        reader = pool.submit(shared.get, "key", read)
        assert begun.wait(LONG)
        others = [pool.submit(office.in_line, HttpRequest()) for _ in range(2)]
        # Both wait for the second reading: the first of them let the other one in.
        wait_for(lambda: "key" in shared._to_begin and _waiters(shared) == 1)
        wait_for(lambda: office.is_free(1))
        let_go.set()
        assert reader.result(LONG) == "page"
        assert {other.result(LONG).content for other in others} == {b"page"}
    assert office.is_free(1)


def _waiters(shared: SharedReads[str]) -> int:
    reading: Any = shared._to_begin["key"]
    return len(reading._condition._waiters)


@pytest.mark.usefixtures("patient")
@pytest.mark.django_db(transaction=True)
def test_purchase_that_waits_for_stripe_lets_others_work(sandbox: Any, settings: Any) -> None:
    settings.REQUESTS_AT_ONCE = 1
    offer = OfferFactory(price="10.00")
    # One client for both: each has the middleware of its own.
    client = Client()
    sandbox.faults(hang_rate=1.0)
    bought = {"offer": str(offer.pk), "quantity": 1}
    authorization = bearer(UserFactory())["Authorization"]

    def buy() -> Any:
        try:
            return client.post(
                "/api/v1/purchases/",
                bought,
                content_type="application/json",
                headers={"Authorization": authorization},
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=1) as pool:
        purchase = pool.submit(buy)
        wait_for(lambda: Offer.objects.get(pk=offer.pk).inventory_reserved == 1)
        listed = client.get(f"/api/v1/offers/?event={offer.event.slug}")
        assert not purchase.done(), "the purchase had ended before the list was answered"
        assert [found["id"] for found in listed.json()["results"]] == [str(offer.pk)]
        sandbox.faults()
        assert purchase.result(LONG).status_code in {201, 503}


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(180)
def test_purchases_of_a_locked_offer_hold_up_nothing_else(tmp_path: Path) -> None:
    offer = OfferFactory(price=0, inventory_total=100)
    users = UserFactory.create_batch(9)
    # No purchase gives the row up before all that follows is done, however slow the machine.
    shop = Processes(tmp_path, DATABASE_URL=own_database_url(), LOCK_TIMEOUT_MS="40000")

    def buy(user: Any) -> requests.Response:
        body = {"offer": str(offer.pk), "quantity": 1}
        return http("POST", f"{shop.url}/api/v1/purchases/", json=body, headers=bearer(user))

    try:
        shop.start_web(workers=1, threads=32)
        shop.wait_until_up()
        with at_the_same_time(9) as crowd:
            with transaction.atomic():
                Offer.objects.select_for_update().get(pk=offer.pk)
                # All the turns there are, and the next ones, too.
                purchases = [crowd.submit(buy, user) for user in users[:6]]
                wait_for(lambda: _waiting_for_a_lock() == 6)
                listed = http("GET", f"{shop.url}/api/v1/offers/?event={offer.event.slug}")
                assert len(listed.json()["results"]) == 1
                assert http("GET", f"{shop.url}/livez").status_code == 200
                assert not any(purchase.done() for purchase in purchases)
            assert [purchase.result().status_code for purchase in purchases] == [201] * 6
            # And it is as it was: nobody kept a turn.
            assert [buy(user).status_code for user in users[6:]] == [201] * 3
    finally:
        shop.stop()
    assert counters(offer) == (0, 9)


def _waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        # Within a transaction, PostgreSQL would go on telling what it told first.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])
