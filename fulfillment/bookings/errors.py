"""What can go wrong with a booking. No HTTP here: ``http_errors.py`` maps these."""

from datetime import UTC, datetime

from django.utils import formats
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from offers.errors import DomainError


class NoBooking(DomainError):
    """Nothing of this purchase can be booked: it is no service, or wasn't prepared yet."""

    code = "no_booking"
    message = _(
        "There is nothing to book for this purchase. If it is a service that was paid just now, "
        "try again in a moment."
    )


class SlotNotFound(DomainError):
    """Unknown, of another offer, or called off."""

    code = "slot_not_found"
    message = _("There is no such time (any more): choose another.")


class SlotTaken(DomainError):
    code = "slot_full"

    def __init__(self, *, left: int) -> None:
        self.left = left
        said = ngettext(
            "%(left)d seat is left at this time: choose another.",
            "%(left)d seats are left at this time: choose another.",
            left,
        )
        if left == 0:
            said = gettext("No seats are left at this time: choose another.")
        super().__init__(said % {"left": left})


class SlotPast(DomainError):
    code = "slot_past"
    message = _("This time has begun already: choose a later one.")


class TooLateToChange(DomainError):
    code = "too_late_to_change"

    def __init__(self, *, deadline: datetime) -> None:
        # Translators: a point in time; letters as in Django's filter `date`.
        utc = formats.date_format(deadline.astimezone(UTC), gettext("j F Y, H:i"))
        said = gettext("This booking could be changed until %(time)s UTC. Ask the organizer.")
        super().__init__(said % {"time": utc})


class InvalidTime(DomainError):
    """What staff set is no time at which something can be given; the message says why."""

    code = "invalid_time"
    attr = "starts_at"


class InvalidSeries(DomainError):
    """A series of slots that can't be made as a whole; nothing was. The message says why."""

    code = "invalid_series"
