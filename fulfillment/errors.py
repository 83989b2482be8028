"""What can go wrong with a delivery. No HTTP here: ``http_errors.py`` maps these."""

from django.utils.translation import gettext_lazy as _

from offers.errors import DomainError


class CannotDeliver(DomainError):
    """Something is missing that only a person can supply; the message says what, to staff.

    Raised by deliverers with a message of their own, which names nobody: it is logged. The
    fulfilment fails with an alert, and is tried again now and then, or as soon as somebody who
    supplied it says so.
    """

    code = "cannot_deliver"


class FulfillmentNotFound(DomainError):
    code = "not_found"
    message = "There is no such fulfilment."


class FulfillmentAlreadyResolved(DomainError):
    """The fulfilment's status doesn't allow this (any more): asked a second time, or too late."""

    code = "fulfillment_already_resolved"

    def __init__(self, *, status: str, transition: str) -> None:
        self.status = status
        super().__init__(
            f"A fulfilment that is {status} can't {transition.replace('_', ' ')} (any more)."
        )


class NothingToConfirm(DomainError):
    """There is nothing (any more) that the buyer could be told they have."""

    code = "nothing_to_confirm"

    def __init__(self, *, status: str) -> None:
        super().__init__(f"This purchase is {status}, so there is nothing to confirm.")


class SentJustNow(DomainError):
    """The same e-mail is waiting to be sent, or has just been: a double click, most likely."""

    code = "sent_just_now"
    message = "This e-mail is on its way already: it can be sent again in two minutes."
    retry_after = 120


class NotPaidFor(DomainError):
    """The purchase isn't paid: it was refunded, or is about to be."""

    code = "not_paid_for"
    message = _("This purchase isn't paid (any more), so nothing of it is handed out.")
