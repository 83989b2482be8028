"""Refunds: by staff, for late and second payments, and as Stripe tells of them."""

import socket
import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail as outbox
from django.utils import timezone

from offers.models import Membership, Offer
from purchases import mail, reconciliation, refund_notes, refunds, stripe_gateway, webhooks
from purchases.errors import ProviderUnreachable
from purchases.models import Email, Purchase, Refund, StripeEvent
from purchases.states import Status
from tests.conftest import at_once, buy, code, counters, end_pause, receive, release_unasked
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


class Sale:
    """An offer of which one purchase was paid through the sandbox, and who works there."""

    def __init__(self, sandbox: Any, client_of: Any, **offer: Any) -> None:
        self.sandbox = sandbox
        self.client_of = client_of
        self.offer: Offer = OfferFactory(**offer)
        self.buyer = UserFactory(email="buyer@example.com")
        bought = buy(client_of(self.buyer), self.offer, 2).json()
        self.session_id = bought["checkout_session_id"]
        self.id = bought["id"]
        if self.session_id:
            sandbox.act(self.session_id, "pay")
            sandbox.deliver()

    def member(self, role: Any = Membership.Role.OWNER) -> Any:
        return MembershipFactory(organization=self.offer.event.organization, role=role).user

    def ask(self, user: Any = None, key: str | None = None, **body: Any) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self.client_of(user or self.member()).post(
            f"/api/v1/purchases/{self.id}/refund/", body, headers=headers
        )

    def dashboard(self, **body: Any) -> Any:
        """A refund made in Stripe's own dashboard: it carries nothing of ours."""
        return self.sandbox.client.v1.refunds.create(
            {"payment_intent": self.purchase.payment_intent_id, **body}
        )

    @property
    def purchase(self) -> Purchase:
        return Purchase.objects.get(pk=self.id)

    def at_stripe(self) -> list[tuple[int, str]]:
        listed = self.sandbox.client.v1.refunds.list()
        return [(refund.amount, refund.status) for refund in listed.data]


@pytest.fixture
def sale(sandbox: Any, client_of: Any) -> Sale:
    return Sale(sandbox, client_of)


def send() -> int:
    return refunds.send_due(now=timezone.now())


# -- Asked for by staff ---------------------------------------------------------------------------


def test_full_refund_is_refunding_until_stripe_confirms_and_puts_the_units_back(sale: Sale) -> None:
    answer = sale.ask(reason="They can't come.")

    assert (answer.status_code, answer.json()["status"]) == (202, "refunding")
    assert counters(sale.offer) == (0, 2)  # sold until Stripe confirms
    assert send() == 1
    assert sale.at_stripe() == [(10000, "succeeded")]
    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.REFUNDED, 100)
    assert purchase.refunded_at is not None
    assert counters(sale.offer) == (0, 0)
    assert purchase.transitions.get(name="request_refund").reason == "They can't come."


def test_refund_without_restocking_shrinks_the_total(sale: Sale) -> None:
    sale.ask(restock=False)
    send()
    assert sale.purchase.status == Status.REFUNDED
    assert counters(sale.offer) == (0, 0)
    assert sale.offer.inventory_total == 8


def test_refund_without_restocking_leaves_an_unlimited_offer_unlimited(
    sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of, inventory_total=None)
    sale.ask(restock=False)
    send()
    assert counters(sale.offer) == (0, 0)
    assert sale.offer.inventory_total is None


def test_partial_refund_leaves_the_purchase_paid_with_its_units(sale: Sale) -> None:
    answer = sale.ask(amount="10.00")
    assert (answer.status_code, answer.json()["status"]) == (202, "paid")
    send()
    assert sale.at_stripe() == [(1000, "succeeded")]
    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.PAID, 10)
    assert counters(sale.offer) == (0, 2)


def test_rest_after_a_partial_refund_completes_it(sale: Sale) -> None:
    sale.ask(amount="10.00")
    send()
    answer = sale.ask()
    assert answer.json()["status"] == "refunding"
    send()
    assert sorted(amount for amount, _ in sale.at_stripe()) == [1000, 9000]
    assert (sale.purchase.status, sale.purchase.refunded_amount) == (Status.REFUNDED, 100)
    assert counters(sale.offer) == (0, 0)


def test_parts_that_add_up_are_a_full_refund_in_whatever_order_they_are_sent(sale: Sale) -> None:
    sale.ask(amount="40.00")
    assert sale.ask(amount="60.00").json()["status"] == "refunding"
    first = Refund.objects.earliest("created_at")
    Refund.objects.filter(pk=first.pk).update(due_at=timezone.now() + timedelta(minutes=5))
    send()
    assert sale.purchase.status == Status.REFUNDING
    assert refunds.send_due(now=timezone.now() + timedelta(minutes=6)) == 1
    assert sale.purchase.status == Status.REFUNDED
    assert counters(sale.offer) == (0, 0)


@pytest.mark.parametrize("amount", [None, "10.00", "100.00"])
def test_same_refund_twice_is_one(sale: Sale, amount: str | None) -> None:
    body = {} if amount is None else {"amount": amount}
    for _ in range(3):
        assert sale.ask(**body).status_code == 202
        send()
    assert len(sale.at_stripe()) == 1
    assert Refund.objects.count() == 1


def test_same_refund_from_ten_clicks_at_once_is_one(sale: Sale) -> None:
    owner = sale.member()
    barrier = threading.Barrier(10)

    def click() -> int:
        barrier.wait()
        return sale.ask(owner, amount="30.00").status_code

    assert at_once([click] * 10) == [202] * 10
    at_once([send] * 4)
    assert sale.at_stripe() == [(3000, "succeeded")]
    assert sale.purchase.refunded_amount == 30


def test_idempotency_key_tells_two_equal_parts_apart(sale: Sale) -> None:
    for key in ("a", "a", "b"):
        assert sale.ask(key=key, amount="10.00").status_code == 202
    send()
    assert len(sale.at_stripe()) == 2
    for other in ({"amount": "11.00"}, {}, {"amount": "10.00", "restock": False}):
        again = sale.ask(key="a", **other)
        assert (again.status_code, code(again)) == (422, "idempotency_key_reused")


def test_repetition_says_that_it_is_one(sale: Sale) -> None:
    assert "Idempotent-Replayed" not in sale.ask().headers
    assert sale.ask().headers["Idempotent-Replayed"] == "true"


def test_other_wish_for_the_units_of_a_full_refund_is_refused(sale: Sale) -> None:
    sale.ask()
    answer = sale.ask(restock=False)
    assert (answer.status_code, code(answer)) == (409, "not_refundable")


def test_misspelled_field_does_not_send_everything_back(sale: Sale) -> None:
    answer = sale.ask(ammount="1.00")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["attr"] == "ammount"
    assert sale.purchase.status == Status.PAID


@pytest.mark.parametrize(
    "amount",
    ["0", "-1", "100.01", "0.001", "1e9", "1e1", "1_0", "٥", "NaN", "much", True, "", " ", None],
)
def test_amount_that_can_not_be_sent_back_is_an_error_beside_its_field(
    sale: Sale, amount: Any
) -> None:
    answer = sale.ask(amount=amount)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["attr"] == "amount"
    assert not Refund.objects.exists()


def test_more_than_is_left_while_a_part_is_on_its_way_is_refused(sale: Sale) -> None:
    sale.ask(amount="60.00")
    answer = sale.ask(amount="50.00")
    assert answer.status_code == 400
    assert "at most 40.00 USD" in answer.json()["errors"][0]["detail"]


def test_free_purchase_is_refunded_at_once_and_nobody_asks_stripe(
    sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of, price=Decimal(0))
    assert sale.ask(amount="1.00").status_code == 400
    assert sale.ask().json()["status"] == "refunded"
    assert counters(sale.offer) == (0, 0)
    assert sandbox.requests("POST", "/v1/refunds") == []


def test_yen_are_sent_back_in_yen(sandbox: Any, client_of: Any) -> None:
    sale = Sale(sandbox, client_of, price=Decimal(500), currency="JPY")
    assert sale.ask(amount="1.50").status_code == 400
    assert sale.ask(amount="300").status_code == 202
    send()
    assert sale.at_stripe() == [(300, "succeeded")]
    assert (
        sale.client_of(sale.buyer).get(f"/api/v1/purchases/{sale.id}/").json()["refunded_amount"]
        == "300"
    )


@pytest.mark.parametrize(
    "status",
    [Status.RESERVED, Status.AWAITING_PAYMENT, Status.PAYMENT_PROCESSING, Status.RELEASED],
)
def test_purchase_that_nobody_paid_is_not_refundable(client_of: Any, status: Status) -> None:
    purchase = PurchaseFactory(status=status)
    owner = MembershipFactory(organization=purchase.event.organization).user
    answer = client_of(owner).post(f"/api/v1/purchases/{purchase.pk}/refund/", {})
    assert (answer.status_code, code(answer)) == (409, "not_refundable")


def test_purchase_without_a_payment_on_record_is_not_refundable(client_of: Any) -> None:
    purchase = PurchaseFactory(status=Status.PAID)
    Purchase.objects.update(payment_intent_id="")
    owner = MembershipFactory(organization=purchase.event.organization).user
    answer = client_of(owner).post(f"/api/v1/purchases/{purchase.pk}/refund/", {})
    assert (answer.status_code, code(answer)) == (409, "not_refundable")


@pytest.mark.parametrize("role", list(Membership.Role))
def test_owners_and_managers_refund_and_support_does_not(sale: Sale, role: Any) -> None:
    answer = sale.ask(sale.member(role))
    if role == Membership.Role.SUPPORT:
        assert (answer.status_code, code(answer)) == (403, "permission_denied")
    else:
        assert answer.status_code == 202


def test_buyer_is_told_no_and_a_stranger_nothing(sale: Sale) -> None:
    assert sale.ask(sale.buyer).status_code == 403
    for stranger in (UserFactory(), MembershipFactory().user):
        answer = sale.ask(stranger)
        assert (answer.status_code, code(answer)) == (404, "not_found")
    assert sale.purchase.status == Status.PAID


# -- In admin -------------------------------------------------------------------------------------


def test_staff_refund_in_admin_and_are_asked_first(sale: Sale, client: Any) -> None:
    client.force_login(User.objects.create_superuser("boss"))
    page = f"/admin/purchases/purchase/{sale.id}/"
    button = f'href="{page}refund/"'.encode()
    assert button in client.get(f"{page}change/").content
    assert b"Send the money back" in client.get(f"{page}refund/").content
    assert sale.purchase.status == Status.PAID

    wrong = client.post(f"{page}refund/", {"amount": "1000"})
    assert b"at most 100.00 USD" in wrong.content

    sent = client.post(f"{page}refund/", {"reason": "Event moved"}, follow=True)  # not restocked
    assert b"Asked for: the purchase is refunding now" in sent.content
    send()
    assert sale.purchase.status == Status.REFUNDED
    assert counters(sale.offer) == (0, 0)
    assert sale.offer.inventory_total == 8
    assert sale.purchase.transitions.get(name="request_refund").source == "admin"
    assert button not in client.get(f"{page}change/").content


def test_staff_without_a_role_can_not_refund_in_admin(sale: Sale, client: Any) -> None:
    client.force_login(UserFactory(is_staff=True))
    answer = client.post(f"/admin/purchases/purchase/{sale.id}/refund/", {})
    assert answer.status_code in (403, 404)
    assert sale.purchase.status == Status.PAID


# -- Stripe in trouble ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"error_rate": 1.0, "error_status": 500},
        {"error_rate": 1.0, "error_status": 429},
        {"drop_rate": 1.0},
    ],
    ids=["500", "429", "lost answer"],
)
def test_refund_whose_answer_was_lost_is_sent_once(sale: Sale, fault: dict[str, Any]) -> None:
    sale.ask()
    sale.sandbox.faults(**fault)
    assert send() == 0
    assert sale.purchase.status == Status.REFUNDING
    sale.sandbox.faults()
    end_pause()
    assert send() == 0  # put off for some seconds
    assert refunds.send_due(now=timezone.now() + timedelta(minutes=1)) == 1
    assert sale.at_stripe() == [(10000, "succeeded")]
    assert sale.purchase.status == Status.REFUNDED


def test_refund_that_stripe_did_in_spite_of_a_500_is_found_and_not_done_again(
    sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    from purchases.errors import ProviderFailed

    create = stripe_gateway.create_refund

    def done_but_failed(**asked: Any) -> Any:
        create(**asked)
        raise ProviderFailed

    sale.ask(amount="10.00")
    with monkeypatch.context() as patch:
        patch.setattr(stripe_gateway, "create_refund", done_but_failed)
        send()
    assert refunds.send_due(now=timezone.now() + timedelta(minutes=1)) == 1
    assert sale.at_stripe() == [(1000, "succeeded")]
    assert sale.purchase.refunded_amount == 10


def test_refund_that_stripe_refuses_goes_back_to_paid_where_staff_see_it(
    sale: Sale, caplog: Any
) -> None:
    sale.ask()
    sale.sandbox.act(sale.session_id, "dispute")
    assert send() == 1
    purchase = sale.purchase
    assert purchase.status == Status.PAID
    assert "charge_disputed" in purchase.problem
    assert "refund_failed" in caplog.text
    assert counters(sale.offer) == (0, 2)


def test_refund_that_fails_days_after_stripe_confirmed_it_is_owed_again(
    sale: Sale, caplog: Any
) -> None:
    sale.ask()
    send()
    refund_id = Refund.objects.get().stripe_refund_id
    sale.sandbox.process.control(f"refunds/{refund_id}/fail")
    sale.sandbox.deliver()

    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.REFUND_DUE, 0)
    assert purchase.problem
    assert "refund_failed" in caplog.text
    assert counters(sale.offer) == (0, 0)
    assert send() == 0  # a failed one isn't repeated by a program

    assert sale.ask().status_code == 202  # staff try again, with the buyer's new card say
    assert send() == 1
    assert (sale.purchase.status, sale.purchase.problem) == (Status.REFUNDED, "")


# -- As seen from Stripe --------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
def test_full_refund_in_stripes_dashboard_is_recorded(sale: Sale, backwards: bool) -> None:
    sale.dashboard()
    events = sale.sandbox.events("refund.created", "refund.updated", "charge.refunded")
    for event in reversed(events) if backwards else events:
        receive(event)
        receive(event)
    webhooks.process_unprocessed(now=timezone.now())
    assert (sale.purchase.status, sale.purchase.refunded_amount) == (Status.REFUNDED, 100)
    assert Refund.objects.get().cause == Refund.Cause.STRIPE
    assert counters(sale.offer) == (0, 0)


def test_partial_refunds_in_the_dashboard_add_up(sale: Sale) -> None:
    for amount in (1000, 2000):
        sale.dashboard(amount=amount)
    sale.sandbox.deliver()
    assert (sale.purchase.status, sale.purchase.refunded_amount) == (Status.PAID, 30)
    sale.dashboard()
    sale.sandbox.deliver()
    assert sale.purchase.status == Status.REFUNDED


def test_charge_refunded_alone_is_enough(sale: Sale) -> None:
    """The refund's own events were lost: what was refunded is asked at Stripe, by the worker."""
    sale.dashboard(amount=1500)
    [event] = sale.sandbox.events("charge.refunded")
    receive(event)
    assert StripeEvent.objects.get(pk=event["id"]).state == StripeEvent.State.STORED
    assert webhooks.process_unprocessed(now=timezone.now()) == 1
    assert sale.purchase.refunded_amount == 15


def test_dashboard_refund_while_ours_is_on_its_way_is_not_doubled(sale: Sale) -> None:
    sale.ask()
    sale.dashboard()
    assert send() == 1
    assert sale.at_stripe() == [(10000, "succeeded")]
    assert (sale.purchase.status, sale.purchase.problem) == (Status.REFUNDED, "")
    assert counters(sale.offer) == (0, 0)


def test_refund_that_overtakes_the_news_of_its_payment_is_recorded_after_it(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    [paid] = sandbox.events("checkout.session.completed")
    sandbox.client.v1.refunds.create({"payment_intent": paid["data"]["object"]["payment_intent"]})
    [refunded] = sandbox.events("refund.created")
    receive(refunded)
    assert Purchase.objects.get().status == Status.AWAITING_PAYMENT
    webhooks.process_unprocessed(now=timezone.now())
    assert Purchase.objects.get().status == Status.REFUNDED
    receive(paid)
    assert Purchase.objects.get().status == Status.REFUNDED
    assert counters(offer) == (0, 0)


def test_refund_of_somebody_elses_payment_is_stored_and_left_alone(sale: Sale) -> None:
    sale.dashboard()
    [event] = sale.sandbox.events("refund.created")
    event["data"]["object"] |= {"payment_intent": "pi_other", "id": "re_other"}
    event["id"] = "evt_other"
    receive(event)
    webhooks.process_unprocessed(now=timezone.now())
    assert StripeEvent.objects.get(pk="evt_other").state == StripeEvent.State.IGNORED
    assert sale.purchase.status == Status.PAID


def test_refund_of_a_purchase_whose_units_were_sold_again_takes_nothing_twice(
    sale: Sale, client_of: Any
) -> None:
    sale.ask()
    send()
    for _ in range(5):
        PurchaseFactory(offer=sale.offer, quantity=2, status=Status.PAID)
    assert counters(sale.offer) == (0, 10)
    sale.sandbox.deliver()
    assert counters(sale.offer) == (0, 10)


# -- Late and second payments ---------------------------------------------------------------------


def late(sandbox: Any, client_of: Any, **pay: Any) -> tuple[Purchase, Offer]:
    """The last unit, paid although its hold had ended, and sold to somebody else since."""
    offer = OfferFactory(inventory_total=1)
    purchase = buy(client_of(UserFactory(email="late@example.com")), offer).json()
    release_unasked(purchase["id"])
    buy(client_of(UserFactory()), offer)
    sandbox.act(purchase["checkout_session_id"], "pay", **pay)
    sandbox.deliver()
    return Purchase.objects.get(pk=purchase["id"]), offer


def test_late_payment_with_nothing_left_is_sent_back_and_the_buyer_is_told(
    sandbox: Any, client_of: Any
) -> None:
    purchase, offer = late(sandbox, client_of, created=int(timezone.now().timestamp()) + 1200)
    assert purchase.status == Status.REFUND_DUE
    assert send() == 1
    assert [mail.send_due(now=timezone.now()) for _ in range(2)] == [2, 0]
    purchase.refresh_from_db()
    assert purchase.status == Status.REFUNDED
    assert counters(offer) == (1, 0)
    first, second = outbox.outbox
    assert first.to == second.to == ["late@example.com"]
    assert "on its way back" in first.subject
    assert "$50.00" in first.body
    assert second.subject.startswith("Refunded: $50.00")


def test_lateness_is_judged_by_the_time_of_payment_and_not_of_the_webhook(
    sandbox: Any, client_of: Any
) -> None:
    purchase, _ = late(sandbox, client_of)
    assert purchase.transitions.last().reason.startswith("Paid in time")
    mail.send_due(now=timezone.now())
    assert "was made in time" in outbox.outbox[0].body


def test_webhook_hours_after_a_payment_in_time_finds_its_units(
    sandbox: Any, client_of: Any
) -> None:
    """The hold is long over by our clock, but it was never ended, since it was paid."""
    offer = OfferFactory(inventory_total=1)
    purchase = buy(client_of(UserFactory()), offer).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    Purchase.objects.update(reserved_until=timezone.now() - timedelta(hours=5))
    sandbox.deliver()
    assert Purchase.objects.get().status == Status.PAID
    assert counters(offer) == (0, 1)


def test_time_of_payment_is_stripes(sandbox: Any, client_of: Any) -> None:
    purchase = buy(client_of(UserFactory()), OfferFactory()).json()
    paid_at = int(timezone.now().timestamp()) - 7
    sandbox.act(purchase["checkout_session_id"], "pay", created=paid_at)
    sandbox.deliver()
    assert int(Purchase.objects.get().paid_at.timestamp()) == paid_at


def test_mail_server_that_is_away_delays_the_message_and_nothing_else(
    sandbox: Any, client_of: Any, settings: Any
) -> None:
    late(sandbox, client_of)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    assert mail.send_due(now=timezone.now()) == 0
    email = Email.objects.get()
    assert (email.state, email.attempts) == (Email.State.WAITING, 1)
    assert "refused" in email.error
    assert send() == 1
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert mail.send_due(now=timezone.now() + timedelta(minutes=1)) == 2


def pay_again(sale: Sale) -> str:
    """Open a second session of the purchase past us, and pay it."""
    stray = sale.sandbox.client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "line_items": [
                {
                    "price_data": {
                        "currency": "usd", "unit_amount": 5000, "product_data": {"name": "x"},
                    },
                    "quantity": 2,
                }
            ],
            "client_reference_id": sale.id,
            "success_url": "http://testserver/",
        }
    )  # fmt: skip
    sale.sandbox.act(stray.id, "pay")
    return str(stray.id)


def test_second_payment_is_sent_back_and_the_purchase_stays_paid(sale: Sale, caplog: Any) -> None:
    """Two sessions of one purchase were paid: only the second one's money goes back."""
    pay_again(sale)
    sale.sandbox.deliver()
    assert "second_payment" in caplog.text
    assert send() == 1
    sale.sandbox.deliver()
    webhooks.process_unprocessed(now=timezone.now())

    purchase = sale.purchase
    assert (purchase.status, purchase.refunded_amount) == (Status.PAID, 0)
    assert purchase.checkout_session_id == sale.session_id
    refund = Refund.objects.get()
    assert (refund.cause, refund.state) == (Refund.Cause.SECOND_PAYMENT, Refund.State.SUCCEEDED)
    assert refund.payment_intent_id != purchase.payment_intent_id
    assert counters(sale.offer) == (0, 2)


def test_refund_that_stays_pending_is_asked_after_once_an_hour(
    sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of)
    sandbox.faults(refunds="pending")
    sale.ask()
    refunds.send_due(now=timezone.now())
    later = timezone.now() + timedelta(hours=2)
    refunds.send_due(now=later, limit=1)
    assert Refund.objects.get().due_at > later + timedelta(minutes=55)


def test_second_payment_that_could_not_be_sent_back_stays_noted_for_staff(
    sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of)
    second = pay_again(sale)
    sandbox.deliver()
    sandbox.act(second, "dispute")  # Stripe refuses to send it back
    refunds.send_due(now=timezone.now())
    assert sale.purchase.problem
    sale.ask(amount="10.00")  # of the other payment
    refunds.send_due(now=timezone.now())
    assert sale.purchase.problem


def test_refund_made_after_one_that_failed_is_recorded_before_the_news_of_that_failure(
    sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of)
    sale.dashboard()
    sandbox.deliver()  # refunded
    sandbox.process.control(f"refunds/{Refund.objects.get().stripe_refund_id}/fail")
    sale.dashboard(amount=2000)
    run = reconciliation.Run(
        since=timezone.now() - timedelta(hours=1),
        now=timezone.now() + timedelta(minutes=3),
        source="sweep",
    )
    assert list(reconciliation._refunds(run))  # newest first, as Stripe lists them
    assert (sale.purchase.status, sale.purchase.refunded_amount) == (Status.REFUND_DUE, 20)


def test_second_payment_heard_of_twice_is_sent_back_once(sale: Sale) -> None:
    pay_again(sale)
    news = sale.sandbox.events("checkout.session.completed")
    for event in (news[-1], news[-1] | {"id": "evt_again"}):
        receive(event)
    assert Refund.objects.count() == 1


def test_refund_under_way_keeps_the_purchase_refunding(sale: Sale) -> None:
    sale.sandbox.faults(refunds="pending")
    sale.ask()
    assert send() == 0
    assert (Refund.objects.get().state, sale.purchase.status) == ("pending", Status.REFUNDING)
    sale.sandbox.deliver()
    assert sale.purchase.status == Status.REFUNDING


def test_full_refund_that_fails_goes_back_to_paid_whatever_part_is_under_way(sale: Sale) -> None:
    sale.sandbox.faults(refunds="pending")
    sale.ask(amount="30.00")
    sale.ask()
    send()
    rest = Refund.objects.get(amount=70)
    sale.sandbox.process.control(f"refunds/{rest.stripe_refund_id}/fail")
    sale.sandbox.deliver()
    assert (sale.purchase.status, sale.purchase.refunded_amount) == (Status.PAID, 0)


def test_refund_that_can_not_be_recorded_does_not_keep_the_others_waiting(
    sale: Sale, client_of: Any
) -> None:
    other = Sale(sale.sandbox, client_of)
    for asked in (sale, other):
        asked.ask()
    Offer.objects.filter(pk=sale.offer.pk).update(inventory_sold=0)  # as after a defect of ours
    send()
    assert sale.purchase.status == Status.REFUNDING
    assert other.purchase.status == Status.REFUNDED
    Offer.objects.filter(pk=sale.offer.pk).update(inventory_sold=2)
    refunds.send_due(now=timezone.now() + timedelta(minutes=1))
    assert sale.purchase.status == Status.REFUNDED


def test_refund_that_fails_again_and_again_becomes_a_persons(sale: Sale, caplog: Any) -> None:
    sale.ask()
    sale.sandbox.faults(error_rate=1.0)
    for hours in range(1, refund_notes.STUCK_AFTER + 1):
        refunds.send_due(now=timezone.now() + timedelta(hours=2 * hours))
    assert "refund_stuck" in caplog.text
    assert "could not be sent 10 times" in sale.purchase.problem


def test_sent_refund_that_is_asked_after_for_long_is_not_said_to_be_unsent(
    sale: Sale, caplog: Any
) -> None:
    sale.sandbox.faults(refunds="pending")
    sale.ask(amount="10.00")
    for hours in range(refund_notes.STUCK_AFTER - 1):
        refunds.send_due(now=timezone.now() + timedelta(hours=2 * hours))
    assert Refund.objects.get().attempts == 0
    sale.sandbox.faults(error_rate=1.0)
    for hours in range(refund_notes.STUCK_AFTER + 1):
        refunds.send_due(now=timezone.now() + timedelta(hours=40 + 2 * hours))
    refund = Refund.objects.get()
    assert (refund.state, refund.attempts) == ("pending", refund_notes.STUCK_AFTER + 1)
    assert sale.purchase.problem == ""
    assert "refund_stuck" not in caplog.text


def test_failure_to_send_does_not_write_over_what_stripe_said_meanwhile(
    sale: Sale, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = stripe_gateway.create_refund

    def answer_lost(**asked: Any) -> Any:
        create(**asked)
        sale.sandbox.deliver()
        raise ProviderUnreachable

    sale.ask(amount="10.00")
    Refund.objects.update(attempts=refund_notes.STUCK_AFTER - 1)
    monkeypatch.setattr(stripe_gateway, "refunds_of", lambda payment_intent_id: [])
    monkeypatch.setattr(stripe_gateway, "create_refund", answer_lost)
    send()
    refund = Refund.objects.get()
    assert (refund.state, refund.error) == ("succeeded", "")
    assert sale.purchase.problem == ""
    assert "refund_stuck" not in caplog.text


def test_mail_server_that_hangs_is_given_up(sandbox: Any, client_of: Any, settings: Any) -> None:
    late(sandbox, client_of)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    assert settings.EMAIL_TIMEOUT == 10
    settings.EMAIL_TIMEOUT = 0.3
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.EMAIL_HOST, settings.EMAIL_PORT = silent.getsockname()[:2]
        assert mail.send_due(now=timezone.now()) == 0
    assert "timed out" in Email.objects.get().error


def test_refund_of_before_a_restored_backup_is_not_sent_twice(sale: Sale) -> None:
    sale.ask(amount="10.00")
    refunds.send_due(now=timezone.now())
    Refund.objects.update(
        state=Refund.State.REQUESTED, stripe_refund_id=None, attempts=0, settled_at=None,
        due_at=timezone.now(), created_at=timezone.now() - timedelta(days=2),
        stripe_attempt=2,  # Stripe has forgotten the key by then
    )  # fmt: skip
    Purchase.objects.update(refunded_amount=0)

    refunds.send_due(now=timezone.now())

    assert sale.at_stripe() == [(1000, "succeeded")]
    assert (Refund.objects.get().state, sale.purchase.refunded_amount) == ("succeeded", 10)
