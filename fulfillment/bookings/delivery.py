"""Delivering a service: the attendee is asked for a time, and has it once there is one."""

from collections.abc import Callable
from datetime import datetime
from itertools import groupby
from typing import Any

from fulfillment.bookings import (
    booking,
    invitation,
    letters,  # noqa: F401 - whoever delivers can also write what the e-mails say
    slots,
)
from fulfillment.bookings.models import ServiceBooking, details_of
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.models import Offer
from offers.times import written
from purchases import mail

# What ``describe`` reads, as lookups from the fulfilment.
PREFETCH: tuple[str, ...] = ("booking",)

# More would be no choice; the API lists them all.
ON_A_PAGE = 300


def deliver(fulfillment: Fulfillment, *, now: datetime) -> bool:
    """Make the booking and ask the attendee, or the organizer, for a time; done if there is one."""
    booked, _ = ServiceBooking.objects.get_or_create(
        fulfillment=fulfillment, defaults={"created_at": now, "changed_at": now}
    )
    if booked.scheduled_at is not None:
        return True
    mail.enqueue(fulfillment.purchase, "booking_open", now=now)
    return False


def letter(fulfillment: Fulfillment, *, now: datetime) -> mail.Letter | None:
    """The time that is booked, with the entry as the calendar has it, or that one is to be chosen.

    Nothing of a time that is over.
    """
    booked: ServiceBooking | None = getattr(fulfillment, "booking", None)
    if booked is None:
        return None
    if booked.scheduled_at is None:
        is_open = fulfillment.status == Status.PROCESSING
        return mail.Letter("booking_open") if is_open else None
    if booked.scheduled_at <= now:
        return None
    entry = invitation.write(booked, method="REQUEST", now=now)
    return mail.Letter(
        "booked", [mail.Attachment("invite.ics", "text/calendar; method=REQUEST", entry)]
    )


def missing(offer: Offer, *, now: datetime) -> str | None:
    if slots.free_slots(offer.pk, 1, now=now).exists():
        return None
    return "it has no time slots: its buyers wait until you set a time for each of them."


def revoke(fulfillment: Fulfillment, *, now: datetime) -> None:
    """Free the seats; the attendee's calendar hears of it if the time was still to come."""
    booking.take_back(fulfillment, now=now)


def describe(fulfillment: Fulfillment, *, absolute: Callable[[str], str]) -> dict[str, Any]:
    booked: ServiceBooking | None = getattr(fulfillment, "booking", None)
    if booked is None or not fulfillment.is_handed_out:
        return dict.fromkeys(("scheduled_at", "ends_at", "location", "can_change_until"))
    return {
        "scheduled_at": written(booked.scheduled_at),
        "ends_at": written(booked.ends_at),
        "location": booked.location or None,
        "can_change_until": written(booked.can_change_until),
    }


def page(fulfillment: Fulfillment, *, now: datetime) -> dict[str, Any]:
    booked: ServiceBooking | None = getattr(fulfillment, "booking", None)
    if booked is None:
        return {}
    deadline = booked.can_change_until
    may_change = booked.scheduled_at is None or (deadline is not None and now <= deadline)
    days = []
    if may_change and not (booked.scheduled_at is None and fulfillment.is_handed_out):
        purchase = fulfillment.purchase
        free = slots.free_slots(purchase.offer_id, purchase.quantity, now=now)
        free = free.exclude(pk=booked.slot_id) if booked.slot_id else free
        listed = free[:ON_A_PAGE]
        days = [
            (day, list(of_the_day))
            for day, of_the_day in groupby(listed, key=lambda slot: slot.starts_at.date())
        ]
    return {
        "booking": booked,
        "days": days,
        "may_change": may_change,
        "instructions": details_of(fulfillment.purchase.offer).instructions,
    }
