"""A payment of another amount than was asked for: nothing moves, and staff have a way out."""

from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from offers.models import Offer
from purchases import holds, payments, reconciliation, stripe_gateway, webhooks
from purchases.bulk import of_purchases
from purchases.errors import (
    HoldAlreadyResolved,
    HoldWasPaid,
    PaymentMismatch,
    ProviderFailed,
    ProviderTurnedAway,
)
from purchases.models import Email, Purchase, Refund, StripeEvent
from purchases.states import Status
from tests.conftest import behind, buy, code, counters, release_unasked
from tests.factories import OfferFactory, PurchaseFactory, UserFactory
from tests.test_permissions import browser_of
from tests.test_purchase_admin import page, shown_buttons, text

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def offer() -> Offer:
    return OfferFactory(inventory_total=1)


@pytest.fixture
def mismatch(sandbox: Any, client_of: Any, offer: Offer) -> Purchase:
    """A hold of 50.00 whose session took 55.00, as with something that was sold along at Stripe."""
    bought = buy(client_of(UserFactory()), offer).json()
    session_id = open_session(sandbox, bought["id"])
    Purchase.objects.update(checkout_session_id=session_id)
    sandbox.act(bought["checkout_session_id"], "expire")
    sandbox.act(session_id, "pay")
    sandbox.deliver()
    return Purchase.objects.get()


def open_session(
    sandbox: Any, purchase_id: str, *, currency: str = "usd", amount: int = 5500
) -> str:
    """A session of the purchase, past us, that takes another amount."""
    product = {"name": "With a sticker"}
    price = {"currency": currency, "unit_amount": amount, "product_data": product}
    session = sandbox.client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "line_items": [{"price_data": price, "quantity": 1}],
            "client_reference_id": purchase_id,
            "success_url": "http://testserver/",
        }
    )
    return str(session.id)


def release(purchase: Purchase) -> Purchase:
    return holds.release(purchase.pk, now=timezone.now(), source="admin")


def send_back(sandbox: Any, purchase: Purchase, session_id: str | None = None, **part: int) -> None:
    """As staff do it in Stripe's dashboard."""
    session_id = session_id or purchase.checkout_session_id
    session = sandbox.client.v1.checkout.sessions.retrieve(session_id)
    sandbox.client.v1.refunds.create({"payment_intent": session.payment_intent, **part})


def test_payment_of_another_amount_keeps_the_hold_and_says_what_to_do(
    mismatch: Purchase, offer: Offer
) -> None:
    assert (mismatch.status, counters(offer)) == (Status.AWAITING_PAYMENT, (1, 0))
    assert "took 55.00 USD" in mismatch.problem
    assert "costs 50.00 USD" in mismatch.problem
    assert "Refund all of it in Stripe's dashboard, and then release the hold." in mismatch.problem
    with pytest.raises(PaymentMismatch, match="then release"):
        release(mismatch)
    assert counters(offer) == (1, 0)


def test_it_is_alerted_once_and_stands_beside_what_else_there_is_to_look_at(
    sandbox: Any, mismatch: Purchase, caplog: Any
) -> None:
    Purchase.objects.update(problem=f"{mismatch.problem}\nAnother thing.")
    for _ in range(2):
        with pytest.raises(PaymentMismatch):
            release(mismatch)
    assert Purchase.objects.get().problem == f"{mismatch.problem}\nAnother thing."
    assert "'alert': 'payment_mismatch'" not in caplog.text
    Purchase.objects.update(problem="Another thing.")
    with pytest.raises(PaymentMismatch):
        release(mismatch)
    assert Purchase.objects.get().problem == f"Another thing.\n{mismatch.problem}"
    assert caplog.text.count("'alert': 'payment_mismatch'") == 1


def test_part_of_it_sent_back_does_not_release_the_hold(
    sandbox: Any, mismatch: Purchase, offer: Offer
) -> None:
    send_back(sandbox, mismatch, amount=5000)
    with pytest.raises(PaymentMismatch):
        release(mismatch)
    assert counters(offer) == (1, 0)
    assert not Refund.objects.exists()


def test_hold_is_released_once_all_of_it_was_sent_back(
    sandbox: Any, client_of: Any, mismatch: Purchase, offer: Offer
) -> None:
    send_back(sandbox, mismatch, amount=5000)
    send_back(sandbox, mismatch, amount=500)

    released = release(mismatch)

    assert (released.status, released.release_reason, released.problem) == ("released", "staff", "")
    assert counters(offer) == (0, 0)
    assert sorted(Refund.objects.values_list("amount", "state", "cause")) == [
        (5, "succeeded", "stripe"),
        (50, "succeeded", "stripe"),
    ]
    told = Email.objects.filter(occasion=Email.Occasion.REFUNDED, purchase=mismatch)
    assert told.count() == 2
    assert buy(client_of(UserFactory()), offer).status_code == 201


def test_what_was_released_so_stays_released_whatever_is_heard_again(
    sandbox: Any, mismatch: Purchase, offer: Offer
) -> None:
    send_back(sandbox, mismatch)
    release(mismatch)
    sandbox.deliver()
    now = timezone.now()
    run = reconciliation.Run(since=mismatch.created_at, now=now, source="command")
    assert [str(finding) for finding in reconciliation.reconcile(run)] == []
    again = Purchase.objects.get(pk=mismatch.pk)
    assert (again.status, again.problem, again.refunded_amount) == (Status.RELEASED, "", 0)
    assert (Refund.objects.count(), counters(offer)) == (1, (0, 0))


def test_buyer_and_command_end_it_no_sooner(
    sandbox: Any, client_of: Any, mismatch: Purchase, offer: Offer
) -> None:
    client = client_of(mismatch.user)
    cancel = f"/api/v1/purchases/{mismatch.pk}/cancel/"
    assert code(client.post(cancel)) == "not_cancellable"
    with pytest.raises(CommandError):
        call_command("release_inventory", "--all")
    send_back(sandbox, mismatch)
    call_command("release_inventory", "--all")
    assert counters(offer) == (0, 0)


# -- A delayed payment ----------------------------------------------------------------------------


@pytest.fixture
def delayed(sandbox: Any, client_of: Any, offer: Offer) -> Purchase:
    """50.00 by a delayed method, of which the bank said days later that it was 55.00."""
    bought = buy(client_of(UserFactory()), offer).json()
    sandbox.act(bought["checkout_session_id"], "pay_async", amount_total=5500)
    sandbox.act(bought["checkout_session_id"], "settle_async")
    sandbox.deliver()
    return Purchase.objects.get()


def work(sandbox: Any) -> None:
    """Webhooks come in, and the worker does what their answers didn't wait for."""
    sandbox.deliver()
    webhooks.process_unprocessed(now=timezone.now() + timedelta(minutes=1))


def reconcile(*, hours: float = 25, **how: Any) -> list[str]:
    """What it found and put right; events are left to ``work``."""
    now = timezone.now() + timedelta(seconds=1)
    run = reconciliation.Run(since=now - timedelta(hours=hours), now=now, source="command", **how)
    return [finding.kind for finding in reconciliation.reconcile(run) if finding.is_repaired]


def test_delayed_payment_of_another_amount_is_released_once_all_of_it_was_sent_back(
    sandbox: Any, client_of: Any, delayed: Purchase, offer: Offer
) -> None:
    assert (delayed.status, counters(offer)) == (Status.PAYMENT_PROCESSING, (1, 0))
    assert "took 55.00 USD" in delayed.problem
    assert "Refund all of it in Stripe's dashboard, and then release the hold." in delayed.problem
    send_back(sandbox, delayed, amount=5000)
    work(sandbox)
    reconcile()
    with pytest.raises(PaymentMismatch):
        release(delayed)
    assert counters(offer) == (1, 0)
    send_back(sandbox, delayed, amount=500)
    work(sandbox)
    reconcile()
    held = Purchase.objects.get()
    assert (held.status, held.problem) == (Status.PAYMENT_PROCESSING, delayed.problem)

    released = release(delayed)

    assert (released.status, released.release_reason, released.problem) == ("released", "staff", "")
    assert counters(offer) == (0, 0)
    assert buy(client_of(UserFactory()), offer).status_code == 201
    work(sandbox)
    reconcile()
    again = Purchase.objects.get(pk=delayed.pk)
    assert (again.status, again.problem) == (Status.RELEASED, "")
    assert (Refund.objects.count(), counters(offer)) == (2, (1, 0))
    with pytest.raises(HoldAlreadyResolved):
        release(delayed)


def test_delayed_payment_is_not_released_while_its_refund_is_on_its_way(
    sandbox: Any, delayed: Purchase, offer: Offer
) -> None:
    sandbox.faults(refunds="pending")
    send_back(sandbox, delayed)
    with pytest.raises(PaymentMismatch):
        release(delayed)
    (refund,) = sandbox.client.v1.refunds.list().data
    sandbox.process.control(f"refunds/{refund.id}/settle")
    sandbox.process.control(f"refunds/{refund.id}/fail")
    with pytest.raises(PaymentMismatch):
        release(delayed)
    assert counters(offer) == (1, 0)
    sandbox.faults()
    send_back(sandbox, delayed)
    assert release(delayed).status == Status.RELEASED


def test_delayed_payment_that_may_fit_yet_is_the_banks_to_decide(
    sandbox: Any, client_of: Any, offer: Offer
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    sandbox.act(bought["checkout_session_id"], "pay_async")
    work(sandbox)
    purchase = Purchase.objects.get()
    with pytest.raises(HoldAlreadyResolved):
        release(purchase)
    other = open_session(sandbox, bought["id"])
    sandbox.act(other, "pay")
    work(sandbox)
    assert other in Purchase.objects.get().problem
    with pytest.raises(HoldAlreadyResolved):
        release(purchase)
    assert counters(offer) == (1, 0)


def test_delayed_payment_that_fits_after_all_is_paid_and_not_released(
    sandbox: Any, delayed: Purchase, offer: Offer
) -> None:
    Purchase.objects.update(unit_price=55, total_price=55)
    with pytest.raises(HoldWasPaid):
        release(delayed)
    assert counters(offer) == (0, 1)


def test_who_releases_it_second_does_nothing(
    sandbox: Any, delayed: Purchase, offer: Offer, caplog: Any
) -> None:
    send_back(sandbox, delayed)
    caplog.clear()
    behind(lambda: release_unasked(str(delayed.pk)), lambda: release(delayed), is_kept=True)
    ended = Purchase.objects.get()
    assert (ended.status, ended.release_reason) == (Status.RELEASED, "expired")
    assert (ended.problem, counters(offer)) == ("", (0, 0))
    assert "payment_mismatch" not in caplog.text


def test_staff_release_it_by_the_button_which_no_other_delayed_payment_has(
    sandbox: Any, client_of: Any, delayed: Purchase, offer: Offer
) -> None:
    client = browser_of(UserFactory(is_staff=True, is_superuser=True))
    button = page(delayed, "release")
    assert shown_buttons(client, delayed) == {"release"}
    waiting = PurchaseFactory(status=Status.PAYMENT_PROCESSING)
    assert shown_buttons(client, waiting) == set()
    asked = text(client.get(button))
    assert "only if all of the payment was sent back" in asked
    assert "Ends by itself" not in asked
    assert delayed.problem in text(client.post(button, {}, follow=True))
    assert counters(offer) == (1, 0)
    send_back(sandbox, delayed)
    assert "Released: 1 ×" in text(client.post(button, {}, follow=True))
    assert counters(offer) == (0, 0)


def test_release_of_many_counts_it_with_the_holds(delayed: Purchase) -> None:
    PurchaseFactory(status=Status.PAYMENT_PROCESSING)
    said = of_purchases.about_release(Purchase.objects.all())
    assert said[0] == "1 unpaid holds will be ended, and 1 units go back on sale."
    assert said[2].startswith("1 will be refused")


def test_buyer_can_not_end_a_delayed_payment(
    sandbox: Any, client_of: Any, delayed: Purchase, offer: Offer
) -> None:
    send_back(sandbox, delayed)
    answer = client_of(delayed.user).post(f"/api/v1/purchases/{delayed.pk}/cancel/")
    assert code(answer) == "not_cancellable"
    call_command("release_inventory", "--all")
    assert counters(offer) == (1, 0)


# -- Nothing is held for it -----------------------------------------------------------------------


@pytest.fixture(params=["released", "paid", "refunded"])
def unheld(request: Any, sandbox: Any, client_of: Any, offer: Offer) -> tuple[Purchase, str]:
    """A purchase in that status, and a session of it that took 55.00 afterwards."""
    bought = buy(client_of(UserFactory()), offer).json()
    first = bought["checkout_session_id"]
    sandbox.act(first, "expire" if request.param == "released" else "pay")
    if request.param == "refunded":
        sandbox.act(first, "refund")
    other = open_session(sandbox, bought["id"])
    sandbox.act(other, "pay")
    work(sandbox)
    purchase = Purchase.objects.get()
    assert purchase.status == request.param
    return purchase, other


def test_mismatch_for_which_nothing_is_held_is_over_once_all_of_it_was_sent_back(
    sandbox: Any, unheld: tuple[Purchase, str], offer: Offer
) -> None:
    before, session_id = unheld
    stock, sent_before = counters(offer), before.refunds.count()
    assert "took 55.00 USD" in before.problem
    assert before.problem.endswith("Refund all of it in Stripe's dashboard.")
    send_back(sandbox, before, session_id, amount=5000)
    work(sandbox)
    reconcile()
    assert Purchase.objects.get().problem == before.problem

    send_back(sandbox, before, session_id, amount=500)
    work(sandbox)

    after = Purchase.objects.get()
    assert (after.status, after.problem) == (before.status, "")
    assert after.refunded_amount == before.refunded_amount
    assert counters(offer) == stock
    assert after.refunds.filter(state="succeeded").count() == sent_before + 2
    webhooks.process_unprocessed(now=timezone.now() + timedelta(hours=2))
    assert set(StripeEvent.objects.values_list("state", flat=True)) <= {"processed", "ignored"}
    assert Purchase.objects.get().problem == ""


def test_reconciliation_finds_it_however_long_ago_it_was(
    sandbox: Any, unheld: tuple[Purchase, str], offer: Offer
) -> None:
    before, session_id = unheld
    stock = counters(offer)
    send_back(sandbox, before, session_id)
    StripeEvent.objects.all().delete()
    long_ago: Any = {"hours": 0, "leave": timedelta(days=400)}
    found = "payment that doesn't fit"
    assert found not in reconcile(**long_ago, is_thorough=False)
    assert found in reconcile(**long_ago, dry_run=True)
    assert Purchase.objects.get().problem == before.problem
    assert found in reconcile(**long_ago)
    after = Purchase.objects.get()
    assert (after.status, after.problem, counters(offer)) == (before.status, "", stock)
    assert found not in reconcile(**long_ago)


def test_mismatch_is_noted_also_while_stripe_says_nothing_of_its_refunds(
    sandbox: Any, client_of: Any, offer: Offer, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    work(sandbox)
    away = Mock(side_effect=ProviderTurnedAway)
    monkeypatch.setattr(stripe_gateway, "refunds_of", away)
    sandbox.act(open_session(sandbox, bought["id"]), "pay")
    for _ in range(2):
        work(sandbox)
    assert away.called
    assert "took 55.00 USD" in Purchase.objects.get().problem
    assert caplog.text.count("'alert': 'payment_mismatch'") == 1


def test_session_has_one_note_with_what_is_to_be_done_now(
    mismatch: Purchase, offer: Offer, caplog: Any
) -> None:
    assert "then release the hold" in mismatch.problem
    release_unasked(str(mismatch.pk))
    session = stripe_gateway.retrieve_session(str(mismatch.checkout_session_id))
    with pytest.raises(PaymentMismatch):
        payments.record_session(session, now=timezone.now(), source="command")
    (note,) = Purchase.objects.get().problem.split("\n")
    assert note.endswith("Refund all of it in Stripe's dashboard.")
    assert "'alert': 'payment_mismatch'" not in caplog.text


def test_note_that_stripe_can_not_answer_for_keeps_nothing_else_from_reconciliation(
    sandbox: Any, client_of: Any, unheld: tuple[Purchase, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    # As when Stripe has forgotten the events, or they say nothing that is new.
    monkeypatch.setattr(reconciliation, "_missed_events", Mock(return_value=()))
    broken = Mock(side_effect=ProviderFailed)
    monkeypatch.setattr(payments, "settle_mismatch", broken)
    with pytest.raises(ProviderFailed):
        reconcile()
    assert broken.called
    assert Purchase.objects.get(pk=bought["id"]).status == Status.PAID


def test_late_word_of_a_payment_that_is_all_back_is_no_mismatch(
    sandbox: Any, client_of: Any, offer: Offer, caplog: Any
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    release_unasked(bought["id"])
    sandbox.act(bought["checkout_session_id"], "pay", amount_total=5500)
    sandbox.act(bought["checkout_session_id"], "refund")
    sandbox.deliver()
    assert not StripeEvent.objects.filter(state="failed").exists()
    assert sandbox.requests("GET", "/v1/refunds") == []  # no webhook's answer waits for Stripe
    work(sandbox)
    purchase = Purchase.objects.get()
    assert (purchase.status, purchase.problem) == (Status.RELEASED, "")
    assert "payment_mismatch" not in caplog.text


def test_refund_that_comes_back_after_all_is_owed_again(
    sandbox: Any, unheld: tuple[Purchase, str], offer: Offer
) -> None:
    before, session_id = unheld
    send_back(sandbox, before, session_id)
    work(sandbox)
    assert Purchase.objects.get().problem == ""
    refund = Refund.objects.get(amount=55)
    sandbox.process.control(f"refunds/{refund.stripe_refund_id}/fail")
    work(sandbox)
    reconcile()
    assert "of 55.00 USD failed" in Purchase.objects.get().problem
    send_back(sandbox, before, session_id)
    work(sandbox)
    reconcile()
    assert Purchase.objects.get().problem == ""


def test_mismatch_beside_a_hold_is_over_and_the_hold_goes_on(
    sandbox: Any, client_of: Any, offer: Offer
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    other = open_session(sandbox, bought["id"])
    sandbox.act(other, "pay")
    work(sandbox)
    purchase = Purchase.objects.get()
    assert purchase.problem.endswith("Refund all of it in Stripe's dashboard.")
    send_back(sandbox, purchase, other)
    work(sandbox)
    assert (Purchase.objects.get().problem, counters(offer)) == ("", (1, 0))
    sandbox.act(bought["checkout_session_id"], "pay")
    work(sandbox)
    assert (Purchase.objects.get().status, counters(offer)) == (Status.PAID, (0, 1))


@pytest.mark.parametrize("end", ["pay", "pay_async", "expire", "release", "cancel"])
def test_mismatch_beside_a_hold_outlasts_it_while_its_money_is_here(
    sandbox: Any, client_of: Any, offer: Offer, end: str
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    other = open_session(sandbox, bought["id"])
    sandbox.act(other, "pay")
    work(sandbox)
    before = Purchase.objects.get()
    # As after some hours: nobody tells of that payment again.
    StripeEvent.objects.update(state="dead")
    if end == "release":
        release(before)
    elif end == "cancel":
        client_of(before.user).post(f"/api/v1/purchases/{before.pk}/cancel/")
    else:
        sandbox.act(bought["checkout_session_id"], end)
    sandbox.deliver()
    after = Purchase.objects.get()
    assert after.status != before.status
    assert after.problem == before.problem
    assert other in after.problem
    send_back(sandbox, after, other)
    work(sandbox)
    assert Purchase.objects.get().problem == ""


def test_session_that_could_not_be_closed_is_no_matter_once_it_was_paid(
    sandbox: Any, client_of: Any, offer: Offer
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    release_unasked(bought["id"])
    Purchase.objects.update(problem=f"{payments.UNCLOSED}: no reason given")
    sandbox.act(bought["checkout_session_id"], "pay")
    work(sandbox)
    purchase = Purchase.objects.get()
    assert (purchase.status, purchase.problem) == (Status.PAID, "")


# -- Another currency, or nothing at all ----------------------------------------------------------


def test_payment_in_another_currency_ends_likewise_but_its_refunds_are_not_on_record(
    sandbox: Any, client_of: Any, offer: Offer
) -> None:
    """A refund's row has no currency but its purchase's."""
    bought = buy(client_of(UserFactory()), offer).json()
    first = open_session(sandbox, bought["id"], currency="eur")
    Purchase.objects.update(checkout_session_id=first)
    sandbox.act(bought["checkout_session_id"], "expire")
    second = open_session(sandbox, bought["id"], currency="jpy")
    for session_id in (first, second):
        sandbox.act(session_id, "pay")
    work(sandbox)
    purchase = Purchase.objects.get()
    assert "took 55.00 EUR" in purchase.problem
    assert "took 5500 JPY" in purchase.problem
    send_back(sandbox, purchase, second)
    with pytest.raises(PaymentMismatch):
        release(purchase)
    send_back(sandbox, purchase, first)
    released = release(purchase)
    work(sandbox)
    reconcile()
    released.refresh_from_db()
    assert (released.status, released.problem) == (Status.RELEASED, "")
    assert counters(offer) == (0, 0)
    assert not Refund.objects.exists()


def test_delayed_payment_in_another_currency_has_no_refunds_of_ours_on_record(
    sandbox: Any, client_of: Any, offer: Offer
) -> None:
    """Its payment is: so are they heard of before anybody looks."""
    bought = buy(client_of(UserFactory()), offer).json()
    session_id = open_session(sandbox, bought["id"], currency="jpy")
    Purchase.objects.update(checkout_session_id=session_id)
    sandbox.act(session_id, "pay_async")
    sandbox.act(session_id, "settle_async")
    work(sandbox)
    purchase = Purchase.objects.get()
    assert (purchase.status, bool(purchase.payment_intent_id)) == ("payment_processing", True)
    send_back(sandbox, purchase)
    work(sandbox)
    assert not Refund.objects.exists()
    assert not Email.objects.filter(occasion=Email.Occasion.REFUNDED).exists()
    assert release(purchase).status == Status.RELEASED
    assert not Refund.objects.exists()
    webhooks.process_unprocessed(now=timezone.now() + timedelta(hours=2))
    assert set(StripeEvent.objects.values_list("state", flat=True)) <= {"processed", "ignored"}


def test_session_that_took_nothing_has_nothing_to_send_back(
    sandbox: Any, client_of: Any, offer: Offer
) -> None:
    bought = buy(client_of(UserFactory()), offer).json()
    session_id = open_session(sandbox, bought["id"], amount=0)
    Purchase.objects.update(checkout_session_id=session_id)
    sandbox.act(session_id, "pay")
    work(sandbox)
    assert "took 0.00 USD" in Purchase.objects.get().problem
    assert release(Purchase.objects.get()).status == Status.RELEASED
