"""What attendees see of one offer: everything that the card decides, and nothing it looks up."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from offers.errors import DomainError, NotEligible, OfferNotStarted, PurchasesDisabled, SoldOut
from offers.models import Offer

# So few that a buyer should know.
FEW = 10
# A sale that ends within this time has a countdown instead of a date.
SOON = timedelta(hours=48)

KINDS: dict[str, Any] = {
    Offer.Type.TICKET_UPGRADE: _("Ticket upgrade"),
    Offer.Type.MERCHANDISE: _("Merchandise"),
    Offer.Type.EXCLUSIVE_CONTENT: _("Exclusive content"),
    Offer.Type.SERVICE: _("Service"),
}


def left_in_words(left: int | None) -> str:
    """What is said of ``left`` units (``None`` is unlimited); nothing while there are many."""
    if left is None or left > FEW:
        return ""
    if left <= 0:
        return gettext("sold out")
    said = ngettext("only %(left)d left", "only %(left)d left", left)
    return said % {"left": left}


@dataclass(frozen=True)
class Card:
    """One offer as ``offer_card.html`` shows it; made by the pages and by admin's preview.

    ``refusal`` is why nothing of it can be bought, ``owned`` how many units the visitor has or
    holds, ``tier_id`` the visitor's ticket tier. ``quantity`` and ``delivery_method`` are what is
    filled in. ``address`` is the offer's own page, ``posts_to`` where its form is sent if not to
    the page that it is on, and ``key`` makes a double click one purchase.
    """

    offer: Offer
    now: datetime
    refusal: DomainError | None = None
    owned: int = 0
    tier_id: int | None = None
    quantity: int = 1
    delivery_method: str = ""
    chooses_delivery: bool = False
    address: str = ""
    posts_to: str = ""
    key: str = ""

    @property
    def kind(self) -> str:
        """The offer's type in the visitor's words."""
        return (
            str(KINDS.get(Offer.Type(self.offer.offer_type), "")) if self.offer.offer_type else ""
        )

    @property
    def state(self) -> str:
        """Which end the card has: ``buy`` is the form, the others say why there is none."""
        if isinstance(self.refusal, SoldOut):
            return "sold_out"
        if isinstance(self.refusal, OfferNotStarted):
            return "upcoming"
        if isinstance(self.refusal, PurchasesDisabled):
            return "paused"
        if isinstance(self.refusal, NotEligible):
            return "not_eligible"
        if self.refusal is not None:
            return "refused"
        left = self.offer.inventory_available
        if left is not None and left <= 0:
            # A total that is only being typed may be below what is sold.
            return "sold_out"
        if self.tier_id is not None and self.offer.ticket_tier_id == self.tier_id:
            return "own_tier"
        return "buy" if self.most else "limit"

    @property
    def most(self) -> int:
        """How many units the visitor can buy at once, as far as anybody knows without the lock."""
        # One upgrade is all that one ticket takes.
        is_upgrade = self.offer.offer_type == Offer.Type.TICKET_UPGRADE
        limits = [1 if is_upgrade else settings.MAX_QUANTITY_PER_PURCHASE]
        if self.offer.inventory_available is not None:
            limits.append(self.offer.inventory_available)
        if self.offer.max_per_user is not None:
            limits.append(self.offer.max_per_user - self.owned)
        return max(0, min(limits))

    @property
    def filled_in(self) -> int:
        """The quantity that was asked for before, as far as it can be had."""
        return min(max(self.quantity, 1), max(self.most, 1))

    @property
    def few_left(self) -> str:
        """How few are left, where a buyer should know; that none is, the card says elsewhere."""
        left = self.offer.inventory_available
        return "" if left is not None and left <= 0 else left_in_words(left)

    @property
    def may_come_back(self) -> bool:
        """Whether what is gone is, in part, only on hold."""
        return self.state == "sold_out" and self.offer.inventory_reserved > 0

    @property
    def hold_minutes(self) -> int:
        """After how many minutes an unpaid hold ends, at the latest."""
        return max(1, round(settings.RESERVATION_MINUTES))

    @property
    def ends_soon(self) -> bool:
        ends = self.offer.expires_at
        return ends is not None and self.now < ends <= self.now + SOON
