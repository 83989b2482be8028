"""Releasing stuck reservations: what is listed, what Stripe says, what is then released."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from offers import turns
from offers.models import Offer
from purchases import stuck_holds
from purchases.bulk import jobs, running
from purchases.bulk.models import BulkJob
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import Sandbox, buy, counters
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory
from tests.sandbox_process import wait_for
from tests.test_bulk_admin import choose
from tests.test_permissions import browser_of
from tests.two_organizations import CALLERS, World

LIST = reverse("admin:offers_offer_changelist")
PAGE = reverse("admin:offers_offer_stuck_holds")


def staff(offer: Offer, role: str = "support") -> User:
    user: User = MembershipFactory(organization=offer.event.organization, role=role).user
    return user


def held(offer: Offer, *, overdue: bool = False, **more: Any) -> Purchase:
    made = timezone.now() - timedelta(minutes=20 if overdue else 1)
    purchase: Purchase = PurchaseFactory(offer=offer, created_at=made, **more)
    return purchase


def page_of(*offers: Offer) -> str:
    return PAGE + "?" + "&".join(f"offer={offer.pk}" for offer in offers)


def box(purchase: Purchase, page: str) -> str:
    """The hold's tick box, as far as it matters: "", "unticked" or "ticked"."""
    key = f'name="hold" value="{purchase.pk}" id="hold-{purchase.pk}"'
    if key not in page:
        return ""
    return "ticked" if page.split(key)[1].startswith(" checked") else "unticked"


def run() -> None:
    running.run_due(now=timezone.now())


@pytest.fixture(autouse=True)
def nobody_asks() -> Iterator[None]:
    """The threads of a test whose Stripe hung may not have ended yet."""
    stuck_holds._under_way.clear()
    yield
    stuck_holds._under_way.clear()


@pytest.mark.django_db
def test_every_unpaid_hold_is_listed_and_the_overdue_ones_are_ticked() -> None:
    offer = OfferFactory()
    late, fresh = held(offer, overdue=True, quantity=3), held(offer)
    looked_at = held(offer, overdue=True)
    Purchase.objects.filter(pk=looked_at.pk).update(problem="Stripe reports another amount.")
    sold = PurchaseFactory(offer=offer, status=Status.PAID)
    other = held(OfferFactory(event=offer.event))
    page = browser_of(staff(offer)).get(page_of(offer)).content.decode()
    assert [box(p, page) for p in (late, fresh, looked_at, sold, other)] == [
        "ticked", "unticked", "unticked", "", "",
    ]  # fmt: skip
    assert str(late.user) in page
    assert "Stripe reports another amount." in page
    assert stuck_holds.NO_SESSION in page


@pytest.mark.django_db(transaction=True)
def test_what_stripe_says_is_shown_and_decides(sandbox: Sandbox, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=9)
    bought = [buy(client_of(UserFactory()), offer).json() for _ in range(3)]
    sandbox.act(bought[0]["checkout_session_id"], "pay")
    sandbox.act(bought[1]["checkout_session_id"], "expire")
    client = browser_of(staff(offer))
    purchases = [Purchase.objects.get(pk=each["id"]) for each in bought]
    said = stuck_holds.ask_stripe(purchases)
    assert [said[purchase.pk] for purchase in purchases] == [
        "paid", "expired", "open, can still be paid",
    ]  # fmt: skip
    assert "open, can still be paid" in client.get(page_of(offer)).content.decode()

    answer = client.post(page_of(offer), {"hold": [str(p.pk) for p in purchases]})
    run()
    job = BulkJob.objects.get()
    assert answer.headers["Location"] == reverse("admin:purchases_bulkjob_change", args=[job.pk])
    job.refresh_from_db()
    assert (job.done, job.refused) == (2, 1)
    assert [Purchase.objects.get(pk=p.pk).status for p in purchases] == [
        Status.PAID, Status.RELEASED, Status.RELEASED,
    ]  # fmt: skip
    assert counters(offer) == (0, 1)


@pytest.mark.django_db(transaction=True)
def test_page_opens_in_time_while_stripe_hangs(
    sandbox: Sandbox, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory(inventory_total=None)
    for _ in range(6):
        buy(client_of(UserFactory()), offer)
    sandbox.faults(hang_rate=1.0)
    monkeypatch.setattr(stuck_holds, "PATIENCE", 0.5)
    began = time.monotonic()
    said = stuck_holds.ask_stripe(list(Purchase.objects.all()))
    assert time.monotonic() - began < 3
    assert set(said.values()) <= {stuck_holds.NO_ANSWER, stuck_holds.NOT_ASKED}
    assert stuck_holds.NO_ANSWER in said.values()


@pytest.mark.django_db(transaction=True)
def test_page_that_waits_for_stripe_lets_others_work(
    sandbox: Sandbox, client_of: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.REQUESTS_AT_ONCE = 1
    monkeypatch.setattr(turns, "PATIENCE", 60)
    offer = OfferFactory(inventory_total=None)
    buy(client_of(UserFactory()), offer)
    client = browser_of(staff(offer))
    monkeypatch.setattr(stuck_holds, "PATIENCE", 60)
    sandbox.faults(hang_rate=1.0)

    def look() -> Any:
        try:
            return client.get(page_of(offer))
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=1) as pool:
        page = pool.submit(look)
        wait_for(lambda: any(not future.done() for future in stuck_holds._under_way))
        assert client.get("/livez").status_code == 200
        assert not page.done(), "Stripe was given up before the other request was answered"
        sandbox.faults()
        assert page.result(60).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_second_page_does_not_ask_while_the_first_one_waits_for_stripe(
    sandbox: Sandbox, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the first one was sent: its threads wait on."""
    offer = OfferFactory(inventory_total=None)
    for _ in range(6):
        buy(client_of(UserFactory()), offer)
    client = browser_of(staff(offer))
    monkeypatch.setattr(stuck_holds, "PATIENCE", 0.5)
    sandbox.faults(hang_rate=1.0)
    stuck_holds.ask_stripe(list(Purchase.objects.all()))
    sandbox.faults()
    first = list(stuck_holds._under_way)
    assert not all(future.done() for future in first)
    page = client.get(page_of(offer)).content.decode()
    assert page.count(stuck_holds.NOT_ASKED) == 6
    assert f'<a href="{page_of(offer)}" class="underline">ask again</a>' in page
    assert stuck_holds._under_way == first
    wait([future for future in first if not future.cancelled()])
    page = client.get(page_of(offer)).content.decode()
    assert page.count("open, can still be paid") == 6
    assert "ask again" not in page


@pytest.mark.django_db(transaction=True)
def test_stripe_is_asked_about_so_many_and_no_more(
    sandbox: Sandbox, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = OfferFactory(inventory_total=None)
    for _ in range(3):
        buy(client_of(UserFactory()), offer)
    monkeypatch.setattr(stuck_holds, "ASKED", 2)
    said = stuck_holds.ask_stripe(list(Purchase.objects.order_by("created_at")))
    assert sorted(said.values()) == ["not asked", *["open, can still be paid"] * 2]
    sandbox.faults(error_rate=1.0, error_status=500)
    said = stuck_holds.ask_stripe(list(Purchase.objects.all()))
    assert set(said.values()) == {"can't be reached", "not asked"}


@pytest.mark.django_db
def test_only_what_is_ticked_and_of_these_offers_is_released() -> None:
    offer = OfferFactory()
    chosen, left = held(offer, overdue=True), held(offer, overdue=True)
    foreign = held(OfferFactory(), overdue=True)
    client = browser_of(staff(offer))
    client.post(page_of(offer), {"hold": [str(chosen.pk), str(foreign.pk), "no id"]})
    job = BulkJob.objects.get()
    assert [item.object_id for item in job.items.all()] == [chosen.pk]
    assert left.status == Status.RESERVED
    assert (job.organization, job.kind) == (offer.event.organization, "release_holds")


@pytest.mark.django_db
def test_ticking_nothing_releases_nothing() -> None:
    offer = OfferFactory()
    purchase = held(offer, overdue=True)
    page = browser_of(staff(offer)).post(page_of(offer), {}, follow=True).content.decode()
    assert "Nothing was ticked" in page
    assert box(purchase, page) == "ticked"
    assert not BulkJob.objects.exists()


@pytest.mark.django_db
def test_holds_of_two_organizations_are_released_one_at_a_time() -> None:
    one, other = OfferFactory(), OfferFactory()
    late, later = held(one, overdue=True), held(other, overdue=True)
    user = staff(one)
    MembershipFactory(user=user, organization=other.event.organization, role="support")
    answer = browser_of(user).post(
        page_of(one, other), {"hold": [str(late.pk), str(later.pk)]}, follow=True
    )
    assert "belong to several organizations" in answer.content.decode()
    assert not BulkJob.objects.exists()


@pytest.mark.django_db
def test_too_many_ticked_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LARGEST", 1)
    offer = OfferFactory()
    keys = [str(held(offer, overdue=True).pk) for _ in range(2)]
    answer = browser_of(staff(offer)).post(page_of(offer), {"hold": keys}, follow=True)
    assert "At most 1 at once" in answer.content.decode()


@pytest.mark.django_db
def test_same_holds_ticked_twice_lead_to_the_first_job() -> None:
    offer = OfferFactory()
    sent = {"hold": [str(held(offer, overdue=True).pk)]}
    client = browser_of(staff(offer))
    client.post(page_of(offer), sent)
    job = BulkJob.objects.get()
    page = client.post(page_of(offer), sent, follow=True).content.decode()
    assert "The same is being done to 1 of these" in page
    assert reverse("admin:purchases_bulkjob_change", args=[job.pk]) in page
    assert BulkJob.objects.filter(started_at__isnull=False).count() == 1


@pytest.mark.django_db
def test_overdue_ones_beyond_the_listed_are_released_when_that_is_ticked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stuck_holds, "LISTED", 2)
    offer = OfferFactory()
    overdue = [held(offer, overdue=True) for _ in range(4)]
    held(offer)
    client = browser_of(staff(offer))
    page = client.get(page_of(offer)).content.decode()
    shown = [purchase for purchase in overdue if box(purchase, page)]
    assert len(shown) == 2
    assert "Release the 2 other overdue ones" in page
    sent = {"beyond": "1", "hold": [str(shown[0].pk)], "shown": [str(p.pk) for p in shown]}
    client.post(page_of(offer), sent)
    chosen = {item.object_id for item in BulkJob.objects.get().items.all()}
    assert chosen == {p.pk for p in overdue} - {shown[1].pk}


@pytest.mark.django_db
def test_action_of_the_list_leads_to_the_holds_of_the_chosen_offers() -> None:
    one, other = OfferFactory(), OfferFactory()
    late, untouched = held(one, overdue=True), held(other, overdue=True)
    page = choose(browser_of(staff(one)), "release_stuck_holds", one, other, url=LIST)
    shown = page.content.decode()
    assert page.redirect_chain[-1][0] == page_of(one)
    assert (box(late, shown), box(untouched, shown)) == ("ticked", "")


@pytest.mark.django_db
def test_list_is_filtered_by_overdue_holds() -> None:
    stuck, fresh, idle = (OfferFactory() for _ in range(3))
    held(stuck, overdue=True)
    held(fresh)
    client = browser_of(UserFactory(is_superuser=True))
    for value, expected in (("yes", {stuck}), ("no", {fresh, idle})):
        answer = client.get(LIST, {"overdue_holds": value})
        assert set(answer.context["cl"].queryset) == expected


@pytest.mark.django_db
@pytest.mark.parametrize("who", CALLERS)
def test_holds_are_shown_to_and_released_by_members_alone(who: str) -> None:
    world = World()
    purchase = held(world.home.public_offer, overdue=True)
    client = browser_of(world.people[who])
    url = page_of(world.home.public_offer)
    inside = who in ("owner", "manager", "support", "superuser")
    outside = 404 if who in ("rival", "ticked") else 302
    assert client.get(url).status_code == (200 if inside else outside)
    change = client.get(
        reverse("admin:offers_offer_change", args=[world.home.public_offer.pk])
    ).content.decode()
    assert (f'href="{url}"' in change) == inside
    before = BulkJob.objects.count()
    client.post(url, {"hold": [str(purchase.pk)]})
    assert (BulkJob.objects.count() > before) == inside


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["", "?offer=x", "?offer=00000000-0000-0000-0000-000000000000"])
def test_address_without_an_offer_leads_nowhere(query: str) -> None:
    client = browser_of(UserFactory(is_superuser=True))
    assert client.get(PAGE + query).status_code == 404
