"""Disputes: on record with their purchase and deadline, whatever the order of the news."""

from itertools import permutations
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from purchases import refunds, webhooks, wording
from purchases.models import Dispute, Purchase, StripeEvent
from purchases.states import Status
from tests.conftest import buy, code, counters, receive
from tests.factories import MembershipFactory, OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = "charge.dispute.created"
WITHDRAWN = "charge.dispute.funds_withdrawn"
CLOSED = "charge.dispute.closed"
REINSTATED = "charge.dispute.funds_reinstated"


@pytest.fixture
def paid(sandbox: Any, client_of: Any) -> Purchase:
    bought = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    sandbox.deliver()
    return Purchase.objects.get(pk=bought["id"])


def dispute(sandbox: Any, purchase: Purchase) -> dict[str, Any]:
    sandbox.act(purchase.checkout_session_id, "dispute")
    return sandbox.events(CREATED)[0]["data"]["object"]


def close(sandbox: Any, opened: dict[str, Any], *, won: bool) -> None:
    sandbox.process.control(f"disputes/{opened['id']}/close", {"status": "won" if won else "lost"})


def test_dispute_is_recorded_with_its_deadline_and_staff_are_told(
    sandbox: Any, paid: Purchase, caplog: Any
) -> None:
    opened = dispute(sandbox, paid)
    sandbox.deliver()

    recorded = Dispute.objects.get()
    assert (recorded.purchase, recorded.amount, recorded.is_open) == (paid, 50, True)
    due_by = opened["evidence_details"]["due_by"]
    assert int(recorded.evidence_due_by.timestamp()) == due_by
    assert recorded.funds_withdrawn_at is not None
    assert "'alert': 'dispute'" in caplog.text
    paid.refresh_from_db()
    assert paid.status == Status.PAID
    assert counters(paid.offer) == (0, 1)


def test_staff_see_the_dispute_in_admin(sandbox: Any, paid: Purchase, client: Any) -> None:
    opened = dispute(sandbox, paid)
    sandbox.deliver()
    client.force_login(User.objects.create_superuser("boss"))
    for page in (
        "/admin/purchases/dispute/",
        wording.page(Dispute.objects.get()),
        wording.page(paid),
    ):
        answer = client.get(page)
        assert answer.status_code == 200
        assert opened["id"] in answer.content.decode()


@pytest.mark.parametrize("won", [True, False], ids=["won", "lost"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_order_of_the_news_does_not_matter(
    sandbox: Any, paid: Purchase, won: bool, order: tuple[int, ...]
) -> None:
    close(sandbox, dispute(sandbox, paid), won=won)
    news = sandbox.events(CREATED, WITHDRAWN, CLOSED)
    for number in order:
        receive(news[number])
    if won:
        receive(sandbox.events(REINSTATED)[0])
    recorded = Dispute.objects.get()
    assert (recorded.status, recorded.is_open) == ("won" if won else "lost", False)
    assert recorded.funds_withdrawn_at is not None
    assert (recorded.funds_reinstated_at is not None) == won


def test_disputed_payment_is_not_refunded(sandbox: Any, paid: Purchase, client_of: Any) -> None:
    """The bank has the money already: it would go back twice."""
    opened = dispute(sandbox, paid)
    sandbox.deliver()
    owner = MembershipFactory(organization=paid.event.organization).user
    url = f"/api/v1/purchases/{paid.pk}/refund/"
    answer = client_of(owner).post(url, {})
    assert (answer.status_code, code(answer)) == (409, "not_refundable")
    assert "disputed" in answer.json()["errors"][0]["detail"]

    close(sandbox, opened, won=True)
    sandbox.deliver()
    assert client_of(owner).post(url, {}).status_code == 202
    assert refunds.send_due(now=timezone.now()) == 1


def test_inquiry_can_be_refunded_before_it_becomes_a_dispute(
    sandbox: Any, paid: Purchase, client_of: Any
) -> None:
    dispute(sandbox, paid)
    [event] = sandbox.events(CREATED)
    event["data"]["object"]["status"] = "warning_needs_response"
    receive(event)
    owner = MembershipFactory(organization=paid.event.organization).user
    assert client_of(owner).post(f"/api/v1/purchases/{paid.pk}/refund/", {}).status_code == 202


def test_dispute_of_a_payment_that_we_have_not_heard_of_waits_for_it(
    sandbox: Any, client_of: Any
) -> None:
    bought = buy(client_of(UserFactory()), OfferFactory()).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    sandbox.act(bought["checkout_session_id"], "dispute")
    receive(sandbox.events(CREATED)[0])
    assert not Dispute.objects.exists()
    assert webhooks.process_unprocessed(now=timezone.now()) == 1
    assert Dispute.objects.get().purchase.status == Status.PAID


def test_dispute_of_somebody_elses_payment_is_left_alone(sandbox: Any, paid: Purchase) -> None:
    dispute(sandbox, paid)
    [event] = sandbox.events(CREATED)
    event["data"]["object"]["payment_intent"] = "pi_other"
    receive(event)
    webhooks.process_unprocessed(now=timezone.now())
    assert StripeEvent.objects.get(pk=event["id"]).state == StripeEvent.State.IGNORED
    assert not Dispute.objects.exists()
