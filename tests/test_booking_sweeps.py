"""What happens to bookings by itself: they follow their slot, and people are reminded."""

from datetime import timedelta
from typing import Any

import pytest

from fulfillment.bookings import following, reminders
from fulfillment.bookings.models import TimeSlot
from fulfillment.templatetags.booked_time import until
from purchases import mail
from purchases.models import Purchase
from tests.booked_services import (
    Service,
    booking_of,
    last_entry,
    refunding,
    taken,
    told,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def service() -> Service:
    return Service()


# -- Bookings follow their slot -------------------------------------------------------------------


def test_booking_follows_a_slot_that_was_moved(service: Service) -> None:
    slot = service.slot(capacity=2)
    movers = [service.sold(), service.sold()]
    for purchase in movers:
        service.pick(purchase, slot)
    assert following.follow(now=service.now) == 0
    slot.starts_at += timedelta(hours=2)
    slot.ends_at += timedelta(hours=2)
    slot.save()
    assert following.follow(now=service.now) == 2
    assert following.follow(now=service.now) == 0
    for purchase in movers:
        assert booking_of(purchase).scheduled_at == slot.starts_at
        calendar, event = last_entry(purchase)
        assert (calendar["method"], event["sequence"]) == ("REQUEST", 1)
        assert event["dtstart"].dt == slot.starts_at
    assert taken(slot) == [2]


def test_booking_follows_the_services_location(service: Service) -> None:
    purchase = service.sold()
    service.pick(purchase, service.slot())
    service.details.location = ""
    service.details.save()
    assert following.follow(now=service.now) == 1
    assert booking_of(purchase).location == ""
    assert "location" not in last_entry(purchase)[1]
    service.details.delete()
    assert following.follow(now=service.now) == 0


def test_slot_that_is_called_off_sends_its_people_back_to_choose(service: Service) -> None:
    slot, purchase = service.slot(), service.sold()
    service.pick(purchase, slot)
    slot.is_called_off = True
    slot.save()
    assert following.follow(now=service.now) == 1
    assert taken(slot) == [0]
    assert booking_of(purchase).fulfillment.status == "PROCESSING"
    assert last_entry(purchase)[0]["method"] == "CANCEL"
    slot.delete()


def test_what_is_over_or_set_by_staff_follows_nothing(service: Service) -> None:
    over, purchase = service.slot(hours=1), service.sold()
    service.pick(purchase, over)
    TimeSlot.objects.filter(pk=over.pk).update(is_called_off=True)
    assert following.follow(now=over.starts_at) == 0
    assert taken(over) == [1]


# -- Reminders ------------------------------------------------------------------------------------


def test_reminder_comes_once_a_day_before_and_again_after_a_move(service: Service) -> None:
    purchase = service.sold()
    first, second = service.slot(hours=72), service.slot(hours=80)
    service.pick(purchase, first)
    near = first.starts_at - timedelta(hours=24)
    assert reminders.remind(now=near - timedelta(minutes=1)) == 0
    assert reminders.remind(now=near) == 1
    assert reminders.remind(now=near + timedelta(hours=1)) == 0
    service.pick(purchase, second, now=near)
    assert reminders.remind(now=near + timedelta(hours=9)) == 1
    assert told(purchase).count("service_reminder") == 2
    reminder = purchase.emails.filter(occasion="service_reminder").latest("pk")
    assert reminder.reference == second.starts_at.isoformat()
    text = mail.message(reminder, purchase).body
    assert until(second.starts_at, second.ends_at) in text


def test_who_booked_just_now_is_reminded_no_sooner_than_two_hours_later(service: Service) -> None:
    soon, later = service.sold(), service.sold()
    service.pick(soon, service.slot(hours=1))
    service.pick(later, service.slot(hours=5))
    assert reminders.remind(now=service.now + timedelta(minutes=30)) == 0
    assert reminders.remind(now=service.now + timedelta(hours=2)) == 1
    assert told(later)[-1] == "service_reminder"
    assert told(soon)[-1] == "booked"


def test_nobody_is_reminded_of_what_is_cancelled_over_or_on_its_way_back(service: Service) -> None:
    slot = service.slot(hours=30, capacity=3)
    cancelled, refunded, missed = service.sold(), service.sold(), service.sold()
    for purchase in (cancelled, refunded, missed):
        service.pick(purchase, slot)
    service.cancel(cancelled)
    refunding(refunded, service.now)
    assert reminders.remind(now=slot.starts_at) == 0
    assert reminders.remind(now=slot.starts_at - timedelta(hours=1)) == 1
    assert told(missed)[-1] == "service_reminder"


def test_one_booking_that_fails_does_not_stop_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = service.slot(hours=30, capacity=2)
    bad, good = service.sold(), service.sold()
    for purchase in (bad, good):
        service.pick(purchase, slot)
    slot.ends_at += timedelta(minutes=5)
    slot.save()
    enqueue = mail.enqueue

    def failing(purchase: Purchase, *args: Any, **kwargs: Any) -> None:
        if purchase.pk == bad.pk:
            raise RuntimeError("broken")
        enqueue(purchase, *args, **kwargs)

    monkeypatch.setattr(mail, "enqueue", failing)
    at = slot.starts_at - timedelta(hours=5)
    assert following.follow(now=at) == 1
    assert reminders.remind(now=at + timedelta(hours=3)) == 1
    monkeypatch.undo()
    assert following.follow(now=at) == 1
