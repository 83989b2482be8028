"""What webhooks missed is found at Stripe and applied by the same functions; counters likewise."""

import io
import time
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from offers import row_queue
from offers.models import Offer
from purchases import reconciliation, refunds, session_requests, stripe_gateway, tasks
from purchases.models import Purchase, Refund, StripeEvent
from purchases.states import Status
from purchases.tasks import check_inventory, reconcile
from tests.conftest import buy, counters, release_unasked
from tests.factories import OfferFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def run(*, hours: float = 72, **how: Any) -> Counter[str]:
    now = timezone.now() + timedelta(seconds=1)
    found = reconciliation.reconcile(
        reconciliation.Run(since=now - timedelta(hours=hours), now=now, source="tests", **how)
    )
    return Counter(finding.kind for finding in found)


@pytest.fixture
def bought(sandbox: Any, client_of: Any) -> Purchase:
    purchase = buy(client_of(UserFactory()), OfferFactory(inventory_total=3)).json()
    return Purchase.objects.get(pk=purchase["id"])


def act(sandbox: Any, purchase: Purchase, action: str) -> None:
    """Something happens at Stripe of which no webhook tells."""
    sandbox.act(purchase.checkout_session_id, action)


@pytest.mark.parametrize(
    ("actions", "status", "stock"),
    [
        (["pay"], Status.PAID, (0, 1)),
        (["pay_async"], Status.PAYMENT_PROCESSING, (1, 0)),
        (["pay_async", "settle_async"], Status.PAID, (0, 1)),
        (["pay_async", "fail_async"], Status.RELEASED, (0, 0)),
        (["expire"], Status.RELEASED, (0, 0)),
        (["decline"], Status.AWAITING_PAYMENT, (1, 0)),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("by", ["events", "sessions"])
def test_what_no_webhook_told_is_applied(
    sandbox: Any,
    bought: Purchase,
    monkeypatch: pytest.MonkeyPatch,
    actions: list[str],
    status: Status,
    stock: tuple[int, int],
    by: str,
) -> None:
    if by == "sessions":  # events are kept for 30 days only, and a backup may be older
        monkeypatch.setattr(reconciliation, "_missed_events", lambda run: iter(()))
    for action in actions:
        act(sandbox, bought, action)
    assert bool(run()) == (actions != ["decline"])
    bought.refresh_from_db()
    assert bought.status == status
    assert counters(bought.offer) == stock
    assert run() == Counter()


def test_dry_run_tells_and_changes_nothing(sandbox: Any, bought: Purchase) -> None:
    act(sandbox, bought, "pay")
    assert run(dry_run=True).total() == 2  # the event, and the session
    bought.refresh_from_db()
    assert bought.status == Status.AWAITING_PAYMENT
    assert not StripeEvent.objects.exists()


def test_what_happened_just_now_is_left_to_its_webhook(sandbox: Any, bought: Purchase) -> None:
    act(sandbox, bought, "pay")
    assert run(leave=timedelta(minutes=1)) == Counter()
    assert run() != Counter()


def test_event_that_was_processed_is_not_processed_again(sandbox: Any, bought: Purchase) -> None:
    act(sandbox, bought, "pay")
    sandbox.deliver()
    assert run() == Counter()


def test_delayed_payment_that_settled_after_days_is_found_however_old_its_session(
    sandbox: Any, bought: Purchase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "_missed_events", lambda run: iter(()))
    act(sandbox, bought, "pay_async")
    sandbox.deliver()
    act(sandbox, bought, "settle_async")
    assert run(hours=0.01)["session that differs"] == 1
    bought.refresh_from_db()
    assert bought.status == Status.PAID


def test_delayed_payments_are_all_asked_about_in_time_though_a_run_gets_to_one_only(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = timezone.now() - timedelta(days=4)
    purchases = PurchaseFactory.create_batch(2, status=Status.PAYMENT_PROCESSING, created_at=old)
    asked: list[str] = []
    monkeypatch.setattr(
        stripe_gateway, "retrieve_session", lambda session: asked.append(session) or not_settled
    )
    not_settled = SimpleNamespace(
        is_open=False, is_paid=False, status="complete", payment_failed=False
    )
    for number in range(1, 31):  # once in 2 ** 29 it would be the same one each time
        assert not run(until=0)
        assert len(asked) == number
    assert set(asked) == {purchase.checkout_session_id for purchase in purchases}


def test_session_without_a_hold_is_expired(sandbox: Any, bought: Purchase) -> None:
    """The purchase is released here, but its session can still be paid."""
    release_unasked(str(bought.pk))
    assert run() == Counter({"session without a hold": 1})
    assert [session["status"] for session in sandbox.sessions()] == ["expired"]
    assert run() == Counter({"missed event": 1})  # Stripe tells of the end that we made
    assert run() == Counter()


def test_session_whose_purchase_is_gone_is_expired_and_a_paid_one_is_an_alert(
    sandbox: Any, client_of: Any, caplog: Any
) -> None:
    """As after a restored backup: Stripe knows more than we do."""
    offer = OfferFactory()
    first, second = (buy(client_of(UserFactory()), offer).json() for _ in range(2))
    sandbox.act(second["checkout_session_id"], "pay")
    Purchase.objects.all().delete()
    Offer.objects.update(inventory_reserved=0)
    assert run()["session without a hold"] == 2
    states = {session["id"]: session["status"] for session in sandbox.sessions()}
    assert states[first["checkout_session_id"]] == "expired"
    assert "payment_without_purchase" in caplog.text


def test_session_of_another_installation_is_left_alone(sandbox: Any, bought: Purchase) -> None:
    offer = bought.offer
    Purchase.objects.all().delete()
    offer.delete()
    assert run() == Counter()
    assert [session["status"] for session in sandbox.sessions()] == ["open"]


def test_hold_whose_request_died_gets_its_session(sandbox: Any, bought: Purchase) -> None:
    """The same session, since Stripe is asked the same with the same key."""
    request = session_requests.session_request(bought, bought.offer, "http://testserver")
    Purchase.objects.update(
        status=Status.RESERVED,
        checkout_session_id=None,
        checkout_request=request,
        created_at=timezone.now() - timedelta(minutes=3),
    )
    assert run() == Counter({"hold without a session": 1})
    purchase = Purchase.objects.get()
    assert purchase.status == Status.AWAITING_PAYMENT
    assert purchase.checkout_session_id is not None


def test_refund_in_the_dashboard_that_nobody_told_of_is_found(
    sandbox: Any, bought: Purchase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "_missed_events", lambda run: iter(()))
    act(sandbox, bought, "pay")
    sandbox.deliver()
    sandbox.act(bought.checkout_session_id, "refund")
    assert run() == Counter({"missed refund": 1})
    bought.refresh_from_db()
    assert bought.status == Status.REFUNDED
    assert run() == Counter()


def test_pending_refund_whose_end_nobody_told_of_is_asked_after(
    sandbox: Any, bought: Purchase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "_missed_events", lambda run: iter(()))
    act(sandbox, bought, "pay")
    sandbox.deliver()
    sandbox.faults(refunds="pending")
    refund = sandbox.act(bought.checkout_session_id, "refund")
    run()
    assert Refund.objects.get().state == Refund.State.PENDING
    sandbox.process.control(f"refunds/{refund['id']}/settle")
    assert refunds.send_due(now=timezone.now() + timedelta(hours=2)) == 1
    bought.refresh_from_db()
    assert bought.status == Status.REFUNDED


def test_payment_that_does_not_fit_is_reported_and_the_others_go_on(
    sandbox: Any, client_of: Any, bought: Purchase
) -> None:
    other = buy(client_of(UserFactory()), OfferFactory()).json()
    Purchase.objects.filter(pk=bought.pk).update(quantity=2, total_price=100)
    Offer.objects.filter(pk=bought.offer_id).update(inventory_reserved=2)
    act(sandbox, bought, "pay")
    sandbox.act(other["checkout_session_id"], "pay")
    run()
    bought.refresh_from_db()
    assert bought.status == Status.AWAITING_PAYMENT
    assert "costs 100.00 USD" in bought.problem
    assert Purchase.objects.get(pk=other["id"]).status == Status.PAID


def test_purchase_that_stripe_refuses_does_not_keep_the_others_waiting(
    sandbox: Any, client_of: Any, bought: Purchase
) -> None:
    old = PurchaseFactory(
        status=Status.PAYMENT_PROCESSING, created_at=timezone.now() - timedelta(days=5)
    )
    act(sandbox, bought, "pay")
    sandbox.deliver()
    sandbox.act(bought.checkout_session_id, "refund")
    found = list(
        reconciliation.reconcile(
            reconciliation.Run(
                since=timezone.now() - timedelta(days=3),
                now=timezone.now() + timedelta(seconds=1),
                source="tests",
            )
        )
    )
    assert [str(old.pk) in str(finding) for finding in found if not finding.is_repaired] == [True]
    bought.refresh_from_db()
    assert bought.status == Status.REFUNDED


def test_hold_whose_request_is_still_at_it_is_left_alone(sandbox: Any) -> None:
    PurchaseFactory()
    assert run() == Counter()
    assert sandbox.requests("POST", "/v1/checkout/sessions") == []


def test_sweep_goes_on_another_time_when_stripe_is_away(
    sandbox: Any, bought: Purchase, time_machine: Any
) -> None:
    act(sandbox, bought, "pay")
    time_machine.move_to(timezone.now() + timedelta(minutes=3))
    sandbox.faults(error_rate=1.0)
    assert reconcile() == 0
    sandbox.faults()
    assert reconcile() == 1
    assert Purchase.objects.get().status == Status.PAID


# -- The commands ---------------------------------------------------------------------------------


def command(name: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def test_command_prints_each_finding_and_a_total(sandbox: Any, bought: Purchase) -> None:
    act(sandbox, bought, "pay")
    assert "would be processed" in command("reconcile_stripe", "--dry-run")
    said = command("reconcile_stripe", "--since", "24")
    assert "missed event: checkout.session.completed" in said
    assert "total: 1 findings: 1 x missed event" in said
    assert "total: 0 findings" in command("reconcile_stripe")


def test_command_fails_when_stripe_is_away(sandbox: Any) -> None:
    sandbox.faults(error_rate=1.0)
    with pytest.raises(CommandError, match="can't be asked"):
        command("reconcile_stripe")


@pytest.mark.parametrize("since", ["0", "-1", "721", "soon", "nan"])
def test_command_refuses_a_time_that_makes_no_sense(since: str) -> None:
    with pytest.raises(CommandError, match="number of hours"):
        command("reconcile_stripe", f"--since={since}")


def test_counters_that_differ_are_an_alert_and_exit_code_1_until_repaired(caplog: Any) -> None:
    purchase = PurchaseFactory(status=Status.PAID, quantity=2)
    PurchaseFactory(offer=purchase.offer, quantity=3)
    Offer.objects.update(inventory_sold=7, inventory_reserved=0)
    for arguments in ([], ["--repair", "--dry-run"]):
        with pytest.raises(CommandError, match="1 offers differ"):
            command("check_inventory", *arguments)
    assert check_inventory() == 1
    assert "inventory_differs" in caplog.text
    assert "repaired: reserved 3, sold 2" in command("check_inventory", "--repair")
    assert "equal" in command("check_inventory")
    assert counters(purchase.offer) == (3, 2)


def test_offer_that_is_oversold_is_left_to_people() -> None:
    purchase = PurchaseFactory(status=Status.PAID, quantity=2)
    Offer.objects.update(inventory_sold=1, inventory_total=1)
    with pytest.raises(CommandError, match="1 offers differ"):
        command("check_inventory", "--repair")
    purchase.offer.refresh_from_db()
    assert purchase.offer.inventory_sold == 1


@pytest.mark.parametrize("in_beat", [False, True])
def test_run_in_beats_own_process_takes_no_longer_than_a_sweep(
    monkeypatch: pytest.MonkeyPatch, in_beat: bool
) -> None:
    runs: list[reconciliation.Run] = []

    def note(run: reconciliation.Run) -> list[Any]:
        runs.append(run)
        return []

    monkeypatch.setattr(reconciliation, "reconcile", note)
    began = time.monotonic()
    if in_beat:
        reconcile.apply()
    else:
        reconcile()
    longest = row_queue.SWEEP_SECONDS if in_beat else tasks.RECONCILE_SECONDS
    assert began + longest <= runs[0].until <= time.monotonic() + longest
