"""Offers as a whole: which can be shown now, and which are over."""

from datetime import datetime

from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, When
from waffle import switch_is_active

from offers import history, lifecycle, targeting
from offers.errors import DomainError, NotEligible, NotRegistered, PurchasesDisabled
from offers.models import Offer
from offers.prepared import Given

# waffle's name of the kill switch.
SWITCH = "purchases"


def showable(offers: QuerySet[Offer], now: datetime | Given) -> QuerySet[Offer]:
    """The ones of ``offers`` that can be bought at ``now``: ``Offer.refusal`` as SQL."""
    return offers.filter(
        Q(starts_at__isnull=True) | Q(starts_at__lte=now),
        Q(expires_at__isnull=True) | Q(expires_at__gt=now),
        Q(inventory_total__isnull=True)
        | Q(inventory_total__gt=F("inventory_reserved") + F("inventory_sold")),
        is_active=True,
        is_archived=False,
    )


def on_display(offers: QuerySet[Offer], now: datetime) -> QuerySet[Offer]:
    """The ones of ``offers`` that an event's page has: also what is sold out or starts later.

    First what can be bought, then what is to come, then what is gone.
    """
    return offers.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now), is_active=True, is_archived=False
    ).order_by(
        Case(When(starts_at__gt=now, then=1), When(lifecycle.SOLD_OUT, then=2), default=0),
        "created_at",
        "pk",
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
