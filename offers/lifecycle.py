"""Where an offer is in its life, and what organizers do about it."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.contrib.auth.models import User
from django.db import OperationalError, models, transaction
from django.db.models import Case, F, Q, QuerySet, Value, When

from offers import history, inventory
from offers.errors import (
    Busy,
    DomainError,
    OfferArchived,
    OfferExpired,
    OfferInactive,
    OfferNotStarted,
    OfferUnavailable,
    SoldOut,
    database_is_busy,
)
from offers.models import Offer
from offers.wake import wake

# So many offers are locked at a time: their buyers wait for as long as a batch takes.
BATCH = 200


# -- States ---------------------------------------------------------------------------------------


class State(models.TextChoices):
    """What organizers are told in one word, of what buyers are told by an error."""

    ON_SALE = "on_sale", "On sale"
    SCHEDULED = "scheduled", "Scheduled"
    SOLD_OUT = "sold_out", "Sold out"
    PAUSED = "paused", "Paused"
    ENDED = "ended", "Ended"
    ARCHIVED = "archived", "Archived"


BY_REFUSAL: dict[type[OfferUnavailable], State] = {
    OfferArchived: State.ARCHIVED,
    OfferExpired: State.ENDED,
    OfferInactive: State.PAUSED,
    OfferNotStarted: State.SCHEDULED,
    SoldOut: State.SOLD_OUT,
}


def state_of(offer: Offer, now: datetime) -> State:
    """The state at ``now``: why nobody can buy a unit, whoever they are, or that they can."""
    refusal = offer.refusal(now, quantity=1)
    return State.ON_SALE if refusal is None else BY_REFUSAL[type(refusal)]


def with_state(offers: QuerySet[Offer], now: datetime) -> QuerySet[Offer]:
    """Annotate ``state``: ``state_of`` as SQL, in the same order."""
    return offers.annotate(
        state=Case(
            When(is_archived=True, then=Value(State.ARCHIVED)),
            When(expires_at__lte=now, then=Value(State.ENDED)),
            When(is_active=False, then=Value(State.PAUSED)),
            When(starts_at__gt=now, then=Value(State.SCHEDULED)),
            When(SOLD_OUT, then=Value(State.SOLD_OUT)),
            default=Value(State.ON_SALE),
        )
    )


SOLD_OUT = Q(inventory_total__lte=F("inventory_reserved") + F("inventory_sold"))


# -- Steps ----------------------------------------------------------------------------------------


def _refuse_to_resume(offer: Offer, now: datetime) -> None:
    if offer.is_archived:
        raise OfferArchived("It is archived: restore it first.")
    if offer.expires_at is not None and offer.expires_at <= now:
        # It would be paused again within the minute.
        raise OfferExpired("Its sale has ended: give it a later end first.")


def _refuse_to_pause(offer: Offer, now: datetime) -> None:
    if offer.is_archived:
        raise OfferArchived("It is archived, and not on sale.")


@dataclass(frozen=True)
class Step:
    """One of the simple changes: what it writes, and what it refuses, with a ``DomainError``."""

    done: str
    field: str
    value: bool
    refuse: Callable[[Offer, datetime], None] = lambda offer, now: None

    def is_done(self, offer: Offer) -> bool:
        return bool(getattr(offer, self.field) == self.value)


ARCHIVE = Step("archived", "is_archived", value=True)
RESTORE = Step("restored", "is_archived", value=False)
PAUSE = Step("paused", "is_active", value=False, refuse=_refuse_to_pause)
RESUME = Step("resumed", "is_active", value=True, refuse=_refuse_to_resume)


def take(
    step: Step, offer_id: uuid.UUID, *, now: datetime, source: str, actor: User | None
) -> Offer:
    """Take ``step`` with the offer locked; nothing happens where it was taken already.

    ``source`` is for the history. Raises ``OfferNotFound``, or what the step refuses.
    """
    with transaction.atomic(), history.together(actor=actor, reason=f"{step.done}, {source}"):
        # Read under the lock: a change that came meanwhile must not be written over.
        offer = inventory.lock(offer_id)
        if not step.is_done(offer):
            step.refuse(offer, now)
            setattr(offer, step.field, step.value)
            offer.save()
    return offer


def archive(offer_id: uuid.UUID, *, now: datetime, source: str, actor: User | None) -> Offer:
    """Withdraw an offer; holds that are open can still be paid, sales stay on record.

    Called by the API's DELETE and the admin. Stripe's product is deactivated by the task that the
    save wakes.
    """
    return take(ARCHIVE, offer_id, now=now, source=source, actor=actor)


@dataclass
class Outcome:
    """What became of many: which were changed, how many were so already, which were refused why."""

    changed: list[Offer] = field(default_factory=list)
    unchanged: int = 0
    refused: list[tuple[Offer, DomainError]] = field(default_factory=list)


def take_all(
    step: Step,
    offer_ids: Iterable[uuid.UUID],
    *,
    now: datetime,
    source: str,
    actor: User | None,
) -> Outcome:
    """Take ``step`` with each of many offers, thousands if need be; for actions on a list.

    Each batch is a transaction of its own, which locks in the order of the keys. One whose locks
    weren't had in time is refused as a whole with ``Busy``; the others go on.
    """
    outcome = Outcome()
    keys = sorted(offer_ids)
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        try:
            done = _take_batch(step, batch, now=now, source=source, actor=actor)
        except OperationalError as error:
            if not database_is_busy(error):
                raise
            done = Outcome(refused=[(each, Busy()) for each in Offer.objects.filter(pk__in=batch)])
        outcome.changed += done.changed
        outcome.unchanged += done.unchanged
        outcome.refused += done.refused
    return outcome


def _take_batch(
    step: Step, batch: list[uuid.UUID], *, now: datetime, source: str, actor: User | None
) -> Outcome:
    outcome = Outcome()
    with transaction.atomic(), history.together(actor=actor, reason=f"{step.done}, {source}"):
        offers = Offer.objects.select_for_update(of=("self",), no_key=True)
        for offer in offers.filter(pk__in=batch).order_by("pk"):
            if step.is_done(offer):
                outcome.unchanged += 1
                continue
            try:
                step.refuse(offer, now)
            except DomainError as refusal:
                outcome.refused.append((offer, refusal))
            else:
                outcome.changed.append(offer)
        changed = [offer.pk for offer in outcome.changed]
        Offer.objects.filter(pk__in=changed).update(
            **{step.field: step.value}, updated_at=now, catalog_version=F("catalog_version") + 1
        )
        history.note(changed)
        # One message for all: the task looks for whatever Stripe doesn't know yet.
        transaction.on_commit(lambda: wake("purchases.sync_offers"))
    return outcome


# -- Copies ---------------------------------------------------------------------------------------

COPY = " (copy)"
NOT_COPIED = (Offer.WRITTEN_ELSEWHERE - {"inventory_total"}) | {
    "title", "is_active", "is_archived", "created_at", "updated_at",
}  # fmt: skip


def duplicate(offer_id: uuid.UUID, *, source: str, actor: User | None) -> Offer:
    """Make a paused offer that says the same and has sold nothing; Stripe hears of it anew.

    The stock is the original's total. What later apps keep about the original is theirs to copy.
    Raises ``OfferNotFound``.
    """
    with transaction.atomic(), history.together(actor=actor, reason=f"duplicated, {source}"):
        original = inventory.lock(offer_id)
        copy = Offer(
            title=original.title[: 200 - len(COPY)] + COPY,
            is_active=False,
            **{
                each.attname: getattr(original, each.attname)
                for each in Offer._meta.concrete_fields
                if each.name not in NOT_COPIED
            },
        )
        copy.save()
        for name in history.TARGETS:
            getattr(copy, name).set(getattr(original, name).all())
    return copy
