"""Exclusive content: from a payment to the file's bytes and the codes, and back by a refund."""

import threading
from typing import Any

import pytest
from django.core import mail as outbox
from django.db import transaction
from django.template.loader import render_to_string
from django.test import Client
from django.utils import timezone

from fulfillment import delivery, queue, transitions
from fulfillment.digital import codes, links
from fulfillment.digital import delivery as digital
from fulfillment.digital.models import AccessCode, DigitalContent, DigitalDelivery
from fulfillment.errors import CannotDeliver
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.models import Offer
from offers_project.local.demo_data import create_demo, recordings
from purchases import mail, refunds
from purchases.models import Email, Purchase
from tests.conftest import at_once, blocked_backends, buy, deliver_now
from tests.digital_content import (
    BYTES,
    content_offer,
    delivered,
    fill_pool,
    given,
    offer_with_file,
)
from tests.factories import MembershipFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def path_of(url: str) -> str:
    assert url.startswith("http://testserver/content/")
    return url.removeprefix("http://testserver")


# -- From the payment to the thing, and back ------------------------------------------------------


def test_paid_content_is_downloaded_byte_for_byte_until_it_is_refunded(
    sandbox: Any, client_of: Any
) -> None:
    offer = offer_with_file(instructions="Not for the public.")
    fill_pool(offer, 5)
    user = UserFactory(email="buyer@example.com")
    api, browser, anybody = client_of(user), Client(), Client()
    browser.force_login(user)
    purchase = buy(api, offer, 2).json()
    address = f"/api/v1/purchases/{purchase['id']}/"
    assert api.get(address).json()["fulfillment"] is None
    sandbox.act(purchase["checkout_session_id"], "pay")
    sandbox.deliver()

    assert deliver_now(purchase["id"]).status == Status.FULFILLED

    shown = api.get(address).json()["fulfillment"]
    assert (shown["type"], shown["status"], shown["downloads"]) == ("DIGITAL", "FULFILLED", 0)
    assert shown["access_codes"] == ["CODE-00000", "CODE-00001"]
    assert shown["access_code"] == "CODE-00000"
    link = path_of(shown["content_url"])
    file = anybody.get(link)
    assert (file.status_code, file.getvalue()) == (200, BYTES)
    assert api.get(address).json()["fulfillment"]["downloads"] == 1

    page = browser.get(f"/purchases/{purchase['id']}").content.decode()
    assert "Download talks.zip" in page
    assert "CODE-00001" in page
    assert "Downloaded 1 time." in page
    assert "Not for the public." in page

    assert mail.send_due(now=timezone.now()) >= 1
    (message,) = [sent for sent in outbox.outbox if "Ready for you" in sent.subject]
    assert "CODE-00000\nCODE-00001" in message.body
    assert f"http://testserver/purchases/{purchase['id']}" in message.body
    assert "/content/" not in message.body

    owner = MembershipFactory(organization=offer.event.organization).user
    assert client_of(owner).post(f"{address}refund/").status_code == 202
    early = anybody.get(link)
    assert early.status_code == 403
    assert "on its way back" in early.content.decode()
    assert api.get(address).json()["fulfillment"]["access_code"] is None
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    # Stripe has confirmed, and the worker hasn't heard of it yet.
    assert Fulfillment.objects.get().status == Status.FULFILLED
    assert anybody.get(link).status_code == 403
    delivery.take_in(now=timezone.now())

    assert Fulfillment.objects.get().status == Status.REVOKED
    late = anybody.get(link)
    assert late.status_code == 403
    assert "refunded" in late.content.decode()
    after = api.get(address).json()["fulfillment"]
    assert {after[name] for name in ("content_url", "access_code", "access_codes")} == {None}
    assert "CODE" not in browser.get(f"/purchases/{purchase['id']}").content.decode()
    assert codes.counted(offer.pk) == {"free": 3, "given": 0, "revoked": 2}
    assert DigitalDelivery.objects.get().downloads == 1


def test_delivery_asks_nothing_twice(django_assert_max_num_queries: Any) -> None:
    """Nine statements to take a purchase in, three to claim it, nine to hand it out.

    With three times BEGIN and COMMIT.
    """
    offer = offer_with_file(b"x")
    delivered(offer)
    bought = PurchaseFactory(offer=offer, status="paid")
    with django_assert_max_num_queries(27):
        queue.deliver_one(bought.pk, now=timezone.now())
    assert Fulfillment.objects.get(purchase=bought).status == Status.FULFILLED


def test_demos_recordings_are_what_buyers_of_it_get(client_of: Any) -> None:
    create_demo(now=timezone.now())
    offer = Offer.objects.get(title="All recordings")
    fulfillment = delivered(offer)
    shown = client_of(fulfillment.purchase.user).get(
        f"/api/v1/purchases/{fulfillment.purchase_id}/"
    )
    file = Client().get(path_of(shown.json()["fulfillment"]["content_url"]))
    assert file.getvalue() == recordings()
    assert recordings()[:4] == b"PK\x03\x04"
    assert "demo-conf-recordings.zip" in file.headers["Content-Disposition"]


def test_list_of_fifty_takes_as_many_queries_as_one_of_five(
    client_of: Any, django_assert_max_num_queries: Any
) -> None:
    offer = offer_with_file(b"x")
    fill_pool(offer, 60)
    user = UserFactory()
    for _ in range(5):
        delivered(offer, user=user)
    with django_assert_max_num_queries(50) as few:
        client_of(user).get("/api/v1/purchases/")
    for _ in range(45):
        delivered(offer, user=user)
    with django_assert_max_num_queries(len(few)):
        shown = client_of(user).get("/api/v1/purchases/").json()["results"]
    assert len({one["fulfillment"]["access_code"] for one in shown}) == 50


# -- What has to be there -------------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [False, True], ids=["no row", "empty row"])
def test_without_any_content_staff_are_told_what_to_supply(is_there: bool) -> None:
    offer = content_offer()
    if is_there:
        DigitalContent.objects.create(offer=offer)
    failed = delivered(offer)
    assert failed.status == Status.FAILED
    assert "upload a file" in failed.error
    assert not Email.objects.filter(occasion="content_ready").exists()


def test_pool_with_too_few_codes_gives_none_of_them() -> None:
    offer = content_offer()
    fill_pool(offer, 2)
    failed = delivered(offer, quantity=3)
    assert (failed.status, given(offer)) == (Status.FAILED, [])
    assert "3 access codes are needed and the pool has 2" in failed.error
    assert not DigitalDelivery.objects.exists()

    fill_pool(offer, 1, start=2)
    delivery.retry_offer(offer.pk, now=timezone.now())
    assert deliver_now(failed.purchase_id).status == Status.FULFILLED
    assert given(offer) == ["CODE-00000", "CODE-00001", "CODE-00002"]


def test_codes_alone_are_enough_and_lead_nowhere(client_of: Any) -> None:
    offer = content_offer()
    fill_pool(offer, 1)
    fulfillment = delivered(offer)
    shown = digital.describe(fulfillment, absolute=str)
    assert shown["content_url"] is None
    assert shown["access_codes"] == ["CODE-00000"]
    link = f"/content/{links.token_for(fulfillment.pk)}"
    assert Client().get(link).status_code == 404


def test_content_without_codes_gives_none() -> None:
    shown = digital.describe(delivered(offer_with_file()), absolute=str)
    assert (shown["access_code"], shown["access_codes"]) == (None, [])


def test_what_staff_marked_as_done_hands_nothing_out() -> None:
    failed = delivered(content_offer())
    delivery.mark_done(failed.pk, reason="Sent by post.", now=timezone.now(), source="admin")
    done = Fulfillment.objects.get()
    assert digital.describe(done, absolute=str)["content_url"] is None
    browser = Client()
    browser.force_login(done.purchase.user)
    assert "by other means" in browser.get(f"/purchases/{done.purchase_id}").content.decode()
    assert Client().get(f"/content/{links.token_for(done.pk)}").status_code == 404


def test_pool_that_runs_low_is_an_alert_once(caplog: pytest.LogCaptureFixture) -> None:
    offer = content_offer()
    fill_pool(offer, 30)
    for _ in range(29):
        delivered(offer)

    def alerts() -> int:
        return caplog.text.count("'alert': 'access_codes_running_low'")

    assert alerts() == 1
    assert "'left': 3" in caplog.text
    fill_pool(offer, 10, start=30)
    for _ in range(10):
        delivered(offer)
    assert alerts() == 2


# -- Once -----------------------------------------------------------------------------------------


def test_delivered_twice_gives_the_same_codes_and_one_email() -> None:
    offer = content_offer()
    fill_pool(offer, 10)
    fulfillment = delivered(offer, quantity=3)
    before = list(AccessCode.objects.values())
    for _ in range(2):
        with transaction.atomic():
            assert digital.deliver(transitions.lock(fulfillment.pk), now=timezone.now())
    assert list(AccessCode.objects.values()) == before
    assert len(given(offer)) == 3
    assert Email.objects.filter(occasion="content_ready").count() == 1


def test_many_workers_give_each_code_once() -> None:
    offer = content_offer()
    fill_pool(offer, 40)
    paid = [PurchaseFactory(offer=offer, quantity=2, status="paid").pk for _ in range(20)]

    answers = at_once([lambda pk=pk: deliver_now(pk).status for pk in paid])

    assert answers == [Status.FULFILLED] * 20
    each = [
        list(AccessCode.objects.filter(fulfillment__purchase=pk).values_list("code", flat=True))
        for pk in paid
    ]
    assert [len(codes) for codes in each] == [2] * 20
    assert len({code for codes in each for code in codes}) == 40


def test_codes_that_another_worker_may_give_back_are_waited_for() -> None:
    """The first worker holds the pool's last codes, then fails: the second must get them."""
    offer = content_offer()
    fill_pool(offer, 1)
    first, second = (PurchaseFactory(offer=offer, status="paid") for _ in range(2))
    now = timezone.now()
    claimed = delivery.hear_of(first.pk, now=now)
    assert claimed is not None
    outcome: list[Any] = []
    with transaction.atomic():
        locked = transitions.lock(claimed.pk)
        assert digital.deliver(locked, now=now)
        other = threading.Thread(
            target=lambda: outcome.extend(at_once([lambda: deliver_now(second.pk).status]))
        )
        other.start()
        while not blocked_backends():
            assert other.is_alive(), outcome
        transaction.set_rollback(True)
    other.join()
    assert outcome == [Status.FULFILLED]


def test_free_code_is_not_deleted_while_it_is_given_away() -> None:
    offer = content_offer()
    fill_pool(offer, 1)
    code = AccessCode.objects.get()
    fulfillment = delivery.hear_of(
        PurchaseFactory(offer=offer, status="paid").pk, now=timezone.now()
    )
    assert fulfillment is not None
    outcome: list[Any] = []
    with transaction.atomic():
        digital.deliver(transitions.lock(fulfillment.pk), now=timezone.now())
        deleting = threading.Thread(
            target=lambda: outcome.extend(at_once([lambda: codes.delete_free(offer.pk, [code.pk])]))
        )
        deleting.start()
        while not blocked_backends():
            assert deleting.is_alive(), outcome
    deleting.join()
    assert (outcome, given(offer)) == ([0], ["CODE-00000"])


# -- The e-mail -----------------------------------------------------------------------------------


def test_html_of_the_email_says_the_same_and_escapes_it() -> None:
    offer = offer_with_file(title="Talks <b>&", instructions="")
    fill_pool(offer, 1)
    purchase = delivered(offer).purchase
    html = render_to_string(
        "emails/content_ready.html", {"purchase": purchase, "site": "http://testserver"}
    )
    assert "Talks &lt;b&gt;&amp;" in html
    assert "CODE-00000" in html
    assert f'href="http://testserver/purchases/{purchase.pk}"' in html
    assert "/content/" not in html


def test_email_that_leaves_after_a_refund_has_no_codes() -> None:
    offer = content_offer()
    fill_pool(offer, 1)
    fulfillment = delivered(offer, user=UserFactory(email="late@example.com"))
    delivery.revoke(fulfillment.pk, reason="fraud", now=timezone.now(), source="admin")
    purchase = Purchase.objects.get()
    context = {"purchase": purchase, "site": "http://testserver"}
    for kind in ("txt", "html"):
        text = render_to_string(f"emails/content_ready.{kind}", context)
        assert "CODE" not in text
        assert "taken back" in text


def test_deliverer_says_what_is_missing_as_an_error_of_its_own() -> None:
    fulfillment = delivery.hear_of(
        PurchaseFactory(offer=content_offer(), status="paid").pk, now=timezone.now()
    )
    assert fulfillment is not None
    with pytest.raises(CannotDeliver), transaction.atomic():
        digital.deliver(transitions.lock(fulfillment.pk), now=timezone.now())
