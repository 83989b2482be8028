"""The inbox: an event is stored, processed once, put off, given up and replayed; never lost."""

import io
import threading
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from purchases import inbox_admin, transitions, webhooks
from purchases.models import Purchase, PurchaseTransition, StripeEvent
from purchases.states import Status
from tests.conftest import at_once, buy, counters, receive
from tests.factories import OfferFactory, UserFactory
from tests.refused_rows import SECRETS, refuse_row

pytestmark = pytest.mark.django_db(transaction=True)

COMPLETED = "checkout.session.completed"
State = StripeEvent.State


@pytest.fixture
def paid(sandbox: Any, client_of: Any) -> dict[str, Any]:
    """The event of a payment that we haven't heard of yet."""
    purchase = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    return sandbox.events(COMPLETED)[0]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A handler with a defect; calling the fixture's value mends it."""
    handler = webhooks.HANDLERS[COMPLETED]

    def fail(event: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(webhooks.HANDLERS, COMPLETED, fail)
    return lambda: monkeypatch.setitem(webhooks.HANDLERS, COMPLETED, handler)


def sweep(later: timedelta = timedelta(0)) -> int:
    return webhooks.process_unprocessed(now=timezone.now() + later)


def times_paid() -> int:
    return PurchaseTransition.objects.filter(to_status=Status.PAID).count()


def test_webhook_does_not_wait_long_for_a_lock_and_the_worker_finishes_it(
    paid: dict[str, Any],
) -> None:
    purchase = Purchase.objects.get()
    locked, done = threading.Event(), threading.Event()

    def keep_locked() -> None:
        with transaction.atomic():
            transitions.lock(purchase.pk)
            locked.set()
            done.wait(timeout=60)
        connection.close()

    holder = threading.Thread(target=keep_locked)
    holder.start()
    locked.wait(timeout=30)
    event = receive(paid)  # returns although the lock is still held
    done.set()
    holder.join()
    assert event.state == State.STORED
    assert Purchase.objects.get().status == Status.AWAITING_PAYMENT

    assert sweep() == 1
    assert Purchase.objects.get().status == Status.PAID
    assert counters(purchase.offer) == (0, 1)


def test_patience_of_the_connection_is_as_before_afterwards(
    paid: dict[str, Any], settings: Any
) -> None:
    receive(paid)
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == (f"{settings.LOCK_TIMEOUT_MS // 1000}s",)


def test_four_workers_at_once_process_each_event_once(
    sandbox: Any, client_of: Any, broken: Any, time_machine: Any
) -> None:
    for _ in range(12):
        purchase = buy(client_of(UserFactory()), OfferFactory()).json()
        sandbox.act(purchase["checkout_session_id"], "pay")
    for event in sandbox.events(COMPLETED):
        receive(event)
    broken()
    time_machine.move_to(timezone.now() + timedelta(hours=1))
    done = at_once([sweep] * 4)
    assert sum(done) == 12
    assert StripeEvent.objects.filter(state=State.PROCESSED, attempts=2).count() == 12
    assert times_paid() == 12


def test_worker_that_is_killed_loses_the_event_to_the_next_one(
    paid: dict[str, Any], time_machine: Any
) -> None:
    data, _ = webhooks.store(paid, now=timezone.now())  # and then the process died
    assert sweep() == 0  # nobody can know that yet
    time_machine.move_to(timezone.now() + webhooks.LEASE + timedelta(seconds=1))
    assert sweep() == 1
    assert StripeEvent.objects.get(pk=data.pk).state == State.PROCESSED


def test_event_is_put_off_longer_each_time_and_is_dead_after_many(
    paid: dict[str, Any], broken: Any, caplog: Any, time_machine: Any
) -> None:
    receive(paid)
    pauses = []
    for _ in range(webhooks.ATTEMPTS - 1):
        event = StripeEvent.objects.get()
        assert event.state == State.FAILED
        pauses.append(event.due_at - timezone.now())
        time_machine.move_to(event.due_at)
        assert sweep() == 0
    assert pauses[0] < timedelta(seconds=30)
    assert all(b > a for a, b in pairwise(pauses[:7]))
    assert max(pauses) < timedelta(hours=1.5)
    dead = StripeEvent.objects.get()
    assert (dead.state, dead.attempts) == (State.DEAD, webhooks.ATTEMPTS)
    assert "dead_event" in caplog.text
    assert "ZeroDivisionError" in dead.error
    assert sweep(timedelta(days=30)) == 0  # a person's now
    assert StripeEvent.objects.get().attempts == webhooks.ATTEMPTS


def test_event_tells_staff_what_failed_and_nothing_of_the_row(
    paid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(webhooks.HANDLERS, COMPLETED, refuse_row)
    receive(paid)
    event = StripeEvent.objects.get()
    assert event.error.startswith("Traceback")
    assert [secret for secret in SECRETS if secret in event.error] == []
    assert inbox_admin.why(event).startswith("django.db.utils.IntegrityError: null value in column")


def test_dead_event_is_seen_in_admin_and_replayed_by_the_command(
    paid: dict[str, Any], broken: Any, admin_client: Any
) -> None:
    receive(paid)
    StripeEvent.objects.update(state=State.DEAD, attempts=webhooks.ATTEMPTS)
    listed = admin_client.get("/admin/purchases/stripeevent/?state__exact=dead")
    assert paid["id"] in listed.content.decode()
    broken()
    out = io.StringIO()
    call_command("replay_events", "--failed", stdout=out)
    assert f"{paid['id']} {COMPLETED}: processed" in out.getvalue()
    assert times_paid() == 1


def test_outage_of_stripe_does_not_count_against_an_event(
    sandbox: Any, paid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs an answer of Stripe's: however long that is away, the event isn't given up."""
    sandbox.client.v1.refunds.create({"payment_intent": paid["data"]["object"]["payment_intent"]})
    receive(sandbox.events("refund.created")[0])
    sandbox.faults(error_rate=1.0)
    monkeypatch.setattr(webhooks, "ATTEMPTS", 2)
    for minutes in range(1, 5):
        sweep(timedelta(minutes=minutes))
    event = StripeEvent.objects.get()
    assert (event.state, event.attempts) == (State.FAILED, 0)
    sandbox.faults()
    assert sweep(timedelta(hours=1)) == 1
    assert Purchase.objects.get().status == Status.REFUNDED


def test_event_delivered_again_while_it_waits_is_not_processed_twice(
    paid: dict[str, Any], broken: Any
) -> None:
    receive(paid)
    broken()
    assert receive(paid).state == State.FAILED  # the sweep has it, with its own pause
    assert sweep(timedelta(minutes=1)) == 1
    assert receive(paid).state == State.PROCESSED
    assert times_paid() == 1


def test_stripe_that_is_away_is_asked_once_by_a_sweep_and_others_get_their_turn(
    sandbox: Any, client_of: Any, paid: dict[str, Any]
) -> None:
    sessions = [paid["data"]["object"]["id"]]
    sessions += [
        buy(client_of(UserFactory()), OfferFactory()).json()["checkout_session_id"]
        for _ in range(4)
    ]
    for session in sessions[1:]:
        sandbox.act(session, "pay")
    for session in sessions:
        sandbox.act(session, "refund")
    for event in sandbox.events("refund.created"):
        receive(event)  # each overtakes the news of its payment
    data, _ = webhooks.store(paid, now=timezone.now())
    StripeEvent.objects.filter(pk=data.pk).update(due_at=timezone.now())
    sandbox.faults(error_rate=1.0)
    before = len(sandbox.process.get("requests")["data"])
    done = sweep()
    assert done >= 1  # the payment, for which nobody has to be asked
    asked = len(sandbox.process.get("requests")["data"]) - before
    assert asked <= 1 + settings.STRIPE_NETWORK_RETRIES
    sandbox.faults()
    assert done + sweep(timedelta(minutes=1)) == 6
    assert Purchase.objects.filter(status=Status.REFUNDED).count() == 5


def test_slow_process_does_not_overwrite_what_the_next_one_has_done(paid: dict[str, Any]) -> None:
    slow, _ = webhooks.store(paid, now=timezone.now())
    other = StripeEvent.objects.get()
    other.due_at += timedelta(seconds=90)  # the claim went on to somebody else
    other.save(update_fields=["due_at"])
    webhooks.process(other, now=timezone.now())
    slow.payload = {"data": {"object": {}}, "livemode": False}  # and fails
    webhooks.process(slow, now=timezone.now())
    assert StripeEvent.objects.get().state == State.PROCESSED
