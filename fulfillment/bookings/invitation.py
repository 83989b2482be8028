"""The booking in the attendee's calendar: an entry by iCalendar, which mail programs take in.

https://www.rfc-editor.org/rfc/rfc5545 is the format, https://www.rfc-editor.org/rfc/rfc5546 who
sends what when, https://www.rfc-editor.org/rfc/rfc6047 how it goes by e-mail. Times are in UTC, so
that no entry depends on anybody's table of zones.

icalendar is loaded with the first entry: three megabytes, which most web processes never need.
"""

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parseaddr
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.conf import settings
from django.contrib.auth.models import User

from fulfillment.bookings.models import ServiceBooking, details_of
from purchases.mail import one_line
from purchases.models import Purchase

if TYPE_CHECKING:
    from icalendar import vCalAddress

PRODUCT = "-//Offers//Bookings//EN"
# Those that may be in the address of a mailto: beside letters and digits.
# https://www.rfc-editor.org/rfc/rfc6068#section-2
IN_AN_ADDRESS = "@!$'*+-._~"


def write(booking: ServiceBooking, *, method: str, now: datetime) -> bytes:
    """The entry of a booking that has a time, as it is at ``now``.

    ``REQUEST`` invites the attendee or changes the invitation, ``CANCEL`` takes it back (RFC 5546,
    3.2.2 and 3.2.5); ``PUBLISH`` is for a download: it names no attendee (3.2.1).
    """
    from icalendar import Calendar, Event

    purchase = booking.fulfillment.purchase
    entry = Event()
    entry.add("uid", str(booking.uid))
    entry.add("sequence", booking.sequence or 0)
    entry.add("dtstamp", now.astimezone(UTC))
    assert booking.scheduled_at and booking.ends_at, "no time"  # noqa: S101, PT018 - callers see to it
    entry.add("dtstart", booking.scheduled_at.astimezone(UTC))
    entry.add("dtend", booking.ends_at.astimezone(UTC))
    entry.add("summary", _summary(purchase))
    entry.add("status", "CANCELLED" if method == "CANCEL" else "CONFIRMED")
    entry["organizer"] = _person(
        parseaddr(settings.DEFAULT_FROM_EMAIL)[1], purchase.event.organization.name
    )
    if method != "PUBLISH" and purchase.user.email:
        entry.add("attendee", _attendee(purchase.user))
    if booking.location:
        entry.add("location", one_line(booking.location))
    page = settings.FRONTEND_URL and f"{settings.FRONTEND_URL}/purchases/{purchase.pk}"
    if about := "\n\n".join(filter(None, [_lines(details_of(purchase.offer).instructions), page])):
        entry.add("description", about)
    if page:
        entry.add("url", page)
    calendar = Calendar()
    calendar.add("prodid", PRODUCT)
    calendar.add("version", "2.0")
    calendar.add("method", method)
    calendar.add_component(entry)
    written: bytes = calendar.to_ical()
    return written


@dataclass(frozen=True)
class Entry:
    starts_at: datetime
    ends_at: datetime
    location: str
    sequence: int


def read(entry: bytes) -> Entry:
    """What an entry of ours says; for the e-mail that it goes with, which must say the same."""
    from icalendar import Calendar

    event: Any = Calendar.from_ical(entry).events[0]
    return Entry(
        starts_at=event["dtstart"].dt,
        ends_at=event["dtend"].dt,
        location=str(event.get("location", "")),
        sequence=int(event["sequence"]),
    )


def _summary(purchase: Purchase) -> str:
    several = f"{purchase.quantity} × " if purchase.quantity > 1 else ""
    return one_line(f"{several}{purchase.offer_title} ({purchase.event.title})")


def _person(address: str, name: str) -> "vCalAddress":
    from icalendar import vCalAddress

    person = vCalAddress("mailto:" + quote(address, safe=IN_AN_ADDRESS))
    person.params["CN"] = one_line(name)
    return person


def _attendee(user: User) -> "vCalAddress":
    attendee = _person(user.email, user.get_full_name() or user.get_username())
    attendee.params["ROLE"] = "REQ-PARTICIPANT"
    # Nobody reads an answer: who can't come says so on the page, where the seat is given back.
    attendee.params["PARTSTAT"] = "ACCEPTED"
    attendee.params["RSVP"] = "FALSE"
    return attendee


def _lines(text: str) -> str:
    """``text`` without the control characters that iCalendar forbids, its lines kept."""
    return "".join(
        each if each in "\n\t" or unicodedata.category(each) != "Cc" else ""
        for each in text.replace("\r\n", "\n").replace("\r", "\n")
    ).strip()
