"""What the attendee sees of a booking: the page, and lists in the API."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from offers.models import Offer
from tests.booked_services import Service, taken
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def service() -> Service:
    return Service()


def test_page_books_moves_and_cancels(service: Service) -> None:
    purchase = service.sold()
    first, second = service.slot(hours=48), service.slot(hours=72, capacity=3)
    browser = Client()
    browser.force_login(purchase.user)
    url = f"/purchases/{purchase.pk}"
    page = browser.get(url).content.decode()
    assert "Choose your time" in page
    assert f'value="{first.pk}"' in page
    assert "3 left" in page
    assert browser.get(f"{url}/booking.ics").status_code == 404

    page = browser.post(f"{url}/booking", {"slot": first.pk}, follow=True).content.decode()
    assert "Booked:" in page
    assert "Your time:" in page
    assert f'Your time: <time datetime="{first.starts_at.isoformat()}"' in page
    assert f'It ends at <time datetime="{first.ends_at.isoformat()}"' in page
    assert f'value="{first.pk}"' not in page
    assert f'value="{second.pk}"' in page
    file = browser.get(f"{url}/booking.ics")
    assert file["Content-Type"] == "text/calendar; charset=utf-8; method=PUBLISH"
    assert b"METHOD:PUBLISH" in file.content

    browser.post(f"{url}/booking", {"slot": second.pk})
    assert taken(first, second) == [0, 1]
    page = browser.post(f"{url}/booking/cancel", follow=True).content.decode()
    assert "Cancelled." in page
    assert taken(first, second) == [0, 0]


def test_page_says_what_is_wrong(service: Service) -> None:
    purchase, full = service.sold(), service.slot()
    service.pick(service.sold(), full)
    browser = Client()
    browser.force_login(purchase.user)
    url = f"/purchases/{purchase.pk}"
    assert "The organizer will set one" in browser.get(url).content.decode()
    for sent, said in (
        ({"slot": full.pk}, "No seats are left"),
        ({}, "Choose a time first"),
        ({"slot": "x"}, "damaged"),
    ):
        answer = browser.post(f"{url}/booking", sent, follow=True).content.decode()
        assert said in answer


def test_page_past_the_deadline_has_no_buttons(service: Service) -> None:
    purchase, slot = service.sold(), service.slot(hours=2)
    service.pick(purchase, slot)
    service.slot(hours=90)
    browser = Client()
    browser.force_login(purchase.user)
    page = browser.get(f"/purchases/{purchase.pk}").content.decode()
    assert "tell the organizer" in page
    assert "Move" not in page
    assert "Choose" not in page
    assert "booking/cancel" not in page.split("Add to my calendar")[1]


def test_bookings_of_others_are_not_to_be_found(service: Service, client_of: Any) -> None:
    purchase, slot = service.sold(), service.slot()
    service.pick(purchase, slot)
    stranger = UserFactory()
    client, browser = client_of(stranger), Client()
    browser.force_login(stranger)
    url = f"/api/v1/purchases/{purchase.pk}"
    for answer in (
        client.get(f"{url}/slots/"),
        client.post(f"{url}/booking/", {"slot": str(slot.pk)}),
        client.delete(f"{url}/booking/"),
        browser.get(f"/purchases/{purchase.pk}/booking.ics"),
    ):
        assert answer.status_code == 404
    browser.post(f"/purchases/{purchase.pk}/booking/cancel")
    assert taken(slot) == [1]


def test_list_of_purchases_takes_as_many_queries_for_many_bookings(
    client_of: Any, django_assert_max_num_queries: Any
) -> None:
    service, user = Service(inventory_total=None), UserFactory()
    slot = service.slot(capacity=50)
    for _ in range(30):
        service.pick(service.sold(user=user), slot)
    with django_assert_max_num_queries(10):
        listed = client_of(user).get("/api/v1/purchases/").json()["results"]
    assert len([p for p in listed if p["fulfillment"]["scheduled_at"]]) == 30


def test_slots_are_listed_page_by_page(service: Service, client_of: Any) -> None:
    purchase = service.sold()
    slots = [service.slot(hours=48 + n) for n in range(3)]
    client = client_of(purchase.user)
    first = client.get(f"/api/v1/purchases/{purchase.pk}/slots/", {"page_size": 2}).json()
    rest = client.get(first["next"]).json()
    ids = [slot["id"] for page in (first, rest) for slot in page["results"]]
    assert ids == [str(slot.pk) for slot in slots]


def test_offer_without_details_has_the_defaults(client_of: Any) -> None:
    service = Service()
    service.details.delete()
    service.offer = Offer.objects.get(pk=service.offer.pk)
    purchase, slot = service.sold(), service.slot()
    booking = service.pick(purchase, slot)
    assert booking.can_change_until == slot.starts_at - timedelta(hours=24)
    assert booking.location == ""
