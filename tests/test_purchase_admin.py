"""The back-office's pages of purchases: what they show, and what their buttons do, end to end."""

import html
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from fulfillment import repeating
from fulfillment.errors import FulfillmentNotFound, NothingToConfirm, SentJustNow
from fulfillment.shipping import orders
from fulfillment.shipping.models import ShippingOrder
from fulfillment.states import Status as Delivered
from offers import stripe_dashboard
from offers.models import Membership, Offer
from purchases import mail, refunds
from purchases.errors import HoldAlreadyResolved, HoldWasPaid, PurchaseNotFound
from purchases.holds import release
from purchases.models import Email, Purchase, Refund
from purchases.states import Status
from tests.booked_services import Service, entry_in
from tests.conftest import at_once, buy, counters, deliver_now
from tests.factories import (
    DigitalContentFactory,
    DisputeFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RefundFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
    make_fulfillment,
)
from tests.test_permissions import browser_of
from tests.ticket_upgrades import upgrade
from tests.two_organizations import MEMBERS, World

LIST = reverse("admin:purchases_purchase_changelist")
BUTTONS = ("release", "refund", "resend", "retry")


def page(purchase: Purchase, name: str = "change") -> str:
    return reverse(f"admin:purchases_purchase_{name}", args=[purchase.pk])


def text(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def shown_buttons(client: Client, purchase: Purchase) -> set[str]:
    shown = text(client.get(page(purchase)))
    return {name for name in BUTTONS if f'href="{page(purchase, name)}"' in shown}


@pytest.fixture
def staff() -> Client:
    return browser_of(UserFactory(username="boss", is_staff=True, is_superuser=True))


def member(purchase: Purchase, role: str = Membership.Role.MANAGER) -> Client:
    organization = purchase.event.organization
    return browser_of(MembershipFactory(organization=organization, role=role).user)


# -- The list -------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_list_says_what_is_urgent_and_shows_amounts_in_their_currency(staff: Client) -> None:
    late = PurchaseFactory(
        offer__price=500, offer__currency="JPY", created_at=timezone.now() - timedelta(hours=1)
    )
    DisputeFactory()
    make_fulfillment(status=Delivered.FAILED)
    stuck = PurchaseFactory(status=Status.PAID)
    Purchase.objects.filter(pk=stuck.pk).update(problem="A second payment is stuck.")
    shown = text(staff.get(LIST))
    for words in ("500 JPY", "50.00 USD", "Overdue", "Disputed", "Not delivered", "Problem"):
        assert words in shown
    assert "500.000" not in shown
    for value, expected in (("overdue", late), ("problem", stuck)):
        found = staff.get(LIST, {"attention": value}).context["cl"].queryset
        assert list(found) == [expected]
    disputed = staff.get(LIST, {"attention": "dispute"}).context["cl"].queryset
    assert [each.disputes.count() for each in disputed] == [1]
    failed = staff.get(LIST, {"fulfillment__status__exact": "FAILED"}).context["cl"].queryset
    assert [each.fulfillment.status for each in failed] == ["FAILED"]


@pytest.mark.django_db
def test_list_takes_as_many_queries_for_many_rows(
    staff: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for _ in range(15):
        DisputeFactory(purchase=make_fulfillment(status=Delivered.FAILED).purchase)
        PurchaseFactory()
    with django_assert_max_num_queries(14):
        assert staff.get(LIST).status_code == 200
    with django_assert_max_num_queries(19):
        assert staff.get(LIST, {"q": "user of offers"}).status_code == 200


@pytest.mark.django_db
def test_newest_come_first(staff: Client) -> None:
    now = timezone.now()
    made = [PurchaseFactory(created_at=now - timedelta(minutes=n)) for n in (3, 1, 2)]
    shown = staff.get(LIST).context["cl"].result_list
    assert [each.pk for each in shown] == [made[1].pk, made[2].pk, made[0].pk]


@pytest.mark.django_db
def test_purchase_is_found_by_what_staff_have_before_them(staff: Client) -> None:
    buyer = UserFactory(first_name="Ada", last_name="Lovelace", email="ada@example.com")
    sought = PurchaseFactory(user=buyer, offer__title="Blue mug", status=Status.PAID)
    sent_back = RefundFactory(purchase=sought, amount=1, stripe_refund_id="re_1abc")
    second = RefundFactory(purchase=sought, amount=1, payment_intent_id="pi_second")
    dispute = DisputeFactory(purchase=sought)
    PurchaseFactory(offer__title="Red mug", status=Status.PAID)
    for q in (
        str(sought.pk), sought.checkout_session_id, sought.payment_intent_id, "ada@example.com",
        "lovelace", "blue MUG", "mug ada", sent_back.stripe_refund_id, second.payment_intent_id,
        dispute.pk, buyer.username,
    ):  # fmt: skip
        assert list(staff.get(LIST, {"q": q}).context["cl"].queryset) == [sought], q
    for q in (str(uuid.uuid4()), "cs_other", "re_other", "nobody", "red lovelace", "100%"):
        assert not staff.get(LIST, {"q": q}).context["cl"].queryset, q


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", ["re_tail", "cs_student", "pi_e", "0b1c8a52-90ab-4c0e-8d07-5c1f6a0e7b3d"]
)
def test_buyer_whose_name_looks_like_an_id_is_found(
    staff: Client, django_assert_max_num_queries: Callable[..., Any], name: str
) -> None:
    sought = PurchaseFactory(user__username=name)
    PurchaseFactory()
    with django_assert_max_num_queries(19):
        found = staff.get(LIST, {"q": name}).context["cl"].queryset
    assert list(found) == [sought]


@pytest.mark.django_db
def test_days_of_payment_are_whole_and_in_utc(staff: Client) -> None:
    last_moment = datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)
    inside = PurchaseFactory(status=Status.PAID, created_at=last_moment)
    PurchaseFactory(status=Status.PAID, created_at=last_moment + timedelta(seconds=1))
    PurchaseFactory(status=Status.PAID, created_at=last_moment - timedelta(days=2))
    query = {"paid_at_from": "2026-03-01", "paid_at_to": "2026-03-02"}
    assert list(staff.get(LIST, query).context["cl"].queryset) == [inside]
    for wrong in ("soon", "9999-12-31", ""):
        assert (
            staff.get(LIST, {"paid_at_from": "2026-03-01", "paid_at_to": wrong}).status_code == 200
        )


# -- The page -------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_timeline_tells_everything_in_its_order(
    sandbox: Any, client_of: Any, staff: Client
) -> None:
    offer = OfferFactory(offer_type=Offer.Type.EXCLUSIVE_CONTENT, title="Recordings")
    DigitalContentFactory(offer=offer)
    buyer = UserFactory(email="buyer@example.com")
    bought = buy(client_of(buyer), offer, 2).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    sandbox.deliver()
    purchase = deliver_now(bought["id"]).purchase
    mail.send_due(now=timezone.now())
    answer = staff.post(page(purchase, "refund"), {"amount": "10.00", "reason": "Scratched"})
    assert answer.status_code == 302
    refunds.send_due(now=timezone.now())
    entries = staff.get(page(purchase)).context["timeline"]
    told = [entry.what for entry in entries]
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    order = [
        "Stock held", "Checkout Session opened", "Stripe says paid", "Fulfilment: to be delivered",
        "Fulfilment: the attendee has it", "E-mail sent: content ready",
        "Refund of 10.00 USD: asked for by staff",
    ]  # fmt: skip
    assert [told.index(what) for what in order] == sorted(told.index(what) for what in order)
    assert "Refund of 10.00 USD" in told
    asked = next(entry for entry in entries if "asked for by staff" in entry.what)
    assert (asked.who, asked.why) == ("boss", "Scratched")
    shown = text(staff.get(page(purchase)))
    for words in ("Recordings", "90.00 USD", "Delivered", "Open the fulfilment", "Scratched"):
        assert words in shown


@pytest.mark.django_db
def test_page_takes_as_many_queries_for_a_long_story(staff: Client) -> None:
    purchase = make_fulfillment(status=Delivered.FAILED).purchase
    DisputeFactory(purchase=purchase)
    RefundFactory(purchase=purchase, amount=1, requested_by=UserFactory())
    staff.get(page(purchase))
    caches["switches"].clear()  # remembered for two seconds, which it may take to get there
    with CaptureQueriesContext(
        connection,
    ) as few:
        staff.get(page(purchase))
    for n in range(10):
        RefundFactory(purchase=purchase, amount=1, requested_by=UserFactory())
        DisputeFactory(purchase=purchase)
        mail.enqueue(purchase, Email.Occasion.CONFIRMED, now=timezone.now(), reference=str(n))
        purchase.transitions.create(
            name="pay", to_status="paid", source="admin", actor=UserFactory(),
            created_at=timezone.now(),
        )  # fmt: skip
    caches["switches"].clear()
    with CaptureQueriesContext(connection) as many:
        staff.get(page(purchase))
    assert len(many) == len(few) < 20


@pytest.mark.django_db
def test_stripe_ids_are_links_where_there_is_a_dashboard(staff: Client, settings: Any) -> None:
    purchase = PurchaseFactory(status=Status.PAID)
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    assert "dashboard.stripe.com" not in text(staff.get(page(purchase)))
    settings.STRIPE_API_BASE = "https://api.stripe.com"
    for key, mode in (
        ("sk_live_x", ""),
        ("rk_live_x", ""),
        ("sk_test_x", "/test"),
        ("rk_test_x", "/test"),
    ):
        settings.STRIPE_SECRET_KEY = key
        address = f"https://dashboard.stripe.com{mode}/payments/{purchase.payment_intent_id}"
        assert f'href="{address}"' in text(staff.get(page(purchase)))
    assert stripe_dashboard.address("re_1") == "https://dashboard.stripe.com/test/refunds/re_1"
    for unknown in (None, "", "evil://x", "pi"):
        assert stripe_dashboard.address(unknown) is None


@pytest.mark.django_db
def test_address_is_shown_to_who_may_see_the_purchase_and_escaped(staff: Client) -> None:
    told = {"name": "<b>Ada</b>", "line1": "Street 1", "city": "Paris", "country": "FR"}
    purchase = PurchaseFactory(status=Status.PAID)
    Purchase.objects.filter(pk=purchase.pk).update(
        shipping_address=told, delivery_method="shipping"
    )
    answer = staff.get(page(purchase))
    assert "<b>Ada</b>" not in answer.content.decode()
    assert "<b>Ada</b>, Street 1, Paris, FR" in text(answer)


# -- Who may press which button -------------------------------------------------------------------

ALLOWED = {
    "owner": set(BUTTONS),
    "manager": set(BUTTONS),
    "support": {"release"},
    "superuser": set(BUTTONS),
}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "who", ["anonymous", "buyer", "rival", "rival_support", "ticked", *ALLOWED]
)
def test_buttons_are_for_whom_they_should(who: str) -> None:
    world = World()
    client = browser_of(world.people[who])
    hold = PurchaseFactory(offer=world.home.public_offer)
    failed = make_fulfillment(
        PurchaseFactory(offer=world.home.public_offer, status=Status.PAID), status=Delivered.FAILED
    ).purchase
    allowed = ALLOWED.get(who, set())
    strange = 302 if who in ("anonymous", "buyer") else 404
    for name in BUTTONS:
        purchase = hold if name == "release" else failed
        status = client.get(page(purchase, name)).status_code
        assert status == (200 if name in allowed else 403 if who in ALLOWED else strange), name
        if name not in allowed:
            before = Purchase.objects.values().get(pk=purchase.pk)
            emails = Email.objects.count()
            client.post(page(purchase, name), {})
            assert Purchase.objects.values().get(pk=purchase.pk) == before
            assert (Email.objects.count(), Refund.objects.filter(purchase=purchase).count()) == (
                emails, 0,
            )  # fmt: skip
    if who in ALLOWED:
        assert shown_buttons(client, hold) == allowed & {"release"}
        assert shown_buttons(client, failed) == allowed - {"release"}
        ended = PurchaseFactory(offer=world.home.public_offer, status=Status.RELEASED)
        assert shown_buttons(client, ended) == set()


@pytest.mark.django_db
def test_no_button_does_anything_by_get_or_without_a_token(staff: Client) -> None:
    hold = PurchaseFactory()
    failed = make_fulfillment(status=Delivered.FAILED).purchase
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(UserFactory(is_staff=True, is_superuser=True))
    emails = Email.objects.count()
    for name in BUTTONS:
        purchase = hold if name == "release" else failed
        before = Purchase.objects.values().get(pk=purchase.pk)
        assert staff.get(page(purchase, name)).status_code == 200
        assert staff.head(page(purchase, name)).status_code == 200
        assert strict.post(page(purchase, name), {}).status_code == 403
        assert Purchase.objects.values().get(pk=purchase.pk) == before
    assert Email.objects.count() == emails
    assert not failed.refunds.exists()


# -- Release --------------------------------------------------------------------------------------


def held(client_of: Any, **offer: Any) -> Purchase:
    bought = buy(client_of(UserFactory()), OfferFactory(**offer), 2).json()
    return Purchase.objects.get(pk=bought["id"])


@pytest.mark.django_db(transaction=True)
def test_support_releases_a_hold_after_stripe_was_asked(sandbox: Any, client_of: Any) -> None:
    purchase = held(client_of)
    answer = member(purchase, Membership.Role.SUPPORT).post(page(purchase, "release"), follow=True)
    assert "Released: 2 ×" in text(answer)
    purchase.refresh_from_db()
    assert (purchase.status, purchase.release_reason) == (Status.RELEASED, "staff")
    assert counters(purchase.offer) == (0, 0)
    transition = purchase.transitions.get(name="release")
    assert (transition.source, transition.actor is None) == ("admin", False)
    assert [each["status"] for each in sandbox.sessions()] == ["expired"]


@pytest.mark.django_db(transaction=True)
def test_hold_that_stripe_says_was_paid_is_not_released(sandbox: Any, client_of: Any) -> None:
    purchase = held(client_of)
    sandbox.act(purchase.checkout_session_id, "pay")
    answer = member(purchase).post(page(purchase, "release"), follow=True)
    assert "Stripe says that it was paid meanwhile" in text(answer)
    purchase.refresh_from_db()
    assert purchase.status == Status.PAID
    assert counters(purchase.offer) == (0, 2)
    with pytest.raises(HoldAlreadyResolved):
        release(purchase.pk, now=timezone.now(), source="tests")


@pytest.mark.django_db(transaction=True)
def test_hold_stays_while_stripe_can_not_be_asked(sandbox: Any, client_of: Any) -> None:
    purchase = held(client_of)
    sandbox.faults(error_rate=1, error_status=503)
    answer = member(purchase).post(page(purchase, "release"), follow=True)
    assert "Stripe could not be asked" in text(answer)
    purchase.refresh_from_db()
    assert purchase.status == Status.AWAITING_PAYMENT
    assert counters(purchase.offer) == (2, 0)


@pytest.mark.django_db(transaction=True)
def test_release_of_a_paid_hold_says_so_to_who_calls_the_domain(
    sandbox: Any, client_of: Any
) -> None:
    purchase = held(client_of)
    sandbox.act(purchase.checkout_session_id, "pay")
    with pytest.raises(HoldWasPaid):
        release(purchase.pk, now=timezone.now(), source="tests")
    with pytest.raises(PurchaseNotFound):
        release(uuid.uuid4(), now=timezone.now(), source="tests")


# -- Refund ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_refund_shows_what_is_left_and_why_an_amount_is_refused() -> None:
    purchase = PurchaseFactory(status=Status.PAID, quantity=2)
    RefundFactory(purchase=purchase, amount=30)
    client = member(purchase)
    shown = text(client.get(page(purchase, "refund")))
    for words in ("paid 100.00 USD", "30.00 USD on the way back", "70.00 USD left"):
        assert words in shown
    refused = text(client.post(page(purchase, "refund"), {"amount": "70.01"}))
    assert "at most 70.00 USD" in refused
    assert "more digits" in text(client.post(page(purchase, "refund"), {"amount": "1.001"}))
    assert purchase.refunds.count() == 1


@pytest.mark.django_db
def test_refund_form_sent_twice_is_one_refund_and_with_other_values_none() -> None:
    purchase = PurchaseFactory(status=Status.PAID, quantity=2)
    client = member(purchase)
    sent = {"amount": "10.00", "idempotency_key": "form-1"}
    for said in ("Asked for: ", "This was asked for before: "):
        answer = client.post(page(purchase, "refund"), sent, follow=True)
        assert f"{said}the purchase is paid now." in text(answer)
    other = client.post(page(purchase, "refund"), sent | {"amount": "11.00"})
    assert "open it again" in text(other)
    assert purchase.refunds.count() == 1


# -- Resend ---------------------------------------------------------------------------------------


def resend(purchase: Purchase, *, after: timedelta = timedelta(minutes=3)) -> str:
    """Later than what was sent at first, so that it counts as no second click."""
    Email.objects.filter(purchase=purchase).update(state=Email.State.SENT)
    return repeating.resend_confirmation(
        purchase.pk, now=timezone.now() + after, source="tests", actor=None
    )


def last_email(purchase: Purchase) -> Email:
    return purchase.emails.latest("pk")


def content_delivered() -> Purchase:
    offer = OfferFactory(offer_type=Offer.Type.EXCLUSIVE_CONTENT)
    DigitalContentFactory(offer=offer)
    return paid(offer)


def paid(offer: Offer) -> Purchase:
    purchase = PurchaseFactory(
        offer=offer, status=Status.PAID, user=UserFactory(email="buyer@example.com")
    )
    return deliver_now(purchase.pk).purchase


def ticket_upgraded() -> Purchase:
    registration = RegistrationFactory(user__email="buyer@example.com")
    to = TicketTierFactory(event=registration.event)
    return upgrade(registration, to).fulfillment.purchase


def order_collected() -> Purchase:
    return paid(OfferFactory())


def handed_over() -> Purchase:
    purchase = order_collected()
    order = ShippingOrder.objects.get(fulfillment__purchase=purchase)
    orders.hand_over(order.pk, now=timezone.now(), source="tests", actor=UserFactory())
    return purchase


def delivery_failed() -> Purchase:
    return paid(OfferFactory(offer_type=Offer.Type.EXCLUSIVE_CONTENT))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("sold", "occasion", "attached"),
    [
        (content_delivered, "content_ready", []),
        (ticket_upgraded, "ticket_upgraded", ["ticket.png"]),
        (order_collected, "order_placed", ["pick-up-code.png"]),
        (handed_over, "confirmed", []),
        (delivery_failed, "confirmed", []),
    ],
)
def test_buyer_gets_once_more_what_says_what_they_have(
    sold: Callable[[], Purchase], occasion: str, attached: list[str], mailoutbox: Any
) -> None:
    purchase = sold()
    assert resend(purchase) == occasion
    mail.send_due(now=timezone.now() + timedelta(minutes=4))
    email = last_email(purchase)
    assert (email.occasion, email.state) == (occasion, Email.State.SENT)
    assert [each["name"] for each in email.attachments] == attached
    assert mailoutbox[-1].to == ["buyer@example.com"]


@pytest.mark.django_db(transaction=True)
def test_booking_is_confirmed_by_its_entry_and_an_open_one_by_the_question() -> None:
    service = Service()
    purchase = service.sold()
    assert resend(purchase) == "booking_open"
    service.pick(purchase, service.slot())
    assert resend(purchase, after=timedelta(minutes=6)) == "booked"
    first, again = purchase.emails.filter(occasion="booked").order_by("pk")
    entries = [entry_in(email)[1] for email in (first, again)]
    assert [entry["uid"] for entry in entries] == [entries[0]["uid"]] * 2
    assert [entry["sequence"] for entry in entries] == [0, 0]


@pytest.mark.django_db(transaction=True)
def test_parcel_that_has_left_is_confirmed_by_its_tracking() -> None:
    purchase = order_collected()
    order = ShippingOrder.objects.get(fulfillment__purchase=purchase)
    ShippingOrder.objects.filter(pk=order.pk).update(method="shipping", pickup_code=None)
    orders.mark_shipped(
        order.pk, carrier="DHL", tracking_number="1", now=timezone.now(), source="tests"
    )
    assert resend(purchase) == "shipped"


@pytest.mark.django_db(transaction=True)
def test_staff_resend_and_it_is_on_record_who_did() -> None:
    purchase = content_delivered()
    Email.objects.update(state=Email.State.SENT, created_at=timezone.now() - timedelta(hours=1))
    client = member(purchase)
    assert "To buyer@example.com" in text(client.get(page(purchase, "resend")))
    answer = client.post(page(purchase, "resend"), follow=True)
    assert "“content ready” will be sent" in text(answer)
    mail.send_due(now=timezone.now())
    email = last_email(purchase)
    assert email.requested_by is not None
    assert "(back-office)" in text(client.get(page(purchase)))
    again = client.post(page(purchase, "resend"), follow=True)
    assert "on its way already" in text(again)
    assert purchase.emails.filter(occasion="content_ready").count() == 2


@pytest.mark.django_db(transaction=True)
def test_ten_clicks_at_once_send_one_email() -> None:
    purchase = content_delivered()
    Email.objects.update(state=Email.State.SENT, created_at=timezone.now() - timedelta(hours=1))
    now = timezone.now()
    answers = at_once(
        [lambda: repeating.resend_confirmation(purchase.pk, now=now, source="tests")] * 10
    )
    assert max(map(str, answers)) == "content_ready"
    assert sum(isinstance(answer, SentJustNow) for answer in answers) == 9
    assert purchase.emails.filter(occasion="content_ready").count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    "status",
    [
        Status.AWAITING_PAYMENT,
        Status.RELEASED,
        Status.REFUNDING,
        Status.REFUNDED,
        Status.REFUND_DUE,
    ],
)
def test_nothing_is_confirmed_of_what_is_not_theirs(status: Status) -> None:
    purchase = PurchaseFactory(status=status, user__email="buyer@example.com")
    with pytest.raises(NothingToConfirm, match=purchase.get_status_display().lower()):
        resend(purchase)
    answer = member(purchase).post(page(purchase, "resend"), follow=True)
    assert "nothing to confirm" in text(answer)
    assert not purchase.emails.exists()


@pytest.mark.django_db
def test_nothing_is_resent_that_is_revoked_or_waits_or_has_no_address() -> None:
    buyer = UserFactory(email="buyer@example.com")
    revoked = make_fulfillment(PurchaseFactory(user=buyer, status=Status.PAID), status="REVOKED")
    with pytest.raises(NothingToConfirm, match="taken back"):
        resend(revoked.purchase)
    nowhere = make_fulfillment(PurchaseFactory(user__email="", status=Status.PAID))
    with pytest.raises(NothingToConfirm, match="address"):
        resend(nowhere.purchase)
    just_paid = PurchaseFactory(user=buyer, status=Status.PAID)
    with pytest.raises(SentJustNow, match="a moment ago"):
        resend(just_paid)
    waiting = make_fulfillment(PurchaseFactory(user=buyer, status=Status.PAID)).purchase
    with pytest.raises(SentJustNow, match="by itself"):
        repeating.resend_confirmation(
            waiting.pk, now=timezone.now() + timedelta(days=1), source="tests"
        )


# -- Retry ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_staff_retry_a_failed_delivery_once_its_cause_is_mended() -> None:
    purchase = delivery_failed()
    client = member(purchase)
    assert "There is no content yet" in text(client.get(page(purchase)))
    DigitalContentFactory(offer=purchase.offer)
    assert "There is no content yet" in text(client.get(page(purchase, "retry")))
    answer = client.post(page(purchase, "retry"), follow=True)
    assert "tried again in a moment" in text(answer)
    assert deliver_now(purchase.pk).status == "FULFILLED"
    assert "Delivered" in text(client.get(page(purchase)))
    late = client.post(page(purchase, "retry"), follow=True)
    assert "can't retry" in text(late)


@pytest.mark.django_db
def test_nothing_is_retried_of_what_was_never_paid() -> None:
    with pytest.raises(FulfillmentNotFound):
        repeating.retry_delivery(PurchaseFactory().pk, now=timezone.now(), source="tests")


# -- Refunds, disputes, e-mails, transitions ------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("model", ["refund", "dispute", "email", "purchasetransition"])
def test_what_belongs_to_a_purchase_leads_to_it(who: str, model: str) -> None:
    world = World()
    client = browser_of(world[who])
    shown = text(client.get(reverse(f"admin:purchases_{model}_changelist")))
    sold = world.home.objects[Refund].purchase
    assert f'href="{page(sold)}"' in shown
    assert "50.000" not in shown
    if model in ("refund", "dispute"):
        assert "50.00 USD" in shown
