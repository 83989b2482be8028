"""Who changed what about an offer, whichever way; and that a purchase writes none of it."""

import html
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from offers import lifecycle
from offers.models import Offer
from purchases import stripe_catalog
from purchases.states import Status
from tests.conftest import buy
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.test_admin_pages import opened, save
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db


def entries(offer: Offer) -> list[Any]:
    """Without the first, which says that it was made."""
    return list(Offer.history.filter(id=offer.pk).order_by("history_id"))[1:]


def manager_of(offer: Offer) -> Any:
    return MembershipFactory(organization=offer.event.organization, role="manager").user


def test_form_writes_one_entry_with_all_of_it_and_none_for_nothing() -> None:
    offer = OfferFactory()
    user = manager_of(offer)
    client = browser_of(user)
    session = EventSessionFactory(event=offer.event)
    tier = TicketTierFactory(event=offer.event)
    form = opened(client, offer)
    assert save(client, offer, form) == {}
    assert entries(offer) == []

    changes = {
        "title": "New", "inventory_total": 12, "target_sessions": [session.pk],
        "target_ticket_tiers": [tier.pk],
    }  # fmt: skip
    assert save(client, offer, opened(client, offer) | changes) == {}

    (entry,) = entries(offer)
    assert (entry.title, entry.inventory_total) == ("New", 12)
    assert (entry.target_sessions, entry.target_ticket_tiers) == ([session.pk], [tier.pk])
    assert (entry.history_user, entry.history_change_reason) == (user, "admin")


def test_api_writes_one_entry_by_the_tokens_user(client_of: Any) -> None:
    user = MembershipFactory().user
    event = EventFactory(organization=user.memberships.get().organization)
    tier = TicketTierFactory(event=event)
    sent = {"event": event.slug, "title": "A", "offer_type": "SERVICE", "price": "5",
            "currency": "USD", "target_ticket_tiers": [tier.slug]}  # fmt: skip
    client = client_of(user)
    made = client.post("/api/v1/offers/", sent).json()
    client.patch(f"/api/v1/offers/{made['id']}/", {"inventory_total": 3, "title": "B"})
    client.patch(f"/api/v1/offers/{made['id']}/", {"target_ticket_tiers": []})
    client.delete(f"/api/v1/offers/{made['id']}/")
    kept = Offer.history.filter(id=made["id"]).order_by("history_id")
    assert [
        (e.title, e.inventory_total, e.target_ticket_tiers, e.is_archived, e.history_change_reason)
        for e in kept
    ] == [
        ("A", None, [tier.pk], False, "API"),
        ("B", 3, [tier.pk], False, "API"),
        ("B", 3, [], False, "API"),
        ("B", 3, [], True, "archived, API"),
    ]
    assert {entry.history_user for entry in kept} == {user}


def test_task_that_ends_sales_writes_an_entry_by_nobody() -> None:
    offer = OfferFactory(expires_at=timezone.now() - timedelta(minutes=1))
    other = OfferFactory()
    call_command("expire_offers")
    (entry,) = entries(offer)
    assert (entry.is_active, entry.history_user) == (False, None)
    assert entry.history_change_reason == "the sale has ended"
    assert entries(other) == []


def test_step_with_many_writes_an_entry_each_by_whom_it_was() -> None:
    event, user = EventFactory(), UserFactory()
    offers = OfferFactory.create_batch(3, event=event)
    keys = [offer.pk for offer in offers]
    lifecycle.take_all(lifecycle.PAUSE, keys, now=timezone.now(), source="admin", actor=user)
    for offer in offers:
        (entry,) = entries(offer)
        assert (entry.is_active, entry.history_user) == (False, user)
        assert entry.history_change_reason == "paused, admin"


def test_refused_change_leaves_no_entry(client_of: Any) -> None:
    offer = OfferFactory()
    PurchaseFactory(offer=offer, status=Status.PAID)
    client = client_of(manager_of(offer))
    answer = client.patch(f"/api/v1/offers/{offer.pk}/", {"inventory_total": 20, "price": "1.00"})
    assert answer.status_code in (400, 409)
    assert entries(offer) == []


@pytest.mark.django_db(transaction=True)
def test_purchase_writes_no_entry_and_asks_nothing_of_the_history(
    sandbox: Any, client_of: Any
) -> None:
    offer = OfferFactory()
    with CaptureQueriesContext(connection) as asked:
        bought = buy(client_of(UserFactory()), offer, 2).json()
        sandbox.act(bought["checkout_session_id"], "pay")
        sandbox.deliver()
        stripe_catalog.sync_offer(offer.pk, now=timezone.now())
    offer.refresh_from_db()
    assert offer.inventory_sold == 2
    assert offer.stripe_price_id is not None
    assert [q["sql"] for q in asked.captured_queries if "historical" in q["sql"]] == []
    assert entries(offer) == []


# -- The page -------------------------------------------------------------------------------------


def history_page(offer: Any) -> str:
    return reverse("admin:offers_offer_history", args=[getattr(offer, "pk", offer)])


def test_page_says_who_changed_what_from_what_to_what(
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    offer = OfferFactory(title="Old <b>", original_price=80)
    user = manager_of(offer)
    client = browser_of(user)
    tier = TicketTierFactory(event=offer.event, title="Gallery")
    form = opened(client, offer)
    save(client, offer, form | {"title": "New", "price": "60", "target_ticket_tiers": [tier.pk]})
    for title in ("A", "B", "C"):
        save(client, offer, form | {"title": title})
    with django_assert_max_num_queries(20):
        answer = client.get(history_page(offer))
    shown = " ".join(html.unescape(answer.content.decode()).split())
    assert "Old &lt;b&gt;" in answer.content.decode()
    for text in (
        "50.00 USD",
        "60.00 USD",
        "Gallery",
        "everyone",
        user.username,
        "The offer was made.",
    ):
        assert text in shown
    assert "evert" not in shown
    change = answer.context["changes"][-2]
    assert sorted(label for label, *_ in change["differences"]) == [
        "Price", "Target ticket tiers", "Title",
    ]  # fmt: skip


def test_page_names_what_was_deleted_by_its_key() -> None:
    offer = OfferFactory()
    client = browser_of(manager_of(offer))
    session = EventSessionFactory(event=offer.event)
    save(client, offer, opened(client, offer) | {"target_sessions": [session.pk]})
    key = session.pk
    offer.target_sessions.clear()
    session.delete()
    shown = client.get(history_page(offer)).content.decode()
    assert f"one that was deleted ({key})" in shown


def test_long_history_has_pages() -> None:
    offer = OfferFactory()
    for number in range(60):
        offer.title = f"Title {number}"
        offer.save()
    client = browser_of(manager_of(offer))
    first, second = (client.get(history_page(offer), {"p": page}) for page in (1, 2))
    assert (len(first.context["changes"]), len(second.context["changes"])) == (50, 11)
    # The last of a page is compared with the first of the next.
    assert all(change["differences"] for change in first.context["changes"])


def test_history_is_for_the_offers_organization_and_can_not_be_reverted_to() -> None:
    world = World()
    offer = world.home.offer
    offer.title = "Home offer, renamed"
    offer.save()
    entry = Offer.history.filter(id=offer.pk).latest()
    version = f"{history_page(offer)}{entry.pk}/"
    for who, status in (
        ("owner", 200), ("manager", 200), ("support", 200), ("superuser", 200), ("rival", 302),
        ("ticked", 302), ("buyer", 302), ("anonymous", 302),
    ):  # fmt: skip
        client = browser_of(world.people[who])
        answer = client.get(history_page(offer))
        assert answer.status_code in (status, 403 if status == 302 else status), who
        assert ("renamed" in answer.content.decode()) == (status == 200), who
        client.post(history_page(offer), {"title": "Reverted"})
        assert client.post(version, {"title": "Reverted"}).status_code in (302, 404)
    offer.refresh_from_db()
    assert offer.title == "Home offer, renamed"


@pytest.mark.parametrize("key", ["x", "00000000-0000-0000-0000-000000000000", "_27"])
def test_history_of_what_is_no_offer_leads_away(key: str) -> None:
    client = browser_of(UserFactory(is_superuser=True, is_staff=True))
    assert client.get(history_page(key)).status_code == 302
