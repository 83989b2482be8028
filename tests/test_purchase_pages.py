"""The attendee's pages of what they bought: what is said in each state, and what it costs."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from purchases import bought
from purchases.models import Purchase
from purchases.states import UNSETTLED, ReleaseReason, Status
from tests.conftest import deliver_now
from tests.factories import OfferFactory, PurchaseFactory, UserFactory, make_fulfillment

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    made: User = UserFactory(email="lena@example.com")
    return made


@pytest.fixture
def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def success(browser: Client, purchase: Purchase) -> str:
    path = f"/events/{purchase.event.slug}/offers/success"
    return said(browser.get(f"{path}?session_id={purchase.checkout_session_id}"))


def said(answer: Any) -> str:
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.content.decode())


SAID: dict[str, tuple[str, str]] = {
    # status: of the success page, of the purchase's own
    Status.AWAITING_PAYMENT: ("One moment…", "Reserved for you"),
    Status.PAYMENT_PROCESSING: ("Your payment is on its way", "stays reserved for you"),
    Status.PAID: ("Thank you, it&#x27;s yours", "being prepared for you"),
    Status.REFUND_DUE: ("Your money is on its way back", "when everything was sold"),
    Status.REFUNDING: ("Your money is on its way back", "nothing to get here any more"),
    Status.REFUNDED: ("Your money was sent back", "most banks take 5 to 10 days"),
    Status.RELEASED: ("Your time to pay ran out", "Nothing was charged"),
}


@pytest.mark.parametrize("status", SAID)
def test_each_status_is_said_in_clear_words(browser: Client, user: User, status: str) -> None:
    purchase = PurchaseFactory(user=user, status=status, offer__title="Hoodie")
    after_paying, on_its_page = SAID[status]
    page = success(browser, purchase)
    assert after_paying in page
    assert "1 × Hoodie" in page
    assert on_its_page in said(browser.get(f"/purchases/{purchase.pk}"))
    listed = said(browser.get("/purchases"))
    assert "1 × Hoodie" in listed
    assert re.search(r'<span class="tag \w*">[^<]+</span>', listed)
    for internal in ("refund_due", "released", "awaiting", "Refund Due"):
        assert internal not in re.sub(r'data-status="\w+"', "", listed)


@pytest.mark.parametrize("reason", ReleaseReason)
def test_each_reason_of_an_end_has_words(browser: Client, user: User, reason: str) -> None:
    purchase = PurchaseFactory(user=user, status=Status.RELEASED)
    Purchase.objects.update(release_reason=reason)
    page = success(browser, purchase)
    title = bought.RELEASED[reason].title
    assert str(title) in page
    assert str(title) in said(browser.get(f"/purchases/{purchase.pk}"))


def test_every_state_has_words_of_its_own() -> None:
    assert set(bought.RELEASED) == set(ReleaseReason)
    words = [value for value in vars(bought).values() if isinstance(value, bought.Words)]
    words += bought.RELEASED.values()
    assert len({(str(w.title), str(w.text)) for w in words}) == len(words)
    assert {w.tone for w in words} <= {"", "good", "warn", "bad"}


def test_unpaid_purchase_past_its_time_says_so(browser: Client, user: User) -> None:
    purchase = PurchaseFactory(
        user=user,
        status=Status.AWAITING_PAYMENT,
        created_at=timezone.now() - timedelta(minutes=20),
    )
    for page in (success(browser, purchase), said(browser.get(f"/purchases/{purchase.pk}"))):
        assert "The time to pay is up" in page
        assert "data-until" not in page
        assert "Cancel" not in page
        assert "data-watch" in page


def test_refund_of_a_payment_in_time_does_not_speak_of_a_late_one(
    browser: Client, user: User
) -> None:
    purchase = PurchaseFactory(user=user, status=Status.REFUNDED)
    assert "everything was sold" not in said(browser.get(f"/purchases/{purchase.pk}"))


def test_held_purchase_has_time_left_pay_and_cancel_on_every_page(
    browser: Client, user: User
) -> None:
    purchase = PurchaseFactory(user=user, status=Status.AWAITING_PAYMENT)
    Purchase.objects.update(checkout_url="https://checkout.example/pay")
    for page in (
        success(browser, purchase),
        said(browser.get(f"/purchases/{purchase.pk}")),
        said(browser.get("/purchases")),
    ):
        assert f'data-until="{purchase.reserved_until.isoformat()}"' in page
        assert "https://checkout.example/pay" in page
        assert f"/purchases/{purchase.pk}/cancel" in page


@pytest.mark.parametrize("status", SAID)
def test_page_looks_again_while_something_is_to_come(
    browser: Client, user: User, status: str
) -> None:
    purchase = PurchaseFactory(user=user, status=status)
    page = success(browser, purchase)
    asks = f"/purchases/{purchase.pk}/status?token=" in page
    assert asks == (status in UNSETTLED)
    # Paid: it is the delivery that is looked for, on the page itself.
    assert ('data-watch=""' in page) == (status == Status.PAID)
    by_itself = status in (Status.AWAITING_PAYMENT, Status.PAID)
    assert ('<noscript><meta http-equiv="refresh"' in page) == by_itself


def test_success_page_shows_how_to_get_what_was_bought(browser: Client, user: User) -> None:
    purchase = PurchaseFactory(user=user, status=Status.PAID, delivery_method="collection")
    deliver_now(purchase.pk)
    page = success(browser, purchase)
    assert "It will be waiting for you" in page
    assert "A confirmation is on its way to lena@example.com" in page
    assert "data-watch" not in page
    assert "refresh" not in page


def test_delivery_that_waits_for_a_person_is_not_looked_for(browser: Client, user: User) -> None:
    purchase = PurchaseFactory(user=user, status=Status.PAID)
    make_fulfillment(purchase, status="FAILED")
    page = success(browser, purchase)
    assert "Something is missing on the organizer" in page
    assert "data-watch" not in page


def test_list_has_what_is_to_be_paid_on_top_and_then_the_newest(
    browser: Client, user: User
) -> None:
    now = timezone.now()
    for minutes, (title, status) in enumerate(
        [
            ("newest", Status.PAID),
            ("held", Status.AWAITING_PAYMENT),
            ("older", Status.RELEASED),
            ("oldest", Status.REFUNDED),
        ]
    ):
        PurchaseFactory(
            user=user, offer__title=title, status=status,
            created_at=now - timedelta(minutes=minutes),
        )  # fmt: skip
    page = said(browser.get("/purchases"))
    titles = re.findall(r"1 × (\w+)</a>", page)
    assert titles == ["held", "newest", "older", "oldest"]
    assert "Still to be paid" in page


def test_list_is_in_pages_and_leaves_nothing_out(browser: Client, user: User) -> None:
    offer = OfferFactory(inventory_total=None)
    now = timezone.now()
    for number in range(45):
        PurchaseFactory(
            user=user, offer=offer, status=Status.PAID, created_at=now - timedelta(minutes=number)
        )
    seen: list[str] = []
    path = "/purchases"
    while True:
        page = said(browser.get(path))
        seen += re.findall(r'<h3><a href="/purchases/([\w-]+)"', page)
        older = re.search(r'href="(\?page=\d+)">Older', page)
        if older is None:
            break
        path = f"/purchases{older[1]}"
    newest = Purchase.objects.order_by("-created_at").values_list("pk", flat=True)
    assert seen == [str(pk) for pk in newest]
    assert "?page=2" in page
    for wrong in ("0", "x", "-1", "1001", "99999999999", "²"):
        assert browser.get("/purchases", {"page": wrong}).status_code == 404
    assert "nothing more" in said(browser.get("/purchases?page=9"))


def test_empty_list_leads_to_the_events(browser: Client) -> None:
    page = said(browser.get("/purchases"))
    assert "You haven't bought anything yet." in page
    assert '<a class="button" href="/">' in page


def test_list_takes_as_many_queries_for_many_as_for_one(browser: Client, user: User) -> None:
    def queries() -> int:
        caches["switches"].clear()  # remembered for two seconds, which it may take to get here
        with CaptureQueriesContext(connection) as captured:
            browser.get("/purchases")
        return len(captured)

    for status in (Status.AWAITING_PAYMENT, Status.RELEASED):
        PurchaseFactory(user=user, status=status)
    before = queries()
    for status in SAID:
        PurchaseFactory.create_batch(5, user=user, status=status)
    assert queries() == before
