"""What can go wrong when somebody wants an offer. No HTTP here: ``http_errors.py`` maps these.

What attendees may read on their pages is in their language; the API and the back-office, which ask
for English (``offers_project.languages``), get the same sentences as they stand here.
"""

from typing import TYPE_CHECKING, ClassVar

from django.db import OperationalError
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from psycopg import errors as pg

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

# The lock or a connection was not had in time, or two transactions stood in each other's way:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
# The last four: the server is stopping or starting.
PASSING = (
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.DeadlockDetected,
    pg.SerializationFailure,
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.TooManyConnections,
)
# The class of errors about the connection itself, as a proxy in between raises them.
CONNECTION_LOST = "08"


class DomainError(Exception):
    """Base of every error that a user of the service may be told about.

    ``code`` is part of the API's contract, the message tells a person what to do. ``retry_after``
    is in seconds, where waiting helps; ``attr`` names the field that is at fault, if one is.
    """

    code: ClassVar[str] = "error"
    message: ClassVar["str | _StrPromise"] = _("This can't be done.")
    retry_after: ClassVar[int | None] = None
    attr: ClassVar[str | None] = None

    def __init__(self, message: "str | _StrPromise | None" = None) -> None:
        # In the language of whoever asked, whoever reads it later.
        super().__init__(str(message or self.message))


class OfferNotFound(DomainError):
    """Unknown, or of an event whose existence the caller may not learn."""

    code = "not_found"
    message = _("There is no such offer.")


class EventNotFound(DomainError):
    code = "not_found"
    message = _("There is no such event.")


class NotRegistered(DomainError):
    code = "not_registered"
    message = _("This event is private: register for it to buy its offers.")


class NotEligible(DomainError):
    code = "not_eligible"
    message = _("This offer is for other ticket tiers or sessions than yours.")


class OfferUnavailable(DomainError):
    """Base: the offer exists but can't be bought now."""


class OfferArchived(OfferUnavailable):
    code = "offer_archived"
    message = _("This offer was withdrawn.")


class OfferExpired(OfferUnavailable):
    code = "offer_expired"
    message = _("The sale of this offer has ended.")


class OfferInactive(OfferUnavailable):
    code = "offer_inactive"
    message = _("This offer is not on sale.")


class OfferNotStarted(OfferUnavailable):
    code = "offer_not_started"
    message = _("The sale of this offer has not started yet.")


class PurchasesDisabled(DomainError):
    """The kill switch is off: nothing is sold, what was sold goes on."""

    code = "purchases_disabled"
    message = _("Sales are paused for the moment. Try again later.")
    retry_after = 60


class SoldOut(OfferUnavailable):
    code = "sold_out"
    message = _("This offer is sold out.")


class InsufficientInventory(OfferUnavailable):
    code = "insufficient_inventory"

    def __init__(self, *, available: int) -> None:
        self.available = available
        said = ngettext(
            "Only %(available)d left: choose a smaller quantity.",
            "Only %(available)d left: choose a smaller quantity.",
            available,
        )
        super().__init__(said % {"available": available})


class InventoryError(DomainError):
    """Base: counters would no longer match what happened. Nothing moved."""

    code = "inventory_mismatch"


class NotEnoughReserved(InventoryError):
    def __init__(self, *, reserved: int, asked: int) -> None:
        super().__init__(f"{asked} units asked for, but only {reserved} are reserved.")


class NotEnoughSold(InventoryError):
    def __init__(self, *, sold: int, asked: int) -> None:
        super().__init__(f"{asked} units asked for, but only {sold} are sold.")


class TotalBelowCommitted(DomainError):
    code = "total_below_committed"
    attr = "inventory_total"

    def __init__(self, *, committed: int) -> None:
        super().__init__(
            f"{committed} units are sold or reserved: the total can't go below that. "
            "Archive the offer to stop selling."
        )


class PriceLocked(DomainError):
    code = "price_locked"
    attr = "price"
    message = "The price can't change once anything is sold: archive this offer and make a new one."


class TypeLocked(DomainError):
    code = "type_locked"
    attr = "offer_type"
    message = (
        "The type can't change once anything is sold or on hold, since its buyers would not get "
        "what they bought: archive this offer and make a new one."
    )


class LastOwner(DomainError):
    code = "last_owner"
    attr = "role"
    message = "This is the organization's last owner: make somebody else an owner first."


class Busy(DomainError):
    """The row lock, or a connection, was not had in time: see ``database_is_busy``."""

    code = "busy"
    message = _("This can't be answered just now: too much at once. Try again in a moment.")
    retry_after = 1


def database_is_busy(error: Exception) -> bool:
    """Whether the database could not answer just now, and the same request may succeed later."""
    if not isinstance(error, OperationalError):
        return False
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    # Without a SQLSTATE there was no answer at all: no connection, or none was free, or it broke.
    return state is None or state.startswith(CONNECTION_LOST) or isinstance(cause, PASSING)
