"""Booking: an attendee picks, moves and cancels; staff set a time; a slot takes its people along.

Each function is one transaction under the locks of the purchase and its fulfilment, then of the
slots in the order of their keys. The seats, the booking, the fulfilment's status and the e-mail
with the calendar's entry commit together. A fulfilment has a time exactly while it is FULFILLED
(but for one that staff marked as done).
"""

import uuid
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from fulfillment import announcements, transitions
from fulfillment.bookings import invitation, slots
from fulfillment.bookings.errors import InvalidTime, NoBooking, TooLateToChange
from fulfillment.bookings.models import ServiceBooking, TimeSlot, details_of
from fulfillment.errors import NotPaidFor
from fulfillment.models import Fulfillment
from fulfillment.states import FULFILL, REOPEN, Status
from offers.contention import retried
from purchases import mail
from purchases.errors import PurchaseNotFound
from purchases.models import Purchase
from purchases.states import Status as PurchaseStatus


def choices(*, purchase_id: uuid.UUID, user: User, now: datetime) -> QuerySet[TimeSlot]:
    """The slots that the buyer may choose from, which have room for all that were bought.

    Called by the API and the page; no lock. Raises ``PurchaseNotFound``, ``NotPaidFor``,
    ``NoBooking``.
    """
    purchase = _own(purchase_id, user)
    if purchase.status != PurchaseStatus.PAID:
        raise NotPaidFor
    if not ServiceBooking.objects.filter(fulfillment__purchase=purchase).exists():
        raise NoBooking
    return slots.free_slots(purchase.offer_id, purchase.quantity, now=now)


# -- What attendees do ----------------------------------------------------------------------------


@retried
def pick(
    *, purchase_id: uuid.UUID, user: User, slot_id: uuid.UUID, now: datetime, source: str = "api"
) -> ServiceBooking:
    """Book the slot for the buyer's own purchase, or move the booking there.

    As many seats as units were bought; the slot they have already is theirs, whatever the hour.
    Called by the API and the page. Raises ``PurchaseNotFound``, ``NotPaidFor``, ``NoBooking``,
    ``FulfillmentAlreadyResolved`` (taken back, or done without a time), ``TooLateToChange``, and
    ``SlotNotFound``, ``SlotPast``, ``SlotTaken``.
    """
    with transaction.atomic():
        booking = _lock_own(purchase_id, user)
        if booking.slot_id != slot_id:
            _refuse_if_too_late(booking, now)
            _take_slot(booking, slot_id, now=now, source=source, actor=user)
    return booking


@retried
def cancel(
    *, purchase_id: uuid.UUID, user: User, now: datetime, source: str = "api"
) -> ServiceBooking:
    """Give the buyer's seats back; the purchase waits for another time. Harmless without one.

    Called by the API and the page. Raises ``PurchaseNotFound``, ``NotPaidFor``, ``NoBooking`` and
    ``TooLateToChange``.
    """
    with transaction.atomic():
        booking = _lock_own(purchase_id, user)
        if booking.scheduled_at is not None:
            _refuse_if_too_late(booking, now)
            _reopen(booking, now=now, source=source, actor=user)
    return booking


# -- What staff do, whatever the deadline ---------------------------------------------------------


@retried
def set_time(
    *,
    fulfillment_id: uuid.UUID,
    starts_at: datetime,
    ends_at: datetime,
    location: str,
    actor: User,
    now: datetime,
    source: str = "admin",
) -> ServiceBooking:
    """Give the purchase a time of its own, beside all slots: it takes nobody's seat.

    Called by admin. Raises ``FulfillmentNotFound``, ``NotPaidFor``, ``NoBooking``,
    ``FulfillmentAlreadyResolved`` and ``InvalidTime``.
    """
    if starts_at >= ends_at:
        raise InvalidTime("It has to end after it starts.")
    if starts_at <= now:
        raise InvalidTime("This is in the past: choose a time to come.")
    with transaction.atomic():
        booking = _lock(fulfillment_id)
        before = (booking.slot_id, booking.scheduled_at, booking.ends_at, booking.location)
        if before != (None, starts_at, ends_at, location):
            _leave_slot(booking, now=now)
            booking.slot = None
            _schedule(booking, starts_at, ends_at, location, now=now, source=source, actor=actor)
    return booking


@retried
def put_into(
    *,
    fulfillment_id: uuid.UUID,
    slot_id: uuid.UUID,
    actor: User,
    now: datetime,
    source: str = "admin",
) -> ServiceBooking:
    """Book a slot for an attendee. Called by admin; raises what ``pick`` does, but for the deadline
    and the buyer's ``PurchaseNotFound``, which is ``FulfillmentNotFound`` here.
    """
    with transaction.atomic():
        booking = _lock(fulfillment_id)
        if booking.slot_id != slot_id:
            _take_slot(booking, slot_id, now=now, source=source, actor=actor)
    return booking


@retried
def call_off(
    *, fulfillment_id: uuid.UUID, actor: User, now: datetime, source: str = "admin"
) -> ServiceBooking:
    """Cancel an attendee's booking; they are told, and may choose again. Harmless without one.

    Called by admin. Raises ``FulfillmentNotFound``, ``NotPaidFor`` and ``NoBooking``.
    """
    with transaction.atomic():
        booking = _lock(fulfillment_id)
        if booking.scheduled_at is not None:
            _reopen(booking, now=now, source=source, actor=actor)
    return booking


# -- What follows from something else -------------------------------------------------------------


@retried
def follow_slot(fulfillment_id: uuid.UUID, *, now: datetime) -> bool:
    """Bring a booking in line with its slot: moved, called off, or somewhere else now.

    Called by ``bookings.following``; whether there was anything to do. Nothing happens to a booking
    whose time has come.
    """
    with transaction.atomic():
        fulfillment = transitions.lock(fulfillment_id)
        booking = _read(fulfillment)
        if booking.slot_id is None or booking.scheduled_at is None or booking.scheduled_at <= now:
            return False
        slot = slots.lock(fulfillment.purchase.offer_id, [booking.slot_id])[booking.slot_id]
        if slot.is_called_off:
            _reopen(booking, now=now, source="worker", actor=None)
            return True
        if (booking.scheduled_at, booking.ends_at, booking.location) == (
            slot.starts_at, slot.ends_at, slot.location,
        ):  # fmt: skip
            return False
        _schedule(
            booking,
            slot.starts_at,
            slot.ends_at,
            slot.location,
            now=now,
            source="worker",
            actor=None,
        )
    return True


def take_back(fulfillment: Fulfillment, *, now: datetime) -> None:
    """Free the seats of a purchase that is taken back; its caller has the locks and the status."""
    booking = ServiceBooking.objects.filter(fulfillment=fulfillment).first()
    if booking is not None and booking.scheduled_at is not None:
        booking.fulfillment = fulfillment
        _vacate(booking, now=now)


# -- Under the locks ------------------------------------------------------------------------------


def _own(purchase_id: uuid.UUID, user: User) -> Purchase:
    purchase = Purchase.objects.filter(pk=purchase_id, user=user).first()
    if purchase is None:
        raise PurchaseNotFound
    return purchase


def _lock_own(purchase_id: uuid.UUID, user: User) -> ServiceBooking:
    purchase = _own(purchase_id, user)
    fulfillment_id = (
        Fulfillment.objects.filter(purchase=purchase).values_list("pk", flat=True).first()
    )
    if fulfillment_id is None:
        raise NoBooking if purchase.status == PurchaseStatus.PAID else NotPaidFor
    return _lock(fulfillment_id)


def _lock(fulfillment_id: uuid.UUID) -> ServiceBooking:
    """The booking as it is under the locks of its purchase, which is paid, and its fulfilment."""
    fulfillment = transitions.lock(fulfillment_id)
    if fulfillment.purchase.status != PurchaseStatus.PAID:
        raise NotPaidFor
    return _read(fulfillment)


def _read(fulfillment: Fulfillment) -> ServiceBooking:
    booking = ServiceBooking.objects.filter(fulfillment=fulfillment).first()
    if booking is None:
        raise NoBooking
    booking.fulfillment = fulfillment
    return booking


def _refuse_if_too_late(booking: ServiceBooking, now: datetime) -> None:
    deadline = booking.can_change_until
    if deadline is not None and now > deadline:
        raise TooLateToChange(deadline=deadline)


def _take_slot(
    booking: ServiceBooking, slot_id: uuid.UUID, *, now: datetime, source: str, actor: User
) -> None:
    purchase = booking.fulfillment.purchase
    slot = slots.change_seats(
        offer_id=purchase.offer_id,
        quantity=purchase.quantity,
        leave=booking.slot_id,
        take=slot_id,
        now=now,
    )
    assert slot is not None, "one was asked for"  # noqa: S101 - for the type checker
    booking.slot = slot
    _schedule(
        booking,
        slot.starts_at,
        slot.ends_at,
        slot.location,
        now=now,
        source=source,
        actor=actor,
    )


def _leave_slot(booking: ServiceBooking, *, now: datetime) -> None:
    purchase = booking.fulfillment.purchase
    slots.change_seats(
        offer_id=purchase.offer_id,
        quantity=purchase.quantity,
        leave=booking.slot_id,
        take=None,
        now=now,
    )


def _schedule(
    booking: ServiceBooking,
    starts_at: datetime,
    ends_at: datetime,
    location: str,
    *,
    now: datetime,
    source: str,
    actor: User | None,
) -> None:
    """Write the time down, invite to it, and note who set it."""
    fulfillment = booking.fulfillment
    had_none = booking.scheduled_at is None
    details = details_of(fulfillment.purchase.offer)
    booking.scheduled_at, booking.ends_at, booking.location = starts_at, ends_at, location
    booking.can_change_until = details.changes_end(starts_at)
    _tell(booking, "booked", "REQUEST", now=now)
    _save(booking, now=now)
    who: dict[str, Any] = {"now": now, "source": source, "actor": actor, "reason": str(booking)}
    if had_none:
        transitions.apply(fulfillment, FULFILL, **who)
    else:
        transitions.record(fulfillment, "move", Status(fulfillment.status), **who)


def _reopen(booking: ServiceBooking, *, now: datetime, source: str, actor: User | None) -> None:
    reason = str(booking)
    _vacate(booking, now=now)
    transitions.apply(
        booking.fulfillment, REOPEN, now=now, source=source, actor=actor, reason=reason
    )


def _vacate(booking: ServiceBooking, *, now: datetime) -> None:
    """Give the seats back and strike the entry from the attendee's calendar, if it is to come."""
    _leave_slot(booking, now=now)
    if booking.scheduled_at is not None and booking.scheduled_at > now:
        _tell(booking, "booking_cancelled", "CANCEL", now=now)
    booking.slot = None
    booking.scheduled_at = booking.ends_at = booking.can_change_until = None
    booking.location = ""
    _save(booking, now=now)


def _tell(booking: ServiceBooking, occasion: str, method: str, *, now: datetime) -> None:
    """Have the e-mail of this change sent: one for each number of the calendar's entry."""
    booking.sequence = 0 if booking.sequence is None else booking.sequence + 1
    entry = invitation.write(booking, method=method, now=now)
    mail.enqueue(
        booking.fulfillment.purchase,
        occasion,
        now=now,
        reference=str(booking.sequence),
        attachments=[mail.Attachment("invite.ics", f"text/calendar; method={method}", entry)],
    )
    announcements.of_delivery(
        "booking.changed",
        booking.fulfillment,
        {"scheduled_at": booking.scheduled_at if method == "REQUEST" else None},
        key=str(booking.sequence),
        now=now,
    )


def _save(booking: ServiceBooking, *, now: datetime) -> None:
    booking.changed_at = now
    booking.save(
        update_fields=[
            "slot", "scheduled_at", "ends_at", "location", "can_change_until", "sequence",
            "changed_at",
        ]
    )  # fmt: skip
