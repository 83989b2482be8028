"""What staff are told of refunds, and when it is taken back: a stale note sends money twice."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from offers import row_queue
from purchases import refund_notes, refunds, stripe_gateway
from purchases.errors import ProviderUnreachable
from purchases.models import Purchase, Refund
from purchases.states import Status
from tests.conftest import behind
from tests.test_refunds import Sale, pay_again, send

pytestmark = pytest.mark.django_db(transaction=True)

MISMATCH = "Session cs_test_1 took 0.01 USD, but this costs 100.00 USD."


@pytest.fixture
def sale(sandbox: Any, client_of: Any) -> Sale:
    return Sale(sandbox, client_of)


def get_stuck(sale: Sale, *, tries: int = refund_notes.STUCK_AFTER) -> None:
    sale.sandbox.faults(error_rate=1.0)
    for hours in range(1, tries + 1):
        refunds.send_due(now=timezone.now() + timedelta(hours=2 * hours))
    sale.sandbox.faults()


def sent_part(sale: Sale, amount: str) -> Refund:
    sale.ask(amount=amount)
    send()
    return Refund.objects.latest("created_at")


def fail(sale: Sale, *sent: Refund) -> None:
    """Have the bank send them back, and hear of it."""
    for refund in sent:
        sale.sandbox.process.control(f"refunds/{refund.stripe_refund_id}/fail")
        sale.sandbox.deliver()


def note(problem: str) -> None:
    Purchase.objects.update(problem=problem)


# -- Those that can't be sent ---------------------------------------------------------------------


def test_part_that_was_sent_at_last_is_no_longer_said_to_be_unsent(sale: Sale, caplog: Any) -> None:
    sale.ask(amount="10.00")
    get_stuck(sale, tries=refund_notes.STUCK_AFTER + 2)
    assert sale.purchase.problem == (
        "A refund could not be sent 10 times, it is tried on, so don't send it again: 10.00 USD."
    )
    assert [r.msg["alert"] for r in caplog.records if "alert" in r.msg] == ["refund_stuck"]
    refunds.send_due(now=timezone.now() + timedelta(hours=40))
    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.PAID, 10)
    assert purchase.problem == ""


def test_refund_of_a_second_payment_that_was_sent_at_last_is_no_longer_said_to_be_unsent(
    sale: Sale,
) -> None:
    pay_again(sale)
    sale.sandbox.deliver()
    get_stuck(sale)
    assert "don't send it again: a second payment (pi_" in sale.purchase.problem
    refunds.send_due(now=timezone.now() + timedelta(hours=40))
    assert Refund.objects.get().state == Refund.State.SUCCEEDED
    assert sale.purchase.problem == ""


def test_note_of_an_unsent_refund_as_it_was_worded_before_goes_too(sale: Sale) -> None:
    sale.ask(amount="10.00")
    note("A refund could not be sent 10 times, it is tried on: no answer.")
    send()
    assert sale.purchase.problem == ""


def test_unsent_refund_is_noted_also_when_its_tenth_try_died(sale: Sale, caplog: Any) -> None:
    sale.ask(amount="10.00")
    Refund.objects.update(attempts=refund_notes.STUCK_AFTER)
    get_stuck(sale, tries=1)
    assert "could not be sent" in sale.purchase.problem
    assert "refund_stuck" in caplog.text


@pytest.mark.parametrize("is_recorded", [True, False])
def test_failure_to_send_waits_for_who_records_the_refund_and_goes_by_what_they_left(
    sale: Sale, caplog: Any, is_recorded: bool
) -> None:
    sale.ask(amount="10.00")
    Refund.objects.update(attempts=refund_notes.STUCK_AFTER - 1)
    (claimed,) = row_queue.claim(
        refunds.due(now=timezone.now()), clock=timezone.now(), lease=refunds.LEASE, limit=1
    )
    at_stripe = stripe_gateway.create_refund(
        payment_intent_id=claimed.payment_intent_id,
        amount=1000,
        metadata={"refund": str(claimed.pk)},
        idempotency_key="lost",
    )
    behind(
        lambda: refunds.record(at_stripe, now=timezone.now(), source="webhook"),
        lambda: refunds._put_off(claimed, ProviderUnreachable(), now=timezone.now()),
        is_kept=is_recorded,
    )
    refund = Refund.objects.get()
    assert (refund.state, refund.error == "") == (
        ("succeeded", True) if is_recorded else ("requested", False)
    )
    assert (sale.purchase.problem == "") is is_recorded
    assert ("refund_stuck" not in caplog.text) is is_recorded


# -- Those that failed ----------------------------------------------------------------------------


def test_failed_part_that_was_sent_again_in_the_dashboard_is_nothing_to_look_at(
    sale: Sale,
) -> None:
    fail(sale, sent_part(sale, "10.00"))
    assert sale.purchase.problem.endswith("Ask the buyer how to pay it back, or refund again.")
    sale.dashboard(amount=1000)
    sale.sandbox.deliver()
    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.PAID, 10)
    assert purchase.problem == ""


def test_failed_part_that_was_asked_for_again_is_noted_only_if_that_fails_too(sale: Sale) -> None:
    fail(sale, sent_part(sale, "10.00"))
    again = sent_part(sale, "10.00")
    assert sale.purchase.problem == ""
    fail(sale, again)
    assert sale.purchase.problem.startswith("The refund of 10.00 USD failed: ")
    assert "still owed" not in sale.purchase.problem
    sale.dashboard(amount=1000)
    sale.sandbox.deliver()
    assert sale.purchase.problem == ""


@pytest.mark.parametrize("in_dashboard", [True, False])
def test_failed_part_of_which_less_was_sent_since_is_said_to_be_owed_in_part(
    sale: Sale, in_dashboard: bool
) -> None:
    fail(sale, sent_part(sale, "10.00"))
    if in_dashboard:
        sale.dashboard(amount=400)
        sale.sandbox.deliver()
    else:
        sent_part(sale, "4.00")
    assert "The refund of 10.00 USD failed" in sale.purchase.problem
    assert "6.00 USD is still owed" in sale.purchase.problem


def test_parts_that_failed_one_beside_the_other_are_owed_together(sale: Sale) -> None:
    fail(sale, sent_part(sale, "10.00"), sent_part(sale, "20.00"))
    assert "The refund of 20.00 USD failed" in sale.purchase.problem
    assert "30.00 USD is still owed" in sale.purchase.problem
    sent_part(sale, "20.00")
    assert "10.00 USD is still owed" in sale.purchase.problem
    sent_part(sale, "10.00")
    assert sale.purchase.problem == ""


def test_part_asked_for_beside_one_that_fails_does_not_make_up_for_it(sale: Sale) -> None:
    first = sent_part(sale, "10.00")
    sent_part(sale, "20.00")
    fail(sale, first)
    assert "The refund of 10.00 USD failed" in sale.purchase.problem


def test_refund_heard_of_before_the_failure_it_may_make_up_for_is_named_beside_it(
    sale: Sale,
) -> None:
    failed = sent_part(sale, "10.00")
    sale.sandbox.process.control(f"refunds/{failed.stripe_refund_id}/fail")
    sale.dashboard(amount=1000)
    sale.sandbox.deliver("refund.created")
    assert sale.purchase.problem == ""
    sale.sandbox.deliver()
    assert sale.purchase.problem.startswith("The refund of 10.00 USD failed: ")
    assert (
        "10.00 USD was sent after that was asked for and before its failure was heard of: see "
        "first whether it was sent instead." in sale.purchase.problem
    )


def test_no_more_is_said_to_be_owed_than_is_left_of_the_payment(sale: Sale) -> None:
    sale.ask()
    send()
    failed = Refund.objects.get()
    sale.sandbox.process.control(f"refunds/{failed.stripe_refund_id}/fail")
    sale.dashboard(amount=9000)
    sale.sandbox.deliver("refund.created")
    sale.sandbox.deliver()
    assert (sale.purchase.status, sale.purchase.refunded_amount) == (Status.REFUND_DUE, 90)
    assert "10.00 USD is still owed" in sale.purchase.problem


def test_refund_of_a_second_payment_that_was_sent_again_in_the_dashboard_is_not_owed(
    sale: Sale,
) -> None:
    pay_again(sale)
    sale.sandbox.deliver()
    send()
    refund = Refund.objects.get()
    fail(sale, refund)
    assert "Send that one back in Stripe's dashboard" in sale.purchase.problem
    sale.sandbox.client.v1.refunds.create({"payment_intent": refund.payment_intent_id})
    sale.sandbox.deliver()
    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.PAID, 0)
    assert purchase.problem == ""


# -- Beside something else ------------------------------------------------------------------------


def test_note_about_something_else_outlasts_those_about_refunds(sale: Sale) -> None:
    note(MISMATCH)
    sale.ask(amount="10.00")
    get_stuck(sale)
    assert sale.purchase.problem.startswith(f"{MISMATCH}\nA refund could not be sent")
    refunds.send_due(now=timezone.now() + timedelta(hours=40))
    assert sale.purchase.problem == MISMATCH
    fail(sale, Refund.objects.get())
    assert sale.purchase.problem.startswith(f"{MISMATCH}\nThe refund of 10.00 USD failed")
    sale.ask()
    send()
    assert (sale.purchase.status, sale.purchase.problem) == (Status.REFUNDED, MISMATCH)


def test_note_that_is_written_while_a_refund_can_not_be_sent_is_kept(sale: Sale) -> None:
    sale.ask(amount="10.00")
    Refund.objects.update(attempts=refund_notes.STUCK_AFTER - 1)
    sale.sandbox.faults(error_rate=1.0)
    behind(lambda: note(MISMATCH), send, is_kept=True)
    assert sale.purchase.problem.startswith(f"{MISMATCH}\nA refund could not be sent")


def test_note_that_is_written_while_a_refund_is_recorded_is_kept(sale: Sale) -> None:
    sale.ask(amount="10.00")
    get_stuck(sale)
    later = timezone.now() + timedelta(hours=40)
    behind(lambda: note(MISMATCH), lambda: refunds.send_due(now=later), is_kept=True)
    assert Refund.objects.get().state == Refund.State.SUCCEEDED
    assert sale.purchase.problem == MISMATCH
