"""Services: from the purchase to a time and back; deadlines, staff, reminders."""

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
from fulfillment.bookings import following, reminders
from fulfillment.bookings.errors import (
    InvalidTime,
    SlotPast,
    SlotTaken,
    TooLateToChange,
)
from fulfillment.bookings.models import TimeSlot
from fulfillment.errors import FulfillmentAlreadyResolved, NotPaidFor
from fulfillment.models import Fulfillment
from offers.models import Membership, Offer
from purchases import mail, refunds
from purchases import transitions as purchase_transitions
from purchases.models import Purchase
from purchases.states import REFUND_FAILED, REQUEST_REFUND, Status
from tests.booked_services import Service, booking_of, last_entry, taken, told
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

    moved = client.post(f"{url}booking/", {"slot": str(second.pk)}).json()
    assert moved["fulfillment"]["scheduled_at"] == in_json(second.starts_at)
    assert taken(first, second) == [0, 2]
    for _ in range(2):
        cancelled = client.delete(f"{url}booking/")
        assert cancelled.status_code == 200
        assert cancelled.json()["fulfillment"] == opened
    assert taken(first, second) == [0, 0]
    client.post(f"{url}booking/", {"slot": str(first.pk)})

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
    refunding(purchase, service)
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
    refund_failed(purchase, service)
    assert client.get(f"{url}/").json()["fulfillment"]["scheduled_at"] == in_json(slot.starts_at)


def refunding(purchase: Purchase, service: Service) -> None:
    with transaction.atomic():
        purchase_transitions.apply(
            purchase_transitions.lock(purchase.pk), REQUEST_REFUND, now=service.now, source="tests"
        )


def refund_failed(purchase: Purchase, service: Service) -> None:
    with transaction.atomic():
        purchase_transitions.apply(
            purchase_transitions.lock(purchase.pk), REFUND_FAILED, now=service.now, source="tests"
        )


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
    assert f"{second.starts_at:%H:%M} to {second.ends_at:%H:%M} UTC" in text


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
    refunding(refunded, service)
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


# -- Pages ----------------------------------------------------------------------------------------


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
    assert f"{first.starts_at:%H:%M} to {first.ends_at:%H:%M} UTC" in page
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
    with django_assert_max_num_queries(6):
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
