"""What can go wrong with a purchase. No HTTP here: ``http_errors.py`` maps these."""

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from offers.errors import DomainError


class PurchaseNotFound(DomainError):
    code = "not_found"
    message = _("There is no such purchase.")


class PurchaseLimitReached(DomainError):
    code = "purchase_limit_reached"

    def __init__(self, *, limit: int, have: int) -> None:
        said = ngettext(
            "One attendee may buy %(limit)d of this offer, and you have %(have)d of them.",
            "One attendee may buy %(limit)d of this offer, and you have %(have)d of them.",
            limit,
        )
        super().__init__(said % {"limit": limit, "have": have})


class TooManyOpenHolds(DomainError):
    code = "too_many_open_holds"

    def __init__(self, *, limit: int) -> None:
        said = ngettext(
            "You have %(limit)d unpaid purchase open: pay or cancel it first.",
            "You have %(limit)d unpaid purchases open: pay or cancel one of them first.",
            limit,
        )
        super().__init__(said % {"limit": limit})


class IdempotencyKeyInUse(DomainError):
    code = "idempotency_key_in_use"
    message = _(
        "The first request with this Idempotency-Key is still running. Try again in a moment."
    )
    retry_after = 2


class IdempotencyKeyReused(DomainError):
    code = "idempotency_key_reused"
    message = (
        "This Idempotency-Key was used for another purchase: use a new key for a new purchase."
    )


class HoldAlreadyResolved(DomainError):
    """The purchase's status doesn't allow this (any more): asked a second time, or too late."""

    code = "hold_already_resolved"

    def __init__(self, *, status: str, transition: str) -> None:
        self.status = status
        super().__init__(f"A purchase that is {status} can't {transition.replace('_', ' ')}.")


class HoldIsEnding(DomainError):
    """Somebody else is ending this hold at this moment."""

    code = "hold_is_ending"
    message = _("This hold is being ended already.")


class HoldWasPaid(DomainError):
    """Stripe says that the hold to be released was paid: it was recorded as such instead."""

    code = "hold_was_paid"

    def __init__(self, *, status: str) -> None:
        self.status = status
        super().__init__(f"Stripe says that it was paid meanwhile: it is {status} now.")


class NotCancellable(DomainError):
    code = "not_cancellable"
    message = _("Only a purchase that is neither paid nor ended can be cancelled.")


class NotEnded(DomainError):
    """Only what ended unpaid is tried again."""

    code = "not_ended"
    message = _("This purchase hasn't ended, so there is nothing to try again.")


class PaymentProviderUnavailable(DomainError):
    """Stripe could not be asked, or did not do what it was asked. See the subclasses."""

    code = "payment_provider_unavailable"
    message = _(
        "The payment provider can't be reached. Nothing was charged: try again in a moment."
    )
    retry_after = 10


class ProviderRefused(PaymentProviderUnavailable):
    """Stripe answered 4xx about the request itself: nothing was done, nor will be on a retry."""

    def __init__(self, *, param: str | None = None, code: str | None = None) -> None:
        self.param = param
        self.provider_code = code
        super().__init__()


class ProviderFailed(PaymentProviderUnavailable):
    """Stripe answered 5xx: most likely nothing was done, and this key will get nothing else."""


class ProviderTurnedAway(ProviderFailed):
    """Stripe didn't look at the request: too many (429), or not with this key (401, 403)."""


class ProviderUnreachable(PaymentProviderUnavailable):
    """No answer: what was asked may have been done or may yet be."""


class ProviderNotReached(ProviderUnreachable):
    """Not even a connection: this call asked nothing, whatever an earlier one may have done."""


class ProviderStillRunning(ProviderUnreachable):
    """Stripe is at work on an earlier request with the same idempotency key (409)."""


class ProviderNotConfigured(PaymentProviderUnavailable):
    """``STRIPE_SECRET_KEY`` is missing. Said to staff by the log, to buyers as unavailable."""


class ProviderSaturated(PaymentProviderUnavailable):
    """This process waits for Stripe as often as it may already: nothing was asked."""


class QuantityTooExpensive(DomainError):
    """More than Stripe charges at once, whatever its currency."""

    code = "max_value"
    attr = "quantity"
    message = _("This many cost more than can be charged at once: choose a smaller quantity.")


class DeliveryMethodNotOffered(DomainError):
    """The offer isn't sent, isn't collected, or is nothing that could be."""

    code = "delivery_method_not_offered"
    attr = "delivery_method"

    def __init__(self, *, possible: list[str]) -> None:
        super().__init__(
            gettext("This offer can't be had so: use %(possible)s, or leave it out.")
            % {"possible": " or ".join(possible)}
            if possible
            else gettext("Only merchandise is sent or collected: leave this out.")
        )


class PaymentMismatch(DomainError):
    """Stripe reports a payment that isn't the one we asked for. Nothing moves; staff must look."""

    code = "payment_mismatch"


class NotRefundable(DomainError):
    """Nothing of this purchase can be sent back (any more); the message says why."""

    code = "not_refundable"
    message = "Only a purchase that is paid can be refunded."


class RefundNotAllowed(DomainError):
    """The caller may know of the purchase, but not send its money back."""

    code = "permission_denied"
    message = "Only owners and managers of the event's organization can refund a purchase."


class InvalidRefundAmount(DomainError):
    """Nothing, more than is left, or with digits that the currency doesn't have."""

    code = "invalid_refund_amount"
    attr = "amount"


class InvalidWebhook(DomainError):
    code = "invalid_webhook"
    message = "The signature or the body of this webhook is not valid."


class AddressRefused(DomainError):
    """An endpoint's address that must not, or can't, be called."""

    code = "address_refused"
    message = "This address can't be called."
    attr = "url"


class EndpointInactive(DomainError):
    code = "endpoint_inactive"
    message = "This endpoint is not active: make it active first."


class SecretJustRotated(DomainError):
    """A third secret would end the first before its time."""

    code = "secret_just_rotated"
    message = "The secret was replaced within the last 24 hours: the old one still counts."


class AskStripeLater(Exception):
    """What an event means takes a question to Stripe, which a webhook's answer can't wait for."""


def is_stripe_away(error: BaseException) -> bool:
    """Whether the error is about Stripe as a whole, and not about what it was asked.

    A sweep then stops asking: each further row would only wait for the same time-out.
    """
    return isinstance(error, PaymentProviderUnavailable) and not isinstance(
        error, ProviderRefused | ProviderStillRunning
    )
