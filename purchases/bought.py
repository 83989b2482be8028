"""What attendees are told of a purchase: its state in their words, and what they can do about it.

The back-office has words of its own (``purchases.wording``). Texts are translated when shown.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy as _

from purchases import status_links, trying_again
from purchases.models import Purchase
from purchases.states import (
    OPEN_HOLDS,
    OWE_REFUND,
    UNSETTLED,
    ReleaseReason,
    Status,
)

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

# Seconds between two looks, at most: of somebody who waits for a moment, or for days.
SOON, SOME_DAY = 10, 60


@dataclass(frozen=True)
class Words:
    """A state in one or two words with the tone of their tag, in a sentence, and what it means."""

    tag: "_StrPromise"
    tone: str
    title: "_StrPromise"
    text: "_StrPromise | str"


HELD = Words(
    _("Not paid yet"),
    "warn",
    _("Reserved for you"),
    _("It is yours as soon as you have paid. Nothing has been charged so far."),
)
# The same, seen by somebody who comes from Stripe's page: the news are on their way here.
CONFIRMING = Words(
    _("Not confirmed yet"),
    "warn",
    _("One moment…"),
    _(
        "We are waiting for your payment to be confirmed. That usually takes a few seconds, and "
        "this page shows it by itself. If it takes longer, you needn't wait here: what you have "
        "paid for stays yours, and My purchases always says how it stands. Don't pay twice."
    ),
)
OVERDUE = Words(
    _("Time is up"),
    "warn",
    _("The time to pay is up"),
    _(
        "If you have just paid, it is confirmed here in a moment. If you haven't, nothing was "
        "charged, and what was reserved for you goes back on sale."
    ),
)
PAYMENT_PROCESSING = Words(
    _("Payment on its way"),
    "",
    _("Your payment is on its way"),
    _(
        "Some ways to pay take a few days. What you bought stays reserved for you until then, and "
        "you get an e-mail when the payment has arrived: there is nothing left for you to do."
    ),
)
PAID = Words(_("Paid"), "good", _("Thank you, it's yours"), "")
REFUND_DUE = Words(
    _("Refund on its way"),
    "warn",
    _("Your money is on its way back"),
    _(
        "The whole amount goes back the way it came; most banks take 5 to 10 days. If it hasn't "
        "arrived by then, ask the organizer."
    ),
)
LATE_REFUND_DUE = Words(
    _("Refund on its way"),
    "warn",
    _("Your money is on its way back"),
    _(
        "Your payment came after your time was up, when everything was sold. The whole amount goes "
        "back the way it came; most banks take 5 to 10 days."
    ),
)
REFUNDING = Words(
    _("Refund on its way"),
    "",
    _("Your money is on its way back"),
    _(
        "The organizer is sending you the whole amount, the way it came; most banks take 5 to 10 "
        "days. So there is nothing to get here any more."
    ),
)
REFUNDED = Words(
    _("Refunded"),
    "",
    _("Your money was sent back"),
    _("The whole amount went back the way it came; most banks take 5 to 10 days to show it."),
)
LATE_REFUNDED = Words(
    _("Refunded"),
    "",
    _("Your money was sent back"),
    _(
        "Your payment came after your time was up, when everything was sold. The whole amount went "
        "back the way it came; most banks take 5 to 10 days to show it."
    ),
)
RELEASED: dict[str, Words] = {
    ReleaseReason.EXPIRED: Words(
        _("Expired"),
        "",
        _("Your time to pay ran out"),
        _("Nothing was charged, and what was reserved for you went back on sale."),
    ),
    ReleaseReason.CANCELLED: Words(
        _("Cancelled"),
        "",
        _("You cancelled this purchase"),
        _("Nothing was charged."),
    ),
    ReleaseReason.PAYMENT_FAILED: Words(
        _("Payment failed"),
        "bad",
        _("Your payment did not go through"),
        _(
            "Your bank didn't complete it, so you haven't paid, and what was reserved for you went "
            "back on sale."
        ),
    ),
    ReleaseReason.PROVIDER_ERROR: Words(
        _("Not started"),
        "bad",
        _("The payment page could not be opened"),
        _("The payment service had a problem. Nothing was charged."),
    ),
    ReleaseReason.STAFF: Words(
        _("Ended"),
        "",
        _("The organizer ended this reservation"),
        _("Nothing was charged. If you want to know why, ask them."),
    ),
}


@dataclass(frozen=True)
class Bought:
    """One purchase as a page shows it at one moment."""

    purchase: Purchase
    words: Words
    is_held: bool
    can_try_again: bool

    @property
    def is_settled(self) -> bool:
        """Whether nothing changes any more without somebody's doing."""
        return self.purchase.status not in UNSETTLED

    @property
    def status_address(self) -> str:
        """Where the page's script asks whether the status is still this one."""
        return status_links.address(self.purchase.pk)

    @property
    def slowest(self) -> int:
        return SOON if self.purchase.is_open_hold else SOME_DAY


def show(user: User, purchases: Iterable[Purchase], *, now: datetime) -> list[Bought]:
    """What a list shows of the user's ``purchases``, in their order. Two queries at most."""
    purchases = list(purchases)
    again = trying_again.possible(user, purchases, now=now)
    return [_shown(purchase, _words(purchase, now=now), again, now) for purchase in purchases]


def show_one(purchase: Purchase, *, now: datetime, comes_from_stripe: bool = False) -> Bought:
    """The same for the page of one, which says more: whether a payment was late, or is just made.

    ``comes_from_stripe``: the buyer was sent back from paying, and the webhook may be slower.
    """
    words = _words(purchase, now=now)
    if words is HELD and comes_from_stripe:
        words = CONFIRMING
    elif words in (REFUND_DUE, REFUNDED) and _came_late(purchase):
        words = LATE_REFUND_DUE if words is REFUND_DUE else LATE_REFUNDED
    again = trying_again.possible(purchase.user, [purchase], now=now)
    return _shown(purchase, words, again, now)


def _shown(purchase: Purchase, words: Words, again: set[uuid.UUID], now: datetime) -> Bought:
    is_held = purchase.status in OPEN_HOLDS and purchase.reserved_until > now
    return Bought(purchase, words, is_held=is_held, can_try_again=purchase.pk in again)


def _words(purchase: Purchase, *, now: datetime) -> Words:
    match purchase.status:
        case Status.RESERVED | Status.AWAITING_PAYMENT:
            return HELD if purchase.reserved_until > now else OVERDUE
        case Status.RELEASED:
            return RELEASED[purchase.release_reason]
        case Status.PAYMENT_PROCESSING:
            return PAYMENT_PROCESSING
        case Status.REFUND_DUE:
            return REFUND_DUE
        case Status.REFUNDING:
            return REFUNDING
        case Status.REFUNDED:
            return REFUNDED
    return PAID


def _came_late(purchase: Purchase) -> bool:
    return purchase.transitions.filter(name=OWE_REFUND.name).exists()
