"""Offers as a whole: which can be shown now, and which are over."""

from datetime import datetime

from django.db import transaction
from django.db.models import F, Q, QuerySet
from waffle import switch_is_active

from offers import history, targeting
from offers.errors import DomainError, NotEligible, NotRegistered, PurchasesDisabled
from offers.models import Offer

# waffle's name of the kill switch.
SWITCH = "purchases"


def on_sale(offers: QuerySet[Offer], now: datetime) -> QuerySet[Offer]:
    """The ones of ``offers`` that are sold at ``now``, sold out or not."""
    return offers.filter(
        Q(starts_at__isnull=True) | Q(starts_at__lte=now),
        Q(expires_at__isnull=True) | Q(expires_at__gt=now),
        is_active=True,
        is_archived=False,
    )


def showable(offers: QuerySet[Offer], now: datetime) -> QuerySet[Offer]:
    """The ones of ``offers`` that can be bought at ``now``: ``Offer.refusal`` as SQL."""
    return on_sale(offers, now).filter(
        Q(inventory_total__isnull=True)
        | Q(inventory_total__gt=F("inventory_reserved") + F("inventory_sold")),
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


def is_selling() -> bool:
    """Whether the kill switch lets anything be sold; remembered by each process for seconds."""
    return bool(switch_is_active(SWITCH))


def refuse_while_switched_off() -> None:
    """Raise ``PurchasesDisabled`` while `waffle_switch purchases off` holds."""
    if not is_selling():
        raise PurchasesDisabled


def expire(*, now: datetime, dry_run: bool = False) -> int:
    """Deactivate offers whose sale has ended, and return how many: a task and a command."""
    ended = Offer.objects.filter(is_active=True, expires_at__lte=now)
    if dry_run:
        return ended.count()
    with transaction.atomic(), history.together(reason="the sale has ended"):
        # In the order of every other statement that locks several, and listed for the history.
        locked = ended.select_for_update(of=("self",), no_key=True).order_by("pk")
        offer_ids = list(locked.values_list("pk", flat=True))
        history.note(offer_ids)
        return Offer.objects.filter(pk__in=offer_ids).update(is_active=False, updated_at=now)
