"""Seats: which slots have room, and the one way in which seats are taken and given back."""

import uuid
from collections.abc import Iterable
from datetime import datetime

from django.db.models import F, QuerySet

from fulfillment.bookings.errors import SlotNotFound, SlotPast, SlotTaken
from fulfillment.bookings.models import TimeSlot


def free_slots(offer_id: uuid.UUID, quantity: int, *, now: datetime) -> QuerySet[TimeSlot]:
    """The offer's coming slots with room for ``quantity``, as one query; a snapshot."""
    return (
        TimeSlot.objects.filter(
            offer_id=offer_id,
            starts_at__gt=now,
            is_called_off=False,
            capacity__gte=F("taken") + quantity,
        )
        .select_related("offer__service_details")
        .order_by("starts_at", "pk")
    )


def lock(offer_id: uuid.UUID, slot_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, TimeSlot]:
    """Lock those of the slots that there are in the order of their keys.

    Everybody does, so that two who change places wait for each other and never in a circle. Slots
    come last of all locks: after a purchase and its fulfilment, or after an offer.
    """
    found = TimeSlot.objects.filter(offer_id=offer_id, pk__in=list(slot_ids))
    rows = found.order_by("pk").select_for_update(of=("self",), no_key=True)
    return {slot.pk: slot for slot in rows}


def change_seats(
    *,
    offer_id: uuid.UUID,
    quantity: int,
    leave: uuid.UUID | None,
    take: uuid.UUID | None,
    now: datetime,
) -> TimeSlot | None:
    """Take ``quantity`` seats of one slot and give as many of another back, and return the first.

    Called by ``bookings.booking`` under the locks of the purchase and the fulfilment. Raises
    ``SlotNotFound``, ``SlotPast`` and ``SlotTaken``; nothing moved then.
    """
    locked = lock(offer_id, filter(None, (leave, take)))
    taken = None
    if take is not None:
        taken = locked.get(take)
        if taken is None or taken.is_called_off:
            raise SlotNotFound
        if taken.starts_at <= now:
            raise SlotPast
        if taken.seats_left < quantity:
            raise SlotTaken(left=taken.seats_left)
        _add(taken, quantity)
    if leave is not None:
        _add(locked[leave], -quantity)
    return taken


def _add(slot: TimeSlot, seats: int) -> None:
    slot.taken += seats
    slot.save(update_fields=["taken"])
