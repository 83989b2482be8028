"""A series of slots: shown first, then added, all of it or nothing."""

import html
from datetime import date, time, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment.bookings import series
from fulfillment.bookings.errors import InvalidSeries
from fulfillment.bookings.models import TimeSlot
from tests.booked_services import Service
from tests.conftest import at_once
from tests.factories import MembershipFactory, OfferFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def owner(service: Service) -> Client:
    user = UserFactory(is_staff=True)
    MembershipFactory(organization=service.offer.event.organization, user=user)
    client = Client()
    client.force_login(user)
    return client


MONDAY = date(2090, 1, 2)
WEEK = {
    "first_day": "2090-01-02", "last_day": "2090-01-08", "weekdays": ["0", "2"], "opens": "10:00",
    "closes": "12:00", "length": "30", "pause": "10", "capacity": "2",
}  # fmt: skip
# 10:00, 10:40 and 11:20 on Monday and on Wednesday.
STARTS = [f"2090-01-0{day} {hour}" for day in (2, 4) for hour in ("10:00", "10:40", "11:20")]


def test_series_is_shown_first_then_added_once(service: Service, owner: Client) -> None:
    url = reverse("admin:fulfillment_timeslot_series", args=[service.offer.pk])
    assert 'value="30"' in owner.get(url).content.decode()
    page = owner.post(url, WEEK | {"preview": "1"}).content.decode()
    assert "6 slots" in page
    assert "12 seats" in page
    assert not TimeSlot.objects.exists()
    assert owner.post(url, WEEK | {"add": "1"}).status_code == 302
    slots = TimeSlot.objects.order_by("starts_at")
    assert [f"{slot.starts_at:%Y-%m-%d %H:%M}" for slot in slots] == STARTS
    assert {slot.ends_at - slot.starts_at for slot in slots} == {timedelta(minutes=30)}
    again = owner.post(url, WEEK | {"weekdays": ["0", "1"], "add": "1"}).content.decode()
    assert "slots at 3 of these times" in again
    assert TimeSlot.objects.count() == 6


def test_series_is_for_services_only(service: Service, owner: Client) -> None:
    hoodie = OfferFactory(event=service.offer.event)
    url = reverse("admin:fulfillment_timeslot_series", args=[hoodie.pk])
    assert owner.get(url).status_code == 404


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"last_day": "2090-01-01"}, "within a year"),
        ({"last_day": "2095-01-01"}, "within a year"),
        ({"weekdays": ["5"], "last_day": "2090-01-03"}, "No slot fits in"),
        ({"closes": "10:20"}, "No slot fits in"),
        ({"closes": "09:00"}, "No slot fits in"),
        ({"first_day": "2020-01-06", "last_day": "2020-01-07"}, "in the past"),
        ({"length": "1", "pause": "0", "opens": "00:00", "closes": "23:59"}, "more than 500"),
        ({"length": "0"}, "greater than or equal to 1"),
        ({"capacity": "9999999999"}, "less than or equal to"),
        ({"weekdays": []}, "required"),
        ({"first_day": "0001-01-01", "last_day": "0001-01-02"}, "in the past"),
        ({"first_day": "9999-12-31", "last_day": "9999-12-31", "length": "10080"}, "No slot"),
    ],
)
def test_series_that_makes_no_sense_adds_nothing(
    service: Service, owner: Client, change: dict[str, Any], said: str
) -> None:
    url = reverse("admin:fulfillment_timeslot_series", args=[service.offer.pk])
    page = owner.post(url, WEEK | change | {"add": "1"})
    assert page.status_code == 200
    assert said in html.unescape(page.content.decode())
    assert not TimeSlot.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_series_sent_twice_at_once_is_added_once() -> None:
    service = Service()
    wanted = series.Series(
        MONDAY, MONDAY, frozenset({0}), time(10), time(18), timedelta(minutes=10), timedelta(0), 1
    )
    answers = at_once([lambda: series.add(service.offer.pk, wanted, now=service.now)] * 4)
    assert sorted(str(type(a).__name__) for a in answers) == ["InvalidSeries"] * 3 + ["int"]
    assert TimeSlot.objects.count() == 48


def test_series_of_no_length_is_refused_and_not_endless() -> None:
    with pytest.raises(InvalidSeries):
        series.plan(
            series.Series(
                MONDAY, MONDAY, frozenset({0}), time(10), time(18), timedelta(0), timedelta(0), 1
            ),
            now=timezone.now(),
        )
