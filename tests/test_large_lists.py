"""Lists that stop counting somewhere: what they say is true, and they find what is there."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import reverse

from offers import large_lists
from offers.large_lists import CountingPaginator, MoreThan, Search
from offers.models import Offer
from purchases.models import Purchase
from purchases.states import Status
from tests.factories import (
    EventFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    UserFactory,
    make_fulfillment,
)
from tests.test_admin_permissions import every_model, page
from tests.test_permissions import browser_of

FULFILMENTS = reverse("admin:fulfillment_fulfillment_changelist")
OFFERS = reverse("admin:offers_offer_changelist")


@pytest.fixture
def staff() -> Client:
    return browser_of(UserFactory(is_staff=True, is_superuser=True))


def test_a_count_that_was_given_up_says_so_however_it_is_written() -> None:
    count = MoreThan(10_000)
    assert {str(count), f"{count}", f"{count:,}"} == {"more than 10,000"}
    assert f"{count:>18}" == "  more than 10,000"
    assert count + 1 == 10_001


@pytest.mark.django_db
def test_rows_are_counted_to_the_bound_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingPaginator, "most", 3)
    event = EventFactory()
    OfferFactory.create_batch(3, event=event)
    counted = CountingPaginator(Offer.objects.order_by("pk"), 2).count
    assert (counted, isinstance(counted, MoreThan)) == (3, False)
    OfferFactory(event=event)
    counted = CountingPaginator(Offer.objects.order_by("pk"), 2).count
    assert (str(counted), isinstance(counted, MoreThan)) == ("more than 3", True)


@pytest.mark.django_db
def test_all_of_a_list_are_named_and_changed_as_many_as_they_are(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was chosen by "select all" is all there is, not what was counted."""
    monkeypatch.setattr(large_lists, "MOST_COUNTED", 3)
    monkeypatch.setattr(admin.site._registry[Offer], "list_per_page", 2)
    offers = OfferFactory.create_batch(5, event=EventFactory())
    shown = staff.get(OFFERS).content.decode()
    assert "Select all more than 3 offers" in " ".join(shown.split())
    sent = {"action": "pause", "select_across": "1", "_selected_action": [str(offers[0].pk)]}
    answer = staff.post(OFFERS, sent, follow=True)
    assert "5 paused." in answer.content.decode()
    assert not Offer.objects.filter(is_active=True).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["purchase__offer__title", "purchase__user__username"])
def test_what_others_have_hides_nothing_of_ones_own(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_lists, "MOST_LOOKED_UP", 3)
    for n in range(5):
        PurchaseFactory(offer__title=f"Mug {n}", user__username=f"mug-{n}")
    own = make_fulfillment(
        PurchaseFactory(status=Status.PAID, offer__title="Blue mug", user__username="bluemug")
    )
    organization = own.purchase.event.organization
    client = browser_of(MembershipFactory(organization=organization, role="manager").user)
    monkeypatch.setattr(admin.site._registry[type(own)], "search_fields", (path, "=id"))
    answer = client.get(FULFILMENTS, {"q": "mug"})
    assert list(answer.context["cl"].result_list) == [own]
    # Nor is anybody told how common a word is.
    assert [str(each) for each in answer.context["messages"]] == []


@pytest.mark.django_db
@pytest.mark.parametrize("bound", [1, 100])
def test_a_word_is_found_in_any_of_the_fields(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_lists, "MOST_LOOKED_UP", bound)
    titled = [PurchaseFactory(offer__title=f"Mug {n}") for n in range(3)]
    named = [PurchaseFactory(user__username=f"mug{n}") for n in range(2)]
    PurchaseFactory(offer__title="Poster")
    every = Purchase.objects.all()

    def search(fields: list[str], word: str) -> set[Purchase]:
        found = Search(Purchase, fields, word, known=lambda model: model._default_manager.all())
        return set(found.narrow(every))

    assert search(["=id", "offer__title", "user__username"], "mug") == {*titled, *named}
    assert search(["=id", "offer__title"], str(titled[0].pk)) == {titled[0]}
    assert search(["=id", "offer__title"], str(uuid.uuid4())) == set()


# -- The periods above a list ---------------------------------------------------------------------

IMPOSSIBLE: list[dict[str, Any]] = [
    {"month": 13}, {"month": 0}, {"month": 2, "day": 31}, {"month": 2, "day": 29},
    {"year": 2026, "month": 2, "day": 29}, {"year": 0}, {"day": 32}, {"month": "x"},
]  # fmt: skip


@pytest.mark.django_db
@every_model
def test_days_that_no_calendar_has_are_answered(staff: Client, model: type[models.Model]) -> None:
    hierarchy = admin.site._registry[model].date_hierarchy
    # One of 2026, the year that isn't said: it has no 29 February.
    sold = make_fulfillment()
    at = datetime(2026, 2, 3, tzinfo=UTC)
    type(sold).objects.update(paid_at=at, created_at=at)
    for units in IMPOSSIBLE if hierarchy else ():
        sent = {f"{hierarchy}__{unit}": value for unit, value in units.items()}
        answer = staff.get(page(model, "changelist"), sent, follow=True)
        assert answer.status_code == 200, sent


@pytest.mark.django_db
def test_periods_lead_from_years_to_days(staff: Client) -> None:
    first, last = make_fulfillment(), make_fulfillment()
    for row, at in (
        (first, datetime(2024, 12, 30, tzinfo=UTC)),
        (last, datetime(2026, 2, 3, tzinfo=UTC)),
    ):
        type(row).objects.filter(pk=row.pk).update(paid_at=at)
    shown = staff.get(FULFILMENTS).content.decode()
    assert all(f"?paid_at__year={year}" in shown for year in (2024, 2025, 2026))
    shown = staff.get(FULFILMENTS, {"paid_at__year": 2026}).content.decode()
    assert "February 2026" in shown
    assert "March 2026" not in shown
    shown = staff.get(FULFILMENTS, {"paid_at__year": 2026, "paid_at__month": 2}).content.decode()
    assert "February 3" in shown
    assert "February 4" not in shown
