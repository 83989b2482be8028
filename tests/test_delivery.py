"""The engine of fulfilment: what was paid for is delivered once, in order, come what may."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction
from django.utils import timezone
from psycopg import errors as pg

from fulfillment import delivery, queue, transitions
from fulfillment.digital import delivery as digital
from fulfillment.digital.models import AccessCode
from fulfillment.errors import CannotDeliver, FulfillmentAlreadyResolved, NotPaidFor
from fulfillment.models import Fulfillment
from fulfillment.states import Status, Type
from offers.models import Offer
from purchases import states
from purchases import transitions as purchases
from purchases.models import Email, Purchase
from purchases.states import Status as PurchaseStatus
from tests.conftest import at_once, deliver_now
from tests.factories import (
    DigitalContentFactory,
    OfferFactory,
    PurchaseFactory,
    UserFactory,
    make_fulfillment,
)
from tests.refused_rows import SECRETS, refused_row

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def offer() -> Offer:
    """Content with a code for each buyer, so that a second delivery would show."""
    offer = OfferFactory(offer_type=Offer.Type.EXCLUSIVE_CONTENT, inventory_total=None)
    DigitalContentFactory(offer=offer, codes=50)
    return offer


@pytest.fixture
def paid(offer: Offer) -> Callable[..., Purchase]:
    def make(minutes: float = 0, **facts: Any) -> Purchase:
        """A purchase that was paid so many minutes after the first one could be."""
        created = timezone.now() - timedelta(hours=1) + timedelta(minutes=minutes)
        return PurchaseFactory(offer=offer, status=PurchaseStatus.PAID, created_at=created, **facts)

    return make


class Broken:
    """A deliverer that fails until it is mended, and counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.error: Exception | None = error
        self.only: set[uuid.UUID] | None = None
        self.asked: list[uuid.UUID] = []
        self._deliver = digital.deliver
        monkeypatch.setattr(digital, "deliver", self)

    def __call__(self, fulfillment: Fulfillment, *, now: Any) -> bool:
        self.asked.append(fulfillment.purchase_id)
        if self.error is not None and (self.only is None or fulfillment.purchase_id in self.only):
            raise self.error
        return self._deliver(fulfillment, now=now)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(monkeypatch, ZeroDivisionError("a bug"))


def sweep(*, minutes: float = 0) -> None:
    """What beat starts every half a minute, so many minutes from now."""
    with time_machine.travel(timezone.now() + timedelta(minutes=minutes)):
        delivery.take_in(now=timezone.now())
        queue.deliver_due(now=timezone.now())


def statuses() -> list[str]:
    return list(Fulfillment.objects.order_by("paid_at").values_list("status", flat=True))


def back(purchase: Purchase, *steps: states.Transition) -> None:
    """The purchase's money goes back, or fails to."""
    for step in steps:
        facts = (
            {"refunded_at": timezone.now(), "refunded_amount": purchase.total_price}
            if step is states.REFUND
            else {}
        )
        with transaction.atomic():
            locked = purchases.lock(purchase.pk)
            purchases.apply(locked, step, now=timezone.now(), source="tests", **facts)


# -- Hearing of payments and refunds --------------------------------------------------------------


def test_paid_purchase_is_taken_on_delivered_and_confirmed_once(
    paid: Callable[..., Purchase],
) -> None:
    purchase = paid()
    assert Purchase.objects.get(pk=purchase.pk).fulfillment_due

    for _ in range(3):
        sweep()
        deliver_now(purchase.pk)

    fulfillment = Fulfillment.objects.get()
    assert (fulfillment.status, fulfillment.type) == (Status.FULFILLED, Type.DIGITAL)
    assert fulfillment.paid_at == purchase.paid_at
    assert fulfillment.due_at is None
    assert AccessCode.objects.filter(fulfillment=fulfillment).count() == 1
    assert not Purchase.objects.get(pk=purchase.pk).fulfillment_due
    assert sorted(Email.objects.values_list("occasion", flat=True)) == [
        "confirmed",
        "content_ready",
    ]


@pytest.mark.parametrize(
    "status", [s for s in PurchaseStatus if s not in (PurchaseStatus.PAID, PurchaseStatus.REFUNDED)]
)
def test_purchase_that_was_never_paid_for_good_is_not_delivered(status: str, offer: Offer) -> None:
    purchase = PurchaseFactory(offer=offer, status=status)
    if status == PurchaseStatus.REFUNDING:
        purchase.transitions.filter(to_status=PurchaseStatus.PAID).delete()
    sweep()
    assert Fulfillment.objects.count() == 0


@pytest.mark.parametrize("offer_type", Offer.Type.values)
def test_each_type_of_offer_becomes_its_type_of_fulfillment(offer_type: str) -> None:
    purchase = PurchaseFactory(
        offer=OfferFactory(offer_type=offer_type), status=PurchaseStatus.PAID
    )
    expected = {
        "EXCLUSIVE_CONTENT": "DIGITAL",
        "TICKET_UPGRADE": "TICKET",
        "MERCHANDISE": "PHYSICAL",
        "SERVICE": "SERVICE",
    }
    assert deliver_now(purchase.pk).type == expected[offer_type]


def test_refund_takes_back_what_was_delivered(paid: Callable[..., Purchase]) -> None:
    purchase = paid()
    deliver_now(purchase.pk)
    back(purchase, states.REQUEST_REFUND, states.REFUND)
    sweep()
    assert statuses() == [Status.REVOKED]
    sweep()
    assert Fulfillment.objects.get().transitions.filter(to_status=Status.REVOKED).count() == 1


def test_purchase_paid_and_refunded_between_two_sweeps_is_never_delivered_nor_confirmed(
    paid: Callable[..., Purchase],
) -> None:
    purchase = paid()
    back(purchase, states.REFUND)
    sweep()
    assert statuses() == [Status.REVOKED]
    assert AccessCode.objects.exclude(fulfillment=None).count() == 0
    assert not Email.objects.filter(occasion="confirmed").exists()
    told = Fulfillment.objects.get().transitions.values_list("name", flat=True)
    assert list(told) == ["take_on", "revoke"]


def test_delivery_stands_still_during_a_refund_and_goes_on_when_that_fails(
    paid: Callable[..., Purchase],
) -> None:
    purchase = paid()
    back(purchase, states.REQUEST_REFUND)
    sweep()
    assert statuses() == [Status.PENDING]
    sweep(minutes=300)
    assert statuses() == [Status.PENDING]

    back(purchase, states.REFUND_FAILED)
    sweep()
    assert statuses() == [Status.FULFILLED]


def test_second_sweep_of_a_process_leaves_it_to_the_first(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    paid()
    broken.error = None
    with queue._sweeping:
        assert queue.sweep(now=timezone.now()) == 0
    assert not Fulfillment.objects.exists()
    assert queue.sweep(now=timezone.now()) == 1
    assert statuses() == [Status.FULFILLED]


def test_sweep_ends_when_its_time_is_up(
    paid: Callable[..., Purchase], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        paid(n)
    monkeypatch.setattr(queue, "SWEEP_SECONDS", 0)
    assert queue.sweep(now=timezone.now()) == 0
    assert Fulfillment.objects.count() == 0


def test_purchase_that_another_process_has_locked_is_left_to_that_one(
    paid: Callable[..., Purchase],
) -> None:
    locked, free = paid(1), paid(2)
    with transaction.atomic():
        purchases.lock(locked.pk)
        [looked_at] = at_once([lambda: delivery.take_in(now=timezone.now())])
    assert looked_at == 1
    assert Fulfillment.objects.get().purchase_id == free.pk


def test_one_purchase_that_cannot_be_taken_in_does_not_stop_the_others(
    paid: Callable[..., Purchase], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = paid(1), paid(2)
    take_on = delivery._take_on

    def refuse_first(purchase: Purchase, **options: Any) -> Any:
        if purchase.pk == first.pk:
            raise ZeroDivisionError
        return take_on(purchase, **options)

    monkeypatch.setattr(delivery, "_take_on", refuse_first)
    sweep()
    assert Fulfillment.objects.get().purchase_id == second.pk
    monkeypatch.undo()
    sweep()
    assert Fulfillment.objects.count() == 2


# -- One delivery, whoever runs -------------------------------------------------------------------


def test_many_workers_at_once_deliver_each_purchase_once(paid: Callable[..., Purchase]) -> None:
    made = [paid(n) for n in range(6)]

    def worker() -> None:
        now = timezone.now()
        delivery.take_in(now=now)
        queue.deliver_due(now=now)
        for purchase in made:
            queue.deliver_one(purchase.pk, now=now)

    answers = at_once([worker] * 8)

    assert [a for a in answers if isinstance(a, Exception)] == []
    assert statuses() == [Status.FULFILLED] * 6
    assert AccessCode.objects.exclude(fulfillment=None).count() == 6
    assert Email.objects.filter(occasion="content_ready").count() == 6
    delivered = [f.transitions.filter(name="fulfill").count() for f in Fulfillment.objects.all()]
    assert delivered == [1] * 6


def test_worker_that_died_after_its_claim_loses_it_to_the_next(
    paid: Callable[..., Purchase],
) -> None:
    purchase = paid()
    fulfillment = delivery.hear_of(purchase.pk, now=timezone.now())
    assert fulfillment is not None
    assert queue._claim(queue.due(now=timezone.now())) is not None  # and then nothing

    sweep()
    assert statuses() == [Status.PROCESSING]
    sweep(minutes=queue.LEASE.total_seconds() / 60 + 0.1)
    assert statuses() == [Status.FULFILLED]
    assert Fulfillment.objects.get().attempts == 2


def test_worker_slower_than_its_claim_changes_nothing_any_more(
    paid: Callable[..., Purchase],
) -> None:
    purchase = paid()
    delivery.hear_of(purchase.pk, now=timezone.now())
    slow = queue._claim(queue.due(now=timezone.now()))
    assert slow is not None
    sweep(minutes=2)
    delivered = Fulfillment.objects.values().get()

    delivery._deliver(slow, now=timezone.now())
    delivery._put_off(slow, ZeroDivisionError(), now=timezone.now())
    delivery._fail(slow, "too late", now=timezone.now())

    assert Fulfillment.objects.values().get() == delivered
    assert AccessCode.objects.exclude(fulfillment=None).count() == 1


def test_refund_between_claim_and_delivery_wins(paid: Callable[..., Purchase]) -> None:
    purchase = paid()
    delivery.hear_of(purchase.pk, now=timezone.now())
    claimed = queue._claim(queue.due(now=timezone.now()))
    assert claimed is not None
    back(purchase, states.REFUND)
    delivery._deliver(claimed, now=timezone.now())
    assert AccessCode.objects.exclude(fulfillment=None).count() == 0
    sweep()
    assert statuses() == [Status.REVOKED]


# -- Failures -------------------------------------------------------------------------------------


def test_failure_is_kept_and_tried_again_later_and_later(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    paid()
    waits = []
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for attempt in range(1, delivery.ATTEMPTS):
            sweep()
            row = Fulfillment.objects.get()
            assert (row.status, row.attempts) == (Status.PENDING, attempt)
            assert row.error == "ZeroDivisionError: a bug"
            assert row.due_at is not None
            waits.append((row.due_at - timezone.now()).total_seconds())
            clock.shift(waits[-1])
    assert waits[0] < 20
    assert all(later > 1.3 * sooner for sooner, later in pairwise(waits[:8]))
    assert 3 * 3600 < sum(waits) < 6 * 3600


def test_failure_is_given_up_with_an_alert_after_its_attempts(
    paid: Callable[..., Purchase], broken: Broken, caplog: Any
) -> None:
    paid()
    minutes = 0.0
    for _ in range(delivery.ATTEMPTS + 3):
        sweep(minutes=minutes)
        minutes += 90
    row = Fulfillment.objects.get()
    assert (row.status, row.due_at, row.attempts) == (Status.FAILED, None, delivery.ATTEMPTS)
    assert len(broken.asked) == delivery.ATTEMPTS
    alerts = [r for r in caplog.records if "fulfillment_given_up" in str(r.msg)]
    assert len(alerts) == 1


def test_database_in_trouble_costs_no_attempt(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    paid()
    broken.error = OperationalError("canceling statement due to lock timeout")
    broken.error.__cause__ = pg.LockNotAvailable("canceling statement due to lock timeout")
    sweep()
    row = Fulfillment.objects.get()
    assert (row.attempts, row.status) == (0, Status.PROCESSING)
    broken.error = None
    sweep(minutes=1)
    assert statuses() == [Status.FULFILLED]


def test_what_only_a_person_can_supply_fails_at_once_and_is_looked_for_every_hour(
    paid: Callable[..., Purchase], broken: Broken, caplog: Any
) -> None:
    paid()
    broken.error = CannotDeliver("There is no more of it: get some.")
    sweep()
    row = Fulfillment.objects.get()
    assert (row.status, row.error) == (Status.FAILED, "There is no more of it: get some.")
    for hour in (0.9, 1.1, 2.2, 3.3):
        sweep(minutes=hour * 60)
    assert len(broken.asked) == 4
    sweep(minutes=30 * 24 * 60)
    asked = len(broken.asked)
    sweep(minutes=30 * 24 * 60 + 23 * 60)  # by now, once a day will do
    assert len(broken.asked) == asked
    assert statuses() == [Status.FAILED]
    assert len([r for r in caplog.records if "cannot_deliver" in str(r.msg)]) == 1
    assert Fulfillment.objects.get().transitions.filter(name="fail").count() == 1

    broken.error = None
    sweep(minutes=32 * 24 * 60)
    assert statuses() == [Status.FULFILLED]
    assert Fulfillment.objects.get().error == ""


def test_what_waited_for_a_person_and_then_met_a_broken_deliverer_is_delivered_once_that_is_mended(
    paid: Callable[..., Purchase], broken: Broken, caplog: Any
) -> None:
    """Codes are imported at last, and the deliverer has a bug that day."""
    made = [paid(n) for n in range(3 * queue.BREAK_AFTER)]
    broken.error = CannotDeliver("There is no more of it: get some.")
    sweep()
    broken.error = ZeroDivisionError("a bug")
    assert delivery.retry_offer(made[0].offer_id, now=timezone.now()) == len(made)
    for number in range(4):
        sweep(minutes=number / 2)
    assert statuses() == [Status.FAILED] * len(made)
    assert len([r for r in caplog.records if "deliverer_broken" in str(r.msg)]) == 1
    assert not [r for r in caplog.records if "given_up" in str(r.msg)]

    broken.error, broken.asked = None, []
    sweep(minutes=2.5)
    assert statuses() == [Status.FULFILLED] * len(made)
    assert broken.asked == [purchase.pk for purchase in made]


def test_one_mishap_of_what_waits_for_a_person_does_not_end_its_wait(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    paid()
    broken.error = CannotDeliver("There is no more of it: get some.")
    sweep()
    broken.error = ZeroDivisionError("a mishap")
    sweep(minutes=61)
    assert statuses() == [Status.FAILED]
    broken.error = None
    sweep(minutes=62)
    assert statuses() == [Status.FULFILLED]


def test_database_in_trouble_stalls_nothing(paid: Callable[..., Purchase], broken: Broken) -> None:
    for n in range(2 * queue.BREAK_AFTER):
        paid(n)
    broken.error = OperationalError("canceling statement due to lock timeout")
    broken.error.__cause__ = pg.LockNotAvailable("canceling statement due to lock timeout")
    sweep()
    assert len(broken.asked) == 2 * queue.BREAK_AFTER
    assert not Fulfillment.objects.filter(is_stalled=True).exists()


def test_stalled_purchase_whose_money_is_on_the_way_back_says_nothing_of_the_deliverer(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    made = [paid(n) for n in range(2 * queue.BREAK_AFTER)]
    sweep()
    asked = len(broken.asked)
    back(made[0], states.REQUEST_REFUND)
    sweep(minutes=0.5)
    assert len(broken.asked) == asked
    assert Fulfillment.objects.filter(is_stalled=True).count() == queue.BREAK_AFTER - 1
    broken.error = None
    sweep(minutes=1)
    assert statuses() == [Status.PENDING, *[Status.FULFILLED] * (len(made) - 1)]


def test_row_that_the_database_refused_is_not_quoted(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    paid()
    broken.error = refused_row()
    sweep()
    told = Fulfillment.objects.get().error
    assert told.startswith("IntegrityError: null value in column")
    assert [secret for secret in SECRETS if secret in told] == []


def test_broken_deliverer_does_not_hold_up_the_other_types(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    for n in range(20):
        paid(n)
    parcel = PurchaseFactory(offer=OfferFactory(), status=PurchaseStatus.PAID)
    sweep()
    assert len(broken.asked) == queue.BREAK_AFTER
    assert Fulfillment.objects.get(purchase=parcel).status == Status.PROCESSING
    assert Fulfillment.objects.get(purchase=parcel).due_at is None


@pytest.mark.timeout(400)
def test_thousand_purchases_of_a_broken_deliverer_are_delivered_in_order_once_it_is_mended(
    offer: Offer, broken: Broken
) -> None:
    many, sweeps = 1000, 60
    start = timezone.now() - timedelta(hours=1)
    AccessCode.objects.all().delete()
    AccessCode.objects.bulk_create(AccessCode(offer=offer, code=f"code-{n}") for n in range(many))
    buyer = UserFactory()
    made = [
        PurchaseFactory(
            offer=offer,
            user=buyer,
            status=PurchaseStatus.PAID,
            created_at=start + timedelta(seconds=n),
        )
        for n in range(many)
    ]
    for number in range(1, sweeps + 1):  # half an hour of it
        sweep(minutes=number / 2)
    assert set(statuses()) == {Status.PENDING}
    assert len(broken.asked) <= queue.BREAK_AFTER + 2 * sweeps

    broken.error, broken.asked = None, []
    sweep(minutes=31)
    sweep(minutes=31.5)

    assert statuses() == [Status.FULFILLED] * many
    assert broken.asked == [purchase.pk for purchase in made]  # once each, in order
    codes = AccessCode.objects.order_by("fulfillment__paid_at").values_list("code", flat=True)
    assert list(codes) == [f"code-{n}" for n in range(many)]
    sent = Email.objects.filter(occasion="content_ready")
    assert sent.count() == sent.values("purchase").distinct().count() == many


def test_purchases_that_fail_by_themselves_do_not_stall_the_rest_of_their_type(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    bad = {paid(n).pk for n in range(queue.BREAK_AFTER + 1)}
    good = [paid(10 + n) for n in range(10)]
    broken.only = bad
    for number in range(3):
        assert statuses().count(Status.FULFILLED) == 0
        sweep(minutes=number / 2)
    assert {f.purchase_id for f in Fulfillment.objects.filter(status=Status.FULFILLED)} == {
        purchase.pk for purchase in good
    }
    # Those that buy later show each time that it isn't the deliverer: in the end they are given up.
    for hour in range(1, 2 * delivery.ATTEMPTS):
        good.append(paid(60 + hour))
        for number in range(3):
            sweep(minutes=60 * hour + number)
    assert statuses() == [Status.FAILED] * len(bad) + [Status.FULFILLED] * len(good)


def test_new_purchase_waits_its_turn_while_its_type_is_broken(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    for n in range(queue.BREAK_AFTER):
        paid(n)
    sweep()
    asked = len(broken.asked)
    latest = paid(10)
    assert deliver_now(latest.pk).status == Status.PENDING
    assert len(broken.asked) == asked
    broken.error = None
    sweep(minutes=0.5)
    assert statuses() == [Status.FULFILLED] * (queue.BREAK_AFTER + 1)
    assert broken.asked[-1] == latest.pk


# -- What staff do --------------------------------------------------------------------------------


def test_retry_delivers_what_had_failed(paid: Callable[..., Purchase], broken: Broken) -> None:
    purchase = paid()
    broken.error = CannotDeliver("nothing there")
    sweep()
    broken.error = None
    row = delivery.retry(Fulfillment.objects.get().pk, now=timezone.now(), source="admin")
    assert (row.status, row.attempts) == (Status.PENDING, 0)
    assert deliver_now(purchase.pk).status == Status.FULFILLED


def test_retry_of_an_offer_takes_all_that_failed_of_it_in_order(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    made = [paid(n) for n in (2, 1, 3)]
    other = PurchaseFactory(offer=OfferFactory(), status=PurchaseStatus.PAID)
    broken.error = CannotDeliver("nothing there")
    sweep()
    broken.error, broken.asked = None, []
    assert delivery.retry_offer(made[0].offer_id, now=timezone.now()) == 3
    sweep()
    assert broken.asked == [made[1].pk, made[0].pk, made[2].pk]
    assert Fulfillment.objects.get(purchase=other).status == Status.PROCESSING


@pytest.mark.parametrize("status", [Status.FULFILLED, Status.REVOKED, Status.PROCESSING])
def test_retry_refuses_what_has_not_failed(status: str) -> None:
    fulfillment = make_fulfillment(status=status)
    with pytest.raises(FulfillmentAlreadyResolved):
        delivery.retry(fulfillment.pk, now=timezone.now(), source="admin")


def test_marking_as_done_hands_nothing_out(paid: Callable[..., Purchase], broken: Broken) -> None:
    paid()
    sweep()
    row = Fulfillment.objects.get()
    delivery.mark_done(row.pk, reason="by hand", now=timezone.now(), source="admin")
    sweep(minutes=300)
    assert statuses() == [Status.FULFILLED]
    assert AccessCode.objects.exclude(fulfillment=None).count() == 0
    assert row.transitions.last().reason == "by hand"


def test_marking_as_done_refuses_what_was_refunded(paid: Callable[..., Purchase]) -> None:
    purchase = paid()
    fulfillment = delivery.hear_of(purchase.pk, now=timezone.now())
    assert fulfillment is not None
    back(purchase, states.REQUEST_REFUND)
    with pytest.raises(NotPaidFor):
        delivery.mark_done(fulfillment.pk, reason="x", now=timezone.now(), source="admin")


def test_revoking_twice_at_once_revokes_once(paid: Callable[..., Purchase]) -> None:
    purchase = paid()
    pk = deliver_now(purchase.pk).pk

    def revoke() -> Any:
        return delivery.revoke(pk, reason="fraud", now=timezone.now(), source="admin")

    answers = at_once([revoke] * 4)
    assert sum(isinstance(a, Fulfillment) for a in answers) == 1
    assert sum(isinstance(a, FulfillmentAlreadyResolved) for a in answers) == 3


def test_lock_keeps_a_second_transaction_out(paid: Callable[..., Purchase]) -> None:
    """What all of the above stands on."""
    pk = deliver_now(paid().pk).pk
    with transaction.atomic():
        transitions.lock(pk)
        [answer] = at_once([lambda: taken(pk)])
    assert isinstance(answer, OperationalError)


def taken(pk: uuid.UUID) -> Fulfillment:
    with transaction.atomic():
        return Fulfillment.objects.select_for_update(nowait=True).get(pk=pk)


# -- The command ----------------------------------------------------------------------------------


def test_command_retries_all_that_failed(
    paid: Callable[..., Purchase], broken: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [paid(n) for n in range(3)]
    broken.error = CannotDeliver("nothing there")
    sweep()

    with pytest.raises(CommandError, match="3 fulfilments still fail"):
        call_command("retry_fulfillment", "--failed")
    assert capsys.readouterr().out.count("FAILED nothing there") == 3

    broken.error = None
    call_command("retry_fulfillment", str(made[1].pk))
    assert statuses() == [Status.FAILED, Status.FULFILLED, Status.FAILED]
    call_command("retry_fulfillment", "--failed", "--dry-run")
    assert statuses() == [Status.FAILED, Status.FULFILLED, Status.FAILED]
    call_command("retry_fulfillment", "--failed")
    assert statuses() == [Status.FULFILLED] * 3
    assert "total: 2 fulfilments" in capsys.readouterr().out


def test_command_fails_when_what_it_tried_fails_otherwise(
    paid: Callable[..., Purchase], broken: Broken
) -> None:
    purchase = paid()
    sweep()
    with pytest.raises(CommandError, match="1 fulfilments still fail"):
        call_command("retry_fulfillment", str(purchase.pk))


def test_command_says_what_it_was_not_told() -> None:
    with pytest.raises(CommandError, match="Name the fulfilments"):
        call_command("retry_fulfillment")
    with pytest.raises(CommandError, match="There is no fulfilment"):
        call_command("retry_fulfillment", str(uuid.uuid4()))
