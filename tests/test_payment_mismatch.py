"""A payment of another amount than was asked for: nothing moves, and staff have a way out."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from offers.models import Offer
from purchases import holds, reconciliation
from purchases.errors import PaymentMismatch
from purchases.models import Email, Purchase, Refund
from purchases.states import Status
from tests.conftest import buy, code, counters
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def offer() -> Offer:
    return OfferFactory(inventory_total=1)


@pytest.fixture
def mismatch(sandbox: Any, client_of: Any, offer: Offer) -> Purchase:
    """A hold of 50.00 whose session took 55.00, as with something that was sold along at Stripe."""
    bought = buy(client_of(UserFactory()), offer).json()
    price = {"currency": "usd", "unit_amount": 5500, "product_data": {"name": "With a sticker"}}
    session = sandbox.client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "line_items": [{"price_data": price, "quantity": 1}],
            "client_reference_id": bought["id"],
            "success_url": "http://testserver/",
        }
    )
    Purchase.objects.update(checkout_session_id=session.id)
    sandbox.act(bought["checkout_session_id"], "expire")
    sandbox.act(session.id, "pay")
    sandbox.deliver()
    return Purchase.objects.get()


def release(purchase: Purchase) -> Purchase:
    return holds.release(purchase.pk, now=timezone.now(), source="admin")


def send_back(sandbox: Any, purchase: Purchase, **part: int) -> None:
    """As staff do it in Stripe's dashboard."""
    session = sandbox.client.v1.checkout.sessions.retrieve(purchase.checkout_session_id)
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
