"""What can go wrong with a booking. No HTTP here: ``http_errors.py`` maps these."""

from datetime import datetime

from offers.errors import DomainError


class NoBooking(DomainError):
    """Nothing of this purchase can be booked: it is no service, or wasn't prepared yet."""

    code = "no_booking"
    message = (
        "There is nothing to book for this purchase. If it is a service that was paid just now, "
        "try again in a moment."
    )


class SlotNotFound(DomainError):
    """Unknown, of another offer, or called off."""

    code = "slot_not_found"
    message = "There is no such time (any more): choose another."


class SlotTaken(DomainError):
    code = "slot_full"

    def __init__(self, *, left: int) -> None:
        self.left = left
        seats = "seat is" if left == 1 else "seats are"
        super().__init__(f"{left or 'No'} {seats} left at this time: choose another.")


class SlotPast(DomainError):
    code = "slot_past"
    message = "This time has begun already: choose a later one."


class TooLateToChange(DomainError):
    code = "too_late_to_change"

    def __init__(self, *, deadline: datetime) -> None:
        super().__init__(
            f"This booking could be changed until {deadline:%d %B %Y, %H:%M} UTC. "
            "Ask the organizer."
        )


class InvalidTime(DomainError):
    """What staff set is no time at which something can be given; the message says why."""

    code = "invalid_time"
    attr = "starts_at"


class InvalidSeries(DomainError):
    """A series of slots that can't be made as a whole; nothing was. The message says why."""

    code = "invalid_series"
