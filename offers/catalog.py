"""Offers as a whole: which can be shown now, and ending their sale."""

from datetime import datetime

from django.db import transaction
from django.db.models import F, Q, QuerySet
from waffle import switch_is_active

from offers import inventory, targeting
from offers.errors import DomainError, NotEligible, NotRegistered, PurchasesDisabled
from offers.models import Offer


def showable(offers: QuerySet[Offer], now: datetime) -> QuerySet[Offer]:
    """The ones of ``offers`` that can be bought at ``now``: ``Offer.refusal`` as SQL."""
    return offers.filter(
        Q(starts_at__isnull=True) | Q(starts_at__lte=now),
        Q(expires_at__isnull=True) | Q(expires_at__gt=now),
        Q(inventory_total__isnull=True)
        | Q(inventory_total__gt=F("inventory_reserved") + F("inventory_sold")),
        is_active=True,
        is_archived=False,
    )


def refusal(
    caller: targeting.Caller, offer: Offer, *, quantity: int, now: datetime
) -> DomainError | None:
    """Why the caller can't buy ``quantity`` of a visible offer at ``now``, or ``None``."""
    try:
        refuse_while_switched_off()
        targeting.refuse_unless_eligible(caller, offer)
    except (NotEligible, NotRegistered, PurchasesDisabled) as error:
        return error
    return offer.refusal(now, quantity=quantity)


def refuse_while_switched_off() -> None:
    """Raise ``PurchasesDisabled`` while `waffle_switch purchases off` holds."""
    if not switch_is_active("purchases"):
        raise PurchasesDisabled


def archive(offer: Offer) -> None:
    """Withdraw an offer for good; holds that are open can still be paid, sales stay on record.

    Called by the API's DELETE. The task that the save wakes deactivates the product at Stripe.
    """
    with transaction.atomic():
        # Read again under the lock: a change that came meanwhile must not be written over.
        offer = inventory.lock(offer.pk)
        if not offer.is_archived:
            offer.is_archived = True
            offer.save()


def expire(*, now: datetime, dry_run: bool = False) -> int:
    """Deactivate offers whose sale has ended, and return how many: a task and a command."""
    ended = Offer.objects.filter(is_active=True, expires_at__lte=now)
    return ended.count() if dry_run else ended.update(is_active=False, updated_at=now)
