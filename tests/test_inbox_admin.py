"""Stripe's events in admin: found, read, and processed again, each failure with its reason."""

import html
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import caches
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from purchases import inbox_admin, webhooks, wording
from purchases.models import Purchase, StripeEvent
from purchases.states import Status
from tests.factories import PurchaseFactory, UserFactory
from tests.test_permissions import browser_of

pytestmark = pytest.mark.django_db

INBOX = reverse("admin:purchases_stripeevent_changelist")
COMPLETED = "checkout.session.completed"
State = StripeEvent.State


@pytest.fixture
def staff() -> Client:
    caches["process"].clear()
    return browser_of(UserFactory(username="root", is_superuser=True))


def stored(key: str, *, type: str = COMPLETED, about: Any = None, **fields: Any) -> StripeEvent:
    now = timezone.now()
    event: StripeEvent = StripeEvent.objects.create(
        id=f"evt_{key}",
        type=type,
        created=now,
        received_at=now,
        due_at=now,
        payload={"id": f"evt_{key}", "livemode": False, "data": {"object": about or {"id": "x"}}},
        **fields,
    )
    return event


def replay(staff: Client, *events: StripeEvent, **more: Any) -> str:
    sent = {"action": "replay", "_selected_action": [event.pk for event in events]} | more
    # From the list of what failed, which those leave that don't any more.
    url = f"{INBOX}?state__exact=dead" if "select_across" in more else INBOX
    return html.unescape(staff.post(url, sent, follow=True).content.decode())


def states() -> list[str]:
    return sorted(StripeEvent.objects.values_list("state", flat=True))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(event: Any) -> None:
        raise ZeroDivisionError("no <b>luck</b>")

    monkeypatch.setitem(webhooks.HANDLERS, COMPLETED, fail)


def test_list_tells_state_purchase_next_try_and_reason(staff: Client) -> None:
    purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
    paid = PurchaseFactory(status=Status.PAID)
    Purchase.objects.filter(pk=paid.pk).update(payment_intent_id="pi_1")
    stored("session", about={"id": purchase.checkout_session_id}, state=State.PROCESSED)
    stored("refund", type="refund.updated", about={"id": "re_1", "payment_intent": "pi_1"})
    stored("unknown", about={"id": 5, "payment_intent": {"id": "pi_1"}}, state=State.DEAD,
           error="Traceback:\n  line\nValueError: <i>odd</i>\n")  # fmt: skip
    text = staff.get(INBOX).content.decode()
    for shown in (purchase, paid):
        assert reverse("admin:purchases_purchase_change", args=[shown.pk]) in text
    assert "ValueError: &lt;i&gt;odd&lt;/i&gt;" in text
    assert "<i>odd" not in text
    assert "Dead" in text


def test_list_takes_as_many_queries_for_many_events(
    staff: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for number in range(40):
        purchase = PurchaseFactory(status=Status.AWAITING_PAYMENT)
        stored(str(number), about={"id": purchase.checkout_session_id})
    with django_assert_max_num_queries(14):
        assert staff.get(INBOX).status_code == 200


def test_events_are_found_by_state_type_and_day(staff: Client) -> None:
    today = timezone.now()
    dead = stored("dead", state=State.DEAD)
    refund = stored("refund", type="refund.updated", state=State.PROCESSED)
    odd = stored("odd", type="price.created", state=State.IGNORED)
    StripeEvent.objects.filter(pk=odd.pk).update(received_at=today - timedelta(days=3))
    for query, expected in (
        ({"state__exact": "dead"}, {dead}),
        ({"type": "refund.updated"}, {refund}),
        ({"type": "other"}, {odd}),
        ({"received_at__gte": f"{today - timedelta(days=1)}"}, {dead, refund}),
        ({"q": dead.pk}, {dead}),
    ):
        assert set(staff.get(INBOX, query).context["cl"].queryset) == expected, query


def test_page_shows_payload_and_traceback_as_text(staff: Client) -> None:
    event = stored("1", about={"id": "<script>alert(1)</script>"}, error="Traceback <b>\nX: y")
    text = staff.get(wording.page(event)).content.decode()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "Traceback &lt;b&gt;" in text
    assert "Process again" in text


def test_payment_that_was_not_heard_of_is_replayed_by_the_button(
    sandbox: Any, client_of: Any, staff: Client, broken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = stored("1", state=State.DEAD, attempts=12)
    url = reverse("admin:purchases_stripeevent_replay", args=[event.pk])
    assert staff.get(url).status_code == 405
    text = html.unescape(staff.post(url, follow=True).content.decode())
    assert "fails: ZeroDivisionError: no <b>luck</b>" in text
    monkeypatch.setitem(webhooks.HANDLERS, COMPLETED, lambda occurrence: Purchase())
    assert "1 processed again." in staff.post(url, follow=True).content.decode()
    assert states() == ["processed"]
    entry = LogEntry.objects.filter(object_id=event.pk).first()
    assert entry is not None
    assert (entry.user.username, entry.change_message) == ("root", "Processed again.")


def test_id_that_holds_what_admin_quotes_leads_to_its_page(staff: Client) -> None:
    event = stored("3AB", type="price.created", state=State.DEAD)
    url = reverse("admin:purchases_stripeevent_replay", args=[event.pk])
    answer = staff.post(url, follow=True)
    assert answer.context["original"] == event
    assert url in answer.content.decode()


def test_each_failure_is_told_with_its_reason(staff: Client, broken: None) -> None:
    good = stored("good", type="price.created", state=State.FAILED)
    bad = [stored(f"bad{number}", state=State.FAILED) for number in range(3)]
    text = replay(staff, good, *bad)
    assert "1 processed again." in text
    assert text.count("fails: ZeroDivisionError") == 3
    assert all(event.pk in text for event in bad)


def test_thousands_are_left_to_the_worker(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_admin, "AT_ONCE", 3)
    events = [stored(str(number), type="price.created", state=State.DEAD) for number in range(10)]
    text = replay(staff, events[0], select_across="1", index="0")
    assert "10 are being processed again by the worker" in text
    assert states() == ["stored"] * 10
    assert LogEntry.objects.count() == 10
    assert webhooks.process_unprocessed(now=timezone.now()) == 10
    assert states() == ["ignored"] * 10


def test_what_a_page_has_no_patience_for_is_left_to_the_worker(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_admin, "PATIENCE", timedelta(seconds=-1))
    text = replay(staff, *(stored(key, type="price.created") for key in "ab"))
    assert "2 are being processed again by the worker" in text


def test_menu_counts_what_failed_for_superusers(staff: Client) -> None:
    def badge(client: Client) -> str:
        caches["process"].clear()
        groups = client.get(reverse("admin:password_change")).context["sidebar_navigation"]
        [item] = [i for group in groups for i in group["items"] if i["title"] == "Stripe events"]
        return str(item.get("badge"))

    assert badge(staff) == "None"
    stored("1", state=State.DEAD)
    stored("2", state=State.FAILED)
    stored("3", state=State.IGNORED)
    assert badge(staff) == "2"
    assert badge(browser_of(UserFactory(is_staff=True))) == "None"
