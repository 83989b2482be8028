"""A series of slots: some weekdays between two days, from one hour to another. All or nothing."""

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import IntegrityError, transaction

from fulfillment.bookings.errors import InvalidSeries
from fulfillment.bookings.models import TimeSlot

MOST = 500
LONGEST = timedelta(days=366)


@dataclass(frozen=True)
class Series:
    """What an organizer asks for. ``weekdays`` are Python's, 0 for Monday; hours are in UTC."""

    first_day: date
    last_day: date
    weekdays: frozenset[int]
    opens: time
    closes: time
    length: timedelta
    pause: timedelta
    capacity: int


def plan(series: Series, *, now: datetime) -> list[tuple[datetime, datetime]]:
    """Start and end of each slot, in order; for the preview and for ``add``.

    Raises ``InvalidSeries`` for none, for more than ``MOST``, and for one that would have begun.
    """
    if not timedelta(0) <= series.last_day - series.first_day <= LONGEST:
        raise InvalidSeries("The last day has to be within a year after the first one.")
    if series.length <= timedelta(0) or series.pause < timedelta(0):
        raise InvalidSeries("A slot has to take some time.")
    planned: list[tuple[datetime, datetime]] = []
    for number in range((series.last_day - series.first_day).days + 1):
        day = series.first_day + timedelta(days=number)
        if day.weekday() in series.weekdays:
            planned += _of_a_day(series, day)
        if len(planned) > MOST:
            raise InvalidSeries(f"These would be more than {MOST} slots: add them in parts.")
    if not planned:
        raise InvalidSeries("No slot fits in: look at the days, the hours and the length.")
    if planned[0][0] <= now:
        raise InvalidSeries(f"{planned[0][0]:%d %B %Y, %H:%M} UTC is in the past: begin later.")
    return planned


def _of_a_day(series: Series, day: date) -> list[tuple[datetime, datetime]]:
    starts_at = datetime.combine(day, series.opens, UTC)
    closes_at = datetime.combine(day, series.closes, UTC)
    found = []
    while starts_at + series.length <= closes_at:
        found.append((starts_at, starts_at + series.length))
        starts_at += series.length + series.pause
    return found


def add(offer_id: uuid.UUID, series: Series, *, now: datetime) -> int:
    """Store all slots of the series, or none; returns how many.

    Called by admin. Raises what ``plan`` does, and ``InvalidSeries`` where there is a slot already:
    a form that was sent twice adds nothing the second time.
    """
    planned = plan(series, now=now)
    there = TimeSlot.objects.filter(
        offer_id=offer_id, starts_at__in=[start for start, _ in planned]
    )
    known = list(there.order_by("starts_at"))
    if known:
        raise InvalidSeries(
            f"There are slots at {len(known)} of these times, the first on {known[0]}: nothing was "
            "added."
        )
    try:
        with transaction.atomic():
            TimeSlot.objects.bulk_create(
                TimeSlot(offer_id=offer_id, starts_at=start, ends_at=end, capacity=series.capacity)
                for start, end in planned
            )
    except IntegrityError as error:
        raise InvalidSeries(
            "Somebody added slots at these times just now: nothing was added."
        ) from error
    return len(planned)
