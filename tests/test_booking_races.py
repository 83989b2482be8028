"""Many at once: the last seat, changing places, an organizer in between, several sweeps."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import stamina

from fulfillment import delivery
from fulfillment.bookings import booking as bookings
from fulfillment.bookings import following, reminders
from fulfillment.bookings.errors import SlotTaken
from fulfillment.errors import NotPaidFor
from fulfillment.models import Fulfillment
from tests.booked_services import Service, booking_of, taken, told
from tests.conftest import at_once

pytestmark = pytest.mark.django_db(transaction=True)


def test_fifty_want_the_last_seat_and_one_gets_it() -> None:
    service = Service(inventory_total=None)
    slot = service.slot()
    buyers = [service.sold() for _ in range(50)]
    answers = at_once([lambda buyer=buyer: service.pick(buyer, slot) for buyer in buyers])
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert [error for error in refused if not isinstance(error, SlotTaken)] == []
    assert len(refused) == 49
    assert taken(slot) == [1]
    assert sum(told(buyer).count("booked") for buyer in buyers) == 1


def test_several_seats_each_fill_a_slot_and_no_more() -> None:
    service = Service(inventory_total=None)
    slot = service.slot(capacity=10)
    buyers = [service.sold(3) for _ in range(8)]
    answers = at_once([lambda buyer=buyer: service.pick(buyer, slot) for buyer in buyers])
    assert len([a for a in answers if isinstance(a, SlotTaken)]) == 5
    assert taken(slot) == [9]


@pytest.fixture
def no_second_try() -> Iterator[None]:
    """A deadlock isn't tried again, but seen."""
    stamina.set_active(False)
    yield
    stamina.set_active(True)


@pytest.mark.usefixtures("no_second_try")
def test_two_who_change_places_neither_hang_nor_fail() -> None:
    service = Service(inventory_total=None)
    one, two = service.slot(hours=48, capacity=2), service.slot(hours=50, capacity=2)
    first, second = service.sold(), service.sold()
    for purchase, slot in ((first, one), (second, two)):
        service.pick(purchase, slot)
    for _ in range(10):
        mine, theirs = booking_of(first).slot, booking_of(second).slot
        assert mine
        assert theirs
        answers = at_once(
            [
                lambda to=theirs: service.pick(first, to),
                lambda to=mine: service.pick(second, to),
            ]
        )
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        assert taken(one, two) == [1, 1]
        assert booking_of(first).slot == theirs


def test_same_click_ten_times_is_one_booking_and_one_e_mail() -> None:
    service = Service()
    slot, purchase = service.slot(capacity=10), service.sold()
    at_once([lambda: service.pick(purchase, slot)] * 10)
    assert taken(slot) == [1]
    assert told(purchase) == ["booking_open", "booked"]
    at_once([lambda: service.cancel(purchase)] * 10)
    assert taken(slot) == [0]
    assert told(purchase) == ["booking_open", "booked", "booking_cancelled"]


def test_one_attendee_picks_two_slots_at_once_and_has_one() -> None:
    service = Service()
    slots, purchase = [service.slot(hours=48 + n) for n in range(6)], service.sold()
    at_once([lambda slot=slot: service.pick(purchase, slot) for slot in slots])
    assert sum(taken(*slots)) == 1
    assert booking_of(purchase).sequence == 5  # each was told, in an order of its own


def test_refund_and_pick_at_once_leave_no_seat_taken() -> None:
    for _ in range(5):
        service = Service()
        slot, purchase = service.slot(), service.sold()
        key = booking_of(purchase).fulfillment_id
        at_once(
            [
                lambda to=slot, it=purchase, by=service: by.pick(it, to),
                lambda key=key, by=service: delivery.revoke(
                    key, reason="x", now=by.now, source="tests"
                ),
            ]
        )
        assert taken(slot) == [0]
        assert Fulfillment.objects.get(pk=key).status == "REVOKED"


def test_slot_is_called_off_while_people_book_it() -> None:
    service = Service(inventory_total=None)
    slot = service.slot(capacity=20)
    buyers = [service.sold() for _ in range(10)]

    def call_off() -> None:
        slot.is_called_off = True
        slot.save()

    at_once([call_off, *[lambda buyer=buyer: service.pick(buyer, slot) for buyer in buyers]])
    following.follow(now=service.now)
    assert taken(slot) == [0]
    assert {booking_of(buyer).scheduled_at for buyer in buyers} == {None}


def test_sweeps_at_once_tell_everybody_once() -> None:
    service = Service(inventory_total=None)
    slot = service.slot(hours=30, capacity=20)
    buyers = [service.sold() for _ in range(6)]
    for buyer in buyers:
        service.pick(buyer, slot)
    slot.starts_at += timedelta(minutes=1)
    slot.save()
    done = at_once([lambda: following.follow(now=service.now)] * 5)
    assert sum(done) == 6
    at = slot.starts_at - timedelta(hours=5)
    reminded = at_once([lambda: reminders.remind(now=at)] * 5)
    assert sum(reminded) == 6
    expected = ["booking_open", "booked", "booked", "service_reminder"]
    assert [told(buyer) for buyer in buyers] == [expected] * 6


def test_staff_and_attendee_change_one_booking_at_once() -> None:
    service = Service()
    first, second = service.slot(hours=48), service.slot(hours=50)
    purchase = service.sold()
    service.pick(purchase, first)
    key = booking_of(purchase).fulfillment_id
    answers: list[Any] = at_once(
        [
            lambda: service.cancel(purchase),
            lambda: bookings.put_into(
                fulfillment_id=key, slot_id=second.pk, actor=purchase.user, now=service.now
            ),
            lambda: bookings.call_off(fulfillment_id=key, actor=purchase.user, now=service.now),
        ]
    )
    assert not [a for a in answers if isinstance(a, Exception) and not isinstance(a, NotPaidFor)]
    booking = booking_of(purchase)
    assert sum(taken(first, second)) == (booking.slot is not None)
    assert booking.fulfillment.status == ("FULFILLED" if booking.slot else "PROCESSING")
