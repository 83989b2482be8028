"""The calendar's entry, as a calendar library reads it, whatever people called their things."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import translation
from icalendar import Calendar

from fulfillment.bookings import invitation
from fulfillment.bookings.models import TimeSlot
from fulfillment.templatetags.booked_time import until
from purchases import mail
from purchases.models import Email
from tests.booked_services import Service, booking_of, last_entry
from tests.factories import EventFactory, OrganizationFactory, UserFactory

pytestmark = pytest.mark.django_db

NAMES = [
    pytest.param("Coaching", id="plain"),
    pytest.param("Coffee, cake; talk: \\n and \\, more", id="what iCalendar escapes"),
    pytest.param("Line one\nLine two\r\nEND:VEVENT\rX-EVIL:1", id="line breaks"),
    pytest.param("Überraschung für größte Köpfe 🎉 " * 6, id="long, and not ASCII"),
    pytest.param("“Quotes” \"double\" 'single' ^n ^' = % {{ 7 }} <b>", id="quotes"),
    pytest.param("bell\x07 tab\t escape\x1b[31m end", id="control characters"),
]


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_read_as_it_was_meant(name: str, settings: Any) -> None:
    settings.FRONTEND_URL = "https://offers.example.com"
    settings.DEFAULT_FROM_EMAIL = "Offers <events@example.com>"
    organization = OrganizationFactory(name=name[:150])
    service = Service(
        title=name[:200], event=EventFactory(title=name[:200], organization=organization)
    )
    service.details.location, service.details.instructions = name[:300], name
    service.details.save()
    user = UserFactory(email="ada+x@example.com", first_name=name[:20], last_name="L")
    purchase, slot = service.sold(user=user), service.slot()
    service.pick(purchase, slot)

    email = purchase.emails.get(occasion="booked")
    raw = base64.b64decode(email.attachments[0]["content"])
    # RFC 5545, 3.1: lines of at most 75 octets, each with CR LF, and none that isn't a line.
    lines = raw.split(b"\r\n")
    assert max(map(len, lines)) <= 75
    assert b"\n" not in b"".join(lines)
    assert not [each for each in raw.decode() if each < " " and each not in "\r\n\t"]
    calendar, event = last_entry(purchase)
    assert (calendar["version"], calendar["method"]) == ("2.0", "REQUEST")
    assert calendar["prodid"]
    assert event["summary"] == mail.one_line(f"{name[:200]} ({name[:200]})")
    assert event["location"] == mail.one_line(name[:300])
    assert str(event["description"]).startswith(name.split()[0].rstrip("\x07"))
    assert str(event["description"]).endswith(f"/purchases/{purchase.pk}")
    assert event["organizer"] == "mailto:events@example.com"
    # Parameters know no backslash; the library takes one away as it reads.
    assert event["organizer"].params["CN"] == mail.one_line(name[:150]).replace("\\,", ",")
    assert event["attendee"] == "mailto:ada+x@example.com"
    assert event["attendee"].params["CN"] == mail.one_line(user.get_full_name())
    assert event["dtstart"].dt == slot.starts_at
    assert event["dtend"].dt == slot.ends_at
    assert event["dtstamp"].dt.tzinfo is not None
    assert event["status"] == "CONFIRMED"
    assert "X-EVIL" not in event
    assert str(event["uid"]) == str(booking_of(purchase).uid)
    for text in ("booked", "booking_open"):
        message = mail.message(purchase.emails.get(occasion=text), purchase)
        assert "\n" not in message.subject
        assert message.message().as_bytes()


def test_cancellation_has_what_the_standard_asks_for() -> None:
    service = Service()
    purchase, slot = service.sold(), service.slot()
    service.pick(purchase, slot)
    service.cancel(purchase)
    calendar, event = last_entry(purchase)
    assert (calendar["method"], event["status"], event["sequence"]) == ("CANCEL", "CANCELLED", 1)
    assert event["attendee"]
    assert event["organizer"]
    assert event["dtstart"].dt == slot.starts_at


def test_download_is_the_same_entry_without_people_to_answer() -> None:
    service = Service()
    purchase, slot = service.sold(2), service.slot(capacity=2)
    service.pick(purchase, slot)
    browser = Client()
    browser.force_login(purchase.user)
    file = Calendar.from_ical(browser.get(f"/purchases/{purchase.pk}/booking.ics").content)
    event = file.events[0]
    assert file["method"] == "PUBLISH"
    assert "attendee" not in event
    assert event["uid"] == last_entry(purchase)[1]["uid"]
    assert event["sequence"] == 0
    assert str(event["summary"]).startswith("2 × Coaching")


@pytest.mark.parametrize("address", ["", "no\r\nATTENDEE:mailto:x@y"])
def test_address_that_is_none_breaks_no_entry(address: str) -> None:
    service = Service()
    purchase = service.sold(user=UserFactory(email=address))
    service.pick(purchase, service.slot())
    raw = base64.b64decode(purchase.emails.get(occasion="booked").attachments[0]["content"])
    event: Any = Calendar.from_ical(raw).events[0]
    assert raw.count(b"ATTENDEE") == (1 if address else 0) + raw.count(b"%0D%0AATTENDEE")
    assert ("attendee" in event) == bool(address)


def said_of(slot: TimeSlot) -> str:
    with translation.override("en"):
        return until(slot.starts_at, slot.ends_at)


def test_message_says_what_its_entry_says_even_after_another_change() -> None:
    service = Service()
    purchase = service.sold()
    first, second = service.slot(hours=48), service.slot(hours=75)
    service.pick(purchase, first)
    service.pick(purchase, second)
    older, newer = purchase.emails.filter(occasion="booked").order_by("pk")
    assert said_of(first) in " ".join(mail.message(older, purchase).body.split())
    assert "move or cancel it until" not in mail.message(older, purchase).body
    assert "move or cancel it until" in mail.message(newer, purchase).body
    service.cancel(purchase)
    cancelled: Email = purchase.emails.get(occasion="booking_cancelled")
    text = mail.message(cancelled, purchase)
    assert "still yours" in text.body
    assert said_of(second) in " ".join(text.body.split())
    html = str(text.alternatives[0][0])
    assert "still yours" in html


def test_entry_can_be_read_back() -> None:
    service = Service()
    purchase, slot = service.sold(), service.slot()
    booking = service.pick(purchase, slot)
    entry = invitation.read(
        invitation.write(booking, method="REQUEST", now=datetime.now(UTC) + timedelta(days=1))
    )
    assert (entry.starts_at, entry.ends_at, entry.location, entry.sequence) == (
        slot.starts_at, slot.ends_at, "Room 3", 0,
    )  # fmt: skip
