"""Transactions in each other's way: deadlocks, conflicts, time-outs, as PostgreSQL has them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg import errors as pg

from offers.contention import ATTEMPTS, lock_wait, retried
from offers.errors import database_is_busy
from offers_project.local.environment import ROOT
from purchases import holds, payments, refund_requests, tasks
from purchases.errors import HoldAlreadyResolved, NotRefundable
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from purchases.stripe_gateway import CheckoutSession
from tests.conftest import at_once, buy, code, counters, receive
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory
from tests.sandbox_process import wait_for
from tests.service_processes import own_database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


# -- Deadlocks and serialization failures ---------------------------------------------------------

# PostgreSQL looks for a deadlock once, after so long a wait: the other must be in it by then.
OURS, THE_OTHERS = "2s", "20s"


@contextmanager
def setting_of_this_connection(name: str, value: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config(%s, %s, false)", [name, value])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"RESET {name}")


class Other(threading.Thread):
    """A transaction of somebody else's: ``first``, and ``then`` once ours waits for it; commit."""

    def __init__(self, first: str, then: str | None = None) -> None:
        super().__init__()
        connection.ensure_connection()
        self._ours = connection.connection.info.backend_pid
        self._then = then
        self.is_done = False
        self._connection = psycopg.connect(own_database_url())
        # The one that waits for longer than this looks for a deadlock, and is its victim: ours.
        self._connection.execute(f"SET deadlock_timeout = '{THE_OTHERS}'")
        self._connection.commit()
        self._connection.execute(first)

    def run(self) -> None:
        with self._connection:
            wait_for(self._is_waited_for, 30)
            if self._then:
                self._connection.execute(self._then)
        self.is_done = True

    def _is_waited_for(self) -> bool:
        query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        with psycopg.connect(own_database_url(), autocommit=True) as watching:
            row = watching.execute(query, [self._ours]).fetchone()
        return bool(row and row[0])


def lock(model: Any) -> str:
    return f"SELECT FROM {model._meta.db_table} WHERE id = '{model.pk}' FOR UPDATE"


def paid_session(purchase: Purchase) -> CheckoutSession:
    return CheckoutSession.parse(
        {
            "id": purchase.checkout_session_id,
            "status": "complete",
            "payment_status": "paid",
            "amount_total": purchase.total_minor,
            "currency": "usd",
            "payment_intent": "pi_1",
            "expires_at": 1,
            "created": 1,
            "livemode": False,
        }
    )


def pay(purchase: Purchase) -> Purchase | None:
    return payments.record_session(paid_session(purchase), now=timezone.now(), source="tests")


def release(purchase: Purchase) -> Purchase:
    now = purchase.created_at + timedelta(days=2)
    expired = ReleaseReason.EXPIRED
    # By its own clock the session is dead, so Stripe needn't be asked.
    return holds.end(purchase, reason=expired, now=now, source="tests", ask_stripe=False)


@pytest.mark.parametrize(
    ("work", "status"), [(pay, Status.PAID), (release, Status.RELEASED)], ids=["payment", "release"]
)
def test_deadlock_over_purchase_and_offer_is_tried_again(
    work: Callable[[Purchase], Any], status: str
) -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    with setting_of_this_connection("deadlock_timeout", OURS):
        other = Other(lock(purchase.offer), then=lock(purchase))
        other.start()
        work(purchase)
        other.join()
    assert other.is_done
    assert Purchase.objects.get().status == status
    assert counters(purchase.offer) == (0, status == Status.PAID)


def test_deadlock_over_buyer_and_offer_is_tried_again(client_of: Any) -> None:
    offer, user = OfferFactory(price=0), UserFactory()
    with setting_of_this_connection("deadlock_timeout", OURS):
        other = Other(lock(offer), then=lock(user))
        other.start()
        answer = buy(client_of(user), offer)
        other.join()
    assert other.is_done
    assert answer.status_code == 201
    assert counters(offer) == (0, 1)


def test_serialization_failure_is_tried_again() -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    offer = purchase.offer
    change = f"UPDATE {offer._meta.db_table} SET title = 'New' WHERE id = '{offer.pk}'"  # noqa: S608
    with setting_of_this_connection("default_transaction_isolation", "repeatable read"):
        other = Other(change)
        other.start()
        pay(purchase)
        other.join()
    assert Purchase.objects.get().status == Status.PAID
    assert counters(purchase.offer) == (0, 1)


@pytest.mark.parametrize("cause", [pg.DeadlockDetected, pg.SerializationFailure])
def test_conflict_without_end_is_given_up_after_some_tries(cause: type[Exception]) -> None:
    tries = []

    @retried
    def work() -> None:
        tries.append(1)
        raise OperationalError("again") from cause()

    with pytest.raises(OperationalError) as raised:
        work()
    assert len(tries) == ATTEMPTS
    assert database_is_busy(raised.value)


def test_everything_at_once_on_one_offer_has_no_deadlock(
    sandbox: Any, client_of: Any, settings: Any
) -> None:
    """Purchases, webhooks (each twice), cancels, sweeps and refunds, in threads."""
    settings.MAX_OPEN_HOLDS_PER_USER = settings.STRIPE_CONCURRENT_CALLS = 100
    offer = OfferFactory(inventory_total=1000)
    owner = MembershipFactory(organization=offer.event.organization).user
    clients = [client_of(user) for user in UserFactory.create_batch(6)]
    deadlocks = number_of_deadlocks()
    shopping = len(clients)
    guard = threading.Lock()

    def shopper(number: int) -> None:
        nonlocal shopping
        try:
            # Eight turns, and as many more as it takes until all has happened that may happen.
            for turn in range(number, number + 100):
                if turn >= number + 8 and {Status.RELEASED, Status.REFUNDED} <= outcomes():
                    break
                buy_and_go_on(sandbox, clients[number], offer, cancels=turn % 3 == 0)
        finally:
            with guard:
                shopping -= 1

    def while_they_shop(work: Callable[[], Any]) -> None:
        while shopping:
            work()

    shoppers = [lambda number=number: shopper(number) for number in range(len(clients))]
    sweeper = [lambda: while_they_shop(sweep)]
    refunder = [lambda: while_they_shop(lambda: refund(owner))]
    answers = at_once(shoppers + sweeper * 2 + refunder)

    assert [error for error in answers if error is not None] == []
    assert number_of_deadlocks() == deadlocks
    counters(offer)
    assert {Status.RELEASED, Status.REFUNDED} <= outcomes()


def test_payment_and_end_of_the_same_hold_at_once_have_no_deadlock() -> None:
    offer = OfferFactory(inventory_total=1000)
    deadlocks = number_of_deadlocks()
    for _ in range(25):
        purchase = PurchaseFactory(offer=offer, status=Status.AWAITING_PAYMENT)
        works = [pay, release, pay, pay]
        answers = at_once([lambda work=work, on=purchase: work(on) for work in works])
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        # A payment was faster: there is no hold to end any more.
        assert {type(error) for error in errors} <= {HoldAlreadyResolved}
    assert number_of_deadlocks() == deadlocks
    assert counters(offer) == (0, 25)  # late or not, each was paid


def outcomes() -> set[str]:
    return set(Purchase.objects.values_list("status", flat=True))


def buy_and_go_on(sandbox: Any, client: Any, offer: Any, *, cancels: bool) -> None:
    answer = buy(client, offer)
    if answer.status_code == 503 and code(answer) == "payment_provider_unavailable":
        return  # the sweep has ended the hold before it had a session
    assert answer.status_code == 201, answer.content
    purchase = answer.json()
    if not cancels:
        pay_and_tell(sandbox, purchase["checkout_session_id"])
        return
    cancelled = client.post(f"/api/v1/purchases/{purchase['id']}/cancel/")
    assert cancelled.status_code in (200, 409), cancelled.content  # or the sweep was faster


def sweep() -> None:
    # Holds that are a moment old: some of them are being paid or cancelled just then.
    now = timezone.now() + timedelta(minutes=15, seconds=-0.3)
    overdue = holds.overdue(now=now)
    list(holds.end_all(overdue, reason=ReleaseReason.EXPIRED, now=now, source="sweep"))
    tasks.process_events()


def refund(owner: Any) -> None:
    for paid in Purchase.objects.filter(status=Status.PAID)[:2]:
        with suppress(NotRefundable):
            refund_requests.request(
                purchase_id=paid.pk, actor=owner, source="tests", now=timezone.now()
            )
    tasks.send_refunds()


def pay_and_tell(sandbox: Any, session_id: str) -> None:
    """The buyer pays, if the session is still open; Stripe's webhooks come twice each."""
    session = sandbox.client.v1.checkout.sessions.retrieve(session_id).to_dict()
    if session["status"] == "open":
        try:
            session = sandbox.act(session_id, "pay")
        except OSError:
            return  # expired by the sweep this moment
    kind = "completed" if session["status"] == "complete" else "expired"
    for number in range(2):
        receive(
            {
                "id": f"evt_{session_id}_{number}",
                "type": f"checkout.session.{kind}",
                "created": int(time.time()),
                "livemode": False,
                "data": {"object": session},
            }
        )


def number_of_deadlocks() -> int:
    """How many there have been in this database; backends tell for sure when they end."""
    connection.close()
    connection.close_pool()
    with psycopg.connect(own_database_url(), autocommit=True) as watching:

        def ask(sql: str) -> int:
            row = watching.execute(sql).fetchone()
            assert row is not None
            return int(row[0])

        others = "FROM pg_stat_activity WHERE datname = current_database()"
        wait_for(lambda: ask(f"SELECT count(*) {others}") == 1, 30)
        return ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


# -- Time-outs ------------------------------------------------------------------------------------

SHOW = (
    "from django.db import connection; cursor = connection.cursor(); "
    "show = lambda name: [cursor.execute('SHOW ' + name), cursor.fetchone()[0]][1]; "
    "print('shown', show('lock_timeout'), show('statement_timeout')); cursor.close(); "
    "connection.close(); connection.close_pool()"
)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["-c", f"import offers_project.wsgi; {SHOW}"], "1234ms 5678ms"),
        (
            ["-c", f"import offers_project.celery, django; django.setup(); {SHOW}"],
            "1234ms 5678ms",
        ),
        # A migration, or a count of everything, may take longer.
        (["manage.py", "shell", "--no-imports", "-c", SHOW], "1234ms 0"),
    ],
    ids=["web", "worker", "command"],
)
def test_timeouts_of_the_settings_are_those_of_the_connection(
    command: list[str], shown: str
) -> None:
    env = {**os.environ, "DATABASE_URL": own_database_url()}
    env |= {"LOCK_TIMEOUT_MS": "1234", "STATEMENT_TIMEOUT_MS": "5678"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"shown {shown}\n" in done.stdout, done.stderr


def test_shorter_wait_for_locks_is_of_the_transactions_within_and_of_nothing_else() -> None:
    def wait() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return str(cursor.fetchone()[0])

    before = wait()
    with lock_wait(123):
        assert wait() == before  # nothing that a later user of the connection would find
        for _ in range(2):
            with transaction.atomic():
                assert wait() == "123ms"
                with transaction.atomic():
                    assert wait() == "123ms"
            connection.close()  # the next transaction may have another one
    with transaction.atomic():
        assert wait() == before


@pytest.mark.parametrize("is_dry", [True, False])
def test_stored_timeouts_are_those_of_requests_and_of_who_connects_next(is_dry: bool) -> None:
    env = {**os.environ, "DATABASE_URL": own_database_url()}
    env |= {"LOCK_TIMEOUT_MS": "777", "STATEMENT_TIMEOUT_MS": "8888"}
    command = [sys.executable, "manage.py", "store_timeouts", *(["--dry-run"] if is_dry else [])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "SET lock_timeout = 777;" in done.stdout
        assert "SET statement_timeout = 8888;" in done.stdout
        with psycopg.connect(own_database_url()) as next_one:
            row = next_one.execute("SELECT current_setting('lock_timeout')").fetchone()
            assert row == ("0" if is_dry else "777ms",)
    finally:
        with connection.cursor() as cursor:
            name = connection.ops.quote_name(connection.settings_dict["NAME"])
            cursor.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {name} RESET ALL")


def test_statement_that_takes_too_long_is_busy(client_of: Any) -> None:
    def sleep_first(execute: Any, *args: Any) -> Any:
        execute("SELECT pg_sleep(30)", None, *args[2:])
        return execute(*args)

    offer = OfferFactory(price=0)
    client = client_of(UserFactory())
    with (
        setting_of_this_connection("statement_timeout", "50ms"),
        connection.execute_wrapper(sleep_first),
    ):
        answer = buy(client, offer)
    assert answer.status_code == 503
    assert answer.json()["errors"][0]["code"] == "busy"
    assert int(answer.headers["Retry-After"]) > 0
    assert counters(offer) == (0, 0)
