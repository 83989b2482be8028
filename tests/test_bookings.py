"""Services: from the purchase to a time and back; refusals, deadlines, staff."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core import mail as outbox
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone
from icalendar import Calendar

from fulfillment import delivery
from fulfillment.bookings import booking as bookings
from fulfillment.bookings.errors import (
    InvalidTime,
    SlotPast,
    SlotTaken,
    TooLateToChange,
)
from fulfillment.bookings.models import TimeSlot
from fulfillment.errors import FulfillmentAlreadyResolved, NotPaidFor
from fulfillment.models import Fulfillment
from offers.models import Membership
from purchases import mail, refunds
from purchases.models import Purchase
from purchases.states import Status
from tests.booked_services import (
    Service,
    booking_of,
    refund_failed,
    refunding,
    taken,
    told,
)
from tests.conftest import buy, code, deliver_now
from tests.factories import MembershipFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db

OPEN = {"scheduled_at": None, "ends_at": None, "location": None, "can_change_until": None}


@pytest.fixture
def service() -> Service:
    return Service()


def in_json(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


# -- From the purchase to a time, and back --------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_service_is_bought_booked_moved_cancelled_and_refunded(
    sandbox: Any, client_of: Any, settings: Any
) -> None:
    settings.FRONTEND_URL = "https://offers.example.com"
    service = Service()
    first, second = service.slot(hours=48, capacity=2), service.slot(hours=72, capacity=3)
    service.slot(hours=96, capacity=1)  # too small for two
    buyer = UserFactory(email="ada@example.com", first_name="Ada")
    client = client_of(buyer)
    bought = buy(client, service.offer, 2).json()
    url = f"/api/v1/purchases/{bought['id']}/"
    assert code(client.get(f"{url}slots/")) == "not_paid_for"
    sandbox.act(bought["checkout_session_id"], "pay")
    sandbox.deliver()
    deliver_now(bought["id"])
    purchase = Purchase.objects.get(pk=bought["id"])

    opened = client.get(url).json()["fulfillment"]
    assert opened == {"type": "SERVICE", "status": "PROCESSING", "fulfilled_at": None, **OPEN}
    listed = client.get(f"{url}slots/").json()
    assert listed["results"] == [
        {
            "id": str(slot.pk),
            "starts_at": in_json(slot.starts_at),
            "ends_at": in_json(slot.ends_at),
            "seats_left": slot.capacity,
            "location": "Room 3",
        }
        for slot in (first, second)
    ]

    for _ in range(2):  # the second time changes nothing
        booked = client.post(f"{url}booking/", {"slot": str(first.pk)})
        assert booked.status_code == 200
        shown = booked.json()["fulfillment"]
        assert shown["status"] == "FULFILLED"
        assert shown["scheduled_at"] == in_json(first.starts_at)
        assert shown["ends_at"] == in_json(first.ends_at)
        assert shown["can_change_until"] == in_json(first.starts_at - timedelta(hours=24))
        assert shown["location"] == "Room 3"
    assert client.get(url).json()["fulfillment"] == shown
    assert taken(first, second) == [2, 0]
    mail.send_due(now=timezone.now())  # each before the next change makes it untrue

    moved = client.post(f"{url}booking/", {"slot": str(second.pk)}).json()
    assert moved["fulfillment"]["scheduled_at"] == in_json(second.starts_at)
    assert taken(first, second) == [0, 2]
    mail.send_due(now=timezone.now())
    for _ in range(2):
        cancelled = client.delete(f"{url}booking/")
        assert cancelled.status_code == 200
        assert cancelled.json()["fulfillment"] == opened
    assert taken(first, second) == [0, 0]
    mail.send_due(now=timezone.now())
    client.post(f"{url}booking/", {"slot": str(first.pk)})
    mail.send_due(now=timezone.now())

    owner = MembershipFactory(
        organization=service.offer.event.organization, role=Membership.Role.OWNER
    ).user
    assert client_of(owner).post(f"{url}refund/", {}).status_code == 202
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    delivery.take_in(now=timezone.now())
    after = client.get(url).json()
    assert (after["status"], after["fulfillment"]["status"]) == ("refunded", "REVOKED")
    assert {key: after["fulfillment"][key] for key in OPEN} == OPEN
    assert taken(first, second) == [0, 0]

    mail.send_due(now=timezone.now())
    assert told(purchase) == [
        "booking_open", "booked", "booked", "booking_cancelled", "booked", "booking_cancelled",
    ]  # fmt: skip
    about = [
        message
        for message in outbox.outbox
        if any(part.get_content_type() == "text/calendar" for part in message.message().walk())
    ]
    invites = [part_of(message) for message in about]
    assert [str(calendar["method"]) for calendar in invites] == [
        "REQUEST", "REQUEST", "CANCEL", "REQUEST", "CANCEL",
    ]  # fmt: skip
    events = [calendar.events[0] for calendar in invites]
    assert [event["sequence"] for event in events] == [0, 1, 2, 3, 4]
    assert len({str(event["uid"]) for event in events}) == 1
    starts = [first, second, second, first, first]
    assert [event["dtstart"].dt for event in events] == [slot.starts_at for slot in starts]
    assert f"https://offers.example.com/purchases/{purchase.pk}" in about[0].body
    assert "Hello Ada," in about[0].body
    assert "Room 3" in about[0].body


def part_of(message: Any) -> Any:
    """The calendar in a message, as a mail program gets it."""
    (part,) = [p for p in message.message().walk() if p.get_content_type() == "text/calendar"]
    calendar = Calendar.from_ical(part.get_payload(decode=True))
    assert part.get_param("method") == calendar["method"]
    assert part.get_content_charset() == "utf-8"
    return calendar


def test_delivering_twice_makes_one_booking_and_one_e_mail(service: Service) -> None:
    purchase = service.sold()
    fulfillment = Fulfillment.objects.get(purchase=purchase)
    assert not delivery.DELIVERERS["SERVICE"].deliver(fulfillment, now=service.now)
    assert told(purchase) == ["booking_open"]
    service.pick(purchase, service.slot())
    assert delivery.DELIVERERS["SERVICE"].deliver(fulfillment, now=service.now)
    assert told(purchase) == ["booking_open", "booked"]


def test_fulfilment_is_done_while_there_is_a_time(service: Service) -> None:
    purchase = service.sold()
    slot = service.slot()
    service.pick(purchase, slot)
    service.cancel(purchase)
    service.pick(purchase, slot)
    fulfillment = Fulfillment.objects.get(purchase=purchase)
    assert [t.name for t in fulfillment.transitions.all()][-3:] == ["fulfill", "reopen", "fulfill"]
    assert fulfillment.transitions.last().actor == purchase.user
    assert not fulfillment.is_due


# -- Refusals -------------------------------------------------------------------------------------


def test_slots_that_can_not_be_booked_say_why(service: Service, client_of: Any) -> None:
    purchase = service.sold(2)
    client = client_of(purchase.user)
    small, past = service.slot(capacity=1), service.slot(hours=-1, capacity=5)
    called_off = service.slot(hours=50, capacity=5)
    TimeSlot.objects.filter(pk=called_off.pk).update(is_called_off=True)
    other = Service().slot(capacity=5)
    url = f"/api/v1/purchases/{purchase.pk}/booking/"
    for slot, status, expected in (
        (small, 409, "slot_full"),
        (past, 409, "slot_past"),
        (called_off, 404, "slot_not_found"),
        (other, 404, "slot_not_found"),
    ):
        answer = client.post(url, {"slot": str(slot.pk)})
        assert (answer.status_code, code(answer)) == (status, expected)
    assert (
        "1 seat is left" in client.post(url, {"slot": str(small.pk)}).json()["errors"][0]["detail"]
    )
    for body in ({}, {"slot": "x"}, {"slot": 7}):
        assert client.post(url, body).status_code == 400
    assert client.get(f"/api/v1/purchases/{purchase.pk}/slots/").json()["results"] == []
    assert taken(small, past, called_off, other) == [0, 0, 0, 0]
    assert told(purchase) == ["booking_open"]


def test_purchase_that_is_no_service_or_not_prepared_yet_has_no_booking(
    service: Service, client_of: Any
) -> None:
    hoodie = PurchaseFactory(status=Status.PAID)
    fresh = PurchaseFactory(offer=service.offer, status=Status.PAID)
    for purchase in (hoodie, fresh):
        url = f"/api/v1/purchases/{purchase.pk}"
        client = client_of(purchase.user)
        body = {"slot": str(purchase.pk)}
        for answer in (
            client.get(f"{url}/slots/"),
            client.post(f"{url}/booking/", body),
            client.delete(f"{url}/booking/"),
        ):
            assert (answer.status_code, code(answer)) == (409, "no_booking")


def test_nothing_is_booked_of_what_is_not_paid_any_more(service: Service, client_of: Any) -> None:
    purchase, slot = service.sold(), service.slot()
    service.pick(purchase, slot)
    refunding(purchase, service.now)
    url = f"/api/v1/purchases/{purchase.pk}"
    client = client_of(purchase.user)
    for answer in (
        client.get(f"{url}/slots/"),
        client.post(f"{url}/booking/", {"slot": str(service.slot(hours=90).pk)}),
        client.delete(f"{url}/booking/"),
    ):
        assert (answer.status_code, code(answer)) == (409, "not_paid_for")
    with pytest.raises(NotPaidFor):
        bookings.call_off(
            fulfillment_id=booking_of(purchase).fulfillment_id,
            actor=UserFactory(),
            now=service.now,
        )
    assert client.get(f"{url}/").json()["fulfillment"]["scheduled_at"] is None
    assert taken(slot) == [1]  # until the money is back: the refund may fail
    refund_failed(purchase, service.now)
    assert client.get(f"{url}/").json()["fulfillment"]["scheduled_at"] == in_json(slot.starts_at)


@pytest.mark.parametrize(("minutes", "is_late"), [(-1, False), (0, False), (1, True)])
def test_booking_is_moved_and_cancelled_until_the_deadline(
    service: Service, minutes: int, is_late: bool
) -> None:
    slot, other = service.slot(hours=48), service.slot(hours=60)
    at = slot.starts_at - timedelta(hours=24) + timedelta(minutes=minutes)
    mover, canceller = service.sold(), service.sold()
    service.pick(mover, slot)
    if is_late:
        with pytest.raises(TooLateToChange, match=f"{slot.starts_at:%H:%M} UTC"):
            service.pick(mover, other, now=at)
        with pytest.raises(TooLateToChange):
            service.cancel(mover, now=at)
        service.pick(mover, slot, now=at)  # as it is: harmless
        assert taken(slot, other) == [1, 0]
    else:
        service.pick(mover, other, now=at)
        service.pick(canceller, slot)
        service.cancel(canceller, now=at)
        assert taken(slot, other) == [0, 1]


def test_first_time_is_picked_until_the_slot_begins(service: Service) -> None:
    purchase, slot = service.sold(), service.slot(hours=1)
    with pytest.raises(SlotPast):
        service.pick(purchase, slot, now=slot.starts_at)
    service.pick(purchase, slot, now=slot.starts_at - timedelta(minutes=1))
    assert taken(slot) == [1]


def test_deadline_that_was_promised_stands(service: Service) -> None:
    purchase, slot = service.sold(), service.slot(hours=48)
    service.pick(purchase, slot)
    service.details.change_deadline_hours = 100
    service.details.save()
    service.cancel(purchase, now=service.now + timedelta(hours=23))
    assert taken(slot) == [0]


def test_database_refuses_an_overbooked_slot(service: Service) -> None:
    slot = service.slot(capacity=2)
    with pytest.raises(IntegrityError, match="slot_never_overbooked"), transaction.atomic():
        TimeSlot.objects.filter(pk=slot.pk).update(taken=3)


def test_form_that_was_open_meanwhile_leaves_the_seats_alone(service: Service) -> None:
    slot = service.slot(capacity=2)
    stale = TimeSlot.objects.get(pk=slot.pk)
    service.pick(service.sold(), slot)
    stale.capacity = 5
    stale.save()
    assert taken(slot) == [1]
    assert slot.capacity == 5


# -- Staff ----------------------------------------------------------------------------------------


def test_staff_set_a_time_without_slots_and_past_the_deadline(service: Service) -> None:
    purchase, staff = service.sold(), UserFactory()
    fulfillment = Fulfillment.objects.get(purchase=purchase)
    at = service.now + timedelta(hours=3)

    def set_time(starts_at: datetime, location: str = "Lobby") -> None:
        bookings.set_time(
            fulfillment_id=fulfillment.pk,
            starts_at=starts_at,
            ends_at=starts_at + timedelta(hours=1),
            location=location,
            actor=staff,
            now=service.now,
        )

    set_time(at)
    set_time(at)  # the same again: nobody is told twice
    booking = booking_of(purchase)
    assert (booking.scheduled_at, booking.location, booking.slot) == (at, "Lobby", None)
    assert booking.fulfillment.status == "FULFILLED"
    set_time(at + timedelta(hours=1))
    assert told(purchase) == ["booking_open", "booked", "booked"]
    moved = fulfillment.transitions.last()
    assert (moved.name, moved.actor, moved.source) == ("move", staff, "admin")
    with pytest.raises(InvalidTime):
        set_time(service.now)
    with pytest.raises(TooLateToChange):
        service.cancel(purchase)
    bookings.call_off(fulfillment_id=fulfillment.pk, actor=staff, now=service.now)
    assert booking_of(purchase).scheduled_at is None
    assert told(purchase)[-1] == "booking_cancelled"


def test_staffs_own_time_gives_the_slots_seat_back(service: Service) -> None:
    purchase, slot = service.sold(), service.slot()
    service.pick(purchase, slot)
    bookings.set_time(
        fulfillment_id=booking_of(purchase).fulfillment_id,
        starts_at=slot.starts_at,
        ends_at=slot.ends_at,
        location="",
        actor=UserFactory(),
        now=service.now,
    )
    assert taken(slot) == [0]
    assert booking_of(purchase).slot is None


def test_staff_book_a_slot_past_the_deadline_but_no_full_one(service: Service) -> None:
    purchase, slot, full = service.sold(), service.slot(hours=2), service.slot(hours=3)
    service.pick(purchase, slot)
    service.pick(service.sold(), full)
    key = booking_of(purchase).fulfillment_id
    later = service.slot(hours=4)
    bookings.put_into(fulfillment_id=key, slot_id=later.pk, actor=UserFactory(), now=service.now)
    assert taken(slot, later) == [0, 1]
    with pytest.raises(SlotTaken):
        bookings.put_into(fulfillment_id=key, slot_id=full.pk, actor=UserFactory(), now=service.now)


def test_what_staff_marked_as_done_is_not_booked(service: Service) -> None:
    purchase, slot = service.sold(), service.slot()
    key = booking_of(purchase).fulfillment_id
    delivery.mark_done(key, reason="Met in the hall.", now=service.now, source="admin")
    with pytest.raises(FulfillmentAlreadyResolved):
        service.pick(purchase, slot)
    assert taken(slot) == [0]
    browser = Client()
    browser.force_login(purchase.user)
    assert "nothing left to book" in browser.get(f"/purchases/{purchase.pk}").content.decode()


def test_revoking_frees_the_seats_and_tells_only_of_what_was_to_come(service: Service) -> None:
    slot = service.slot(hours=2, capacity=2)
    early, late = service.sold(), service.sold()
    for purchase in (early, late):
        service.pick(purchase, slot)
    for purchase, now in ((early, service.now), (late, slot.starts_at)):
        delivery.revoke(booking_of(purchase).fulfillment_id, reason="x", now=now, source="admin")
    assert taken(slot) == [0]
    assert told(early)[-1] == "booking_cancelled"
    assert told(late)[-1] == "booked"
