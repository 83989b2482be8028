"""Delivering what was paid for: exactly once, in the order of payment, until it is done.

Each step is one transaction under the locks of the purchase and its fulfilment: what is handed out,
the status, the e-mails and the events for others commit together, or not at all. So a worker may
die anywhere, run twice or race another: the row is still there to be claimed, or is done.

``take_in`` hears of purchases that became paid or refunded, by a flag on their rows; what is then
due is claimed by ``fulfillment.queue``. A message after the payment only makes both sooner.
"""

import math
import time
import uuid
from datetime import datetime, timedelta
from enum import Enum
from types import ModuleType
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import UUIDField
from django.utils import timezone

from fulfillment import announcements, transitions
from fulfillment.bookings import delivery as bookings
from fulfillment.digital import delivery as digital
from fulfillment.errors import CannotDeliver, FulfillmentAlreadyResolved, FulfillmentNotFound
from fulfillment.models import Fulfillment
from fulfillment.shipping import delivery as shipping
from fulfillment.states import (
    FAIL,
    FULFILL,
    HAND_OVER,
    PUT_OFF,
    RETRY,
    REVOKE,
    TYPE_OF_OFFER,
    Status,
    Type,
)
from fulfillment.tickets import delivery as tickets
from offers import row_queue
from offers.contention import drop_broken_connection, retried
from offers.error_texts import in_words
from offers.errors import database_is_busy
from offers.models import Offer
from offers.prepared import Change, Given, Insert, Row
from offers.wake import wake
from purchases import mail
from purchases import transitions as purchases
from purchases.activity import alert, log_failure
from purchases.models import Email, Purchase
from purchases.states import Status as PurchaseStatus

# A module a type, each with
#   deliver(fulfillment, *, now) -> bool   hand it out; False: a person has to do something first
#   revoke(fulfillment, *, now)            take it back, as far as that can be; may return a remark
#   describe(fulfillment, *, absolute)     what the API says of it, beside type and status
#   page(fulfillment, *, now)              what the attendee's page shows of it
#   missing(offer, *, now) -> str | None           what has to be set up before it can be handed out
#   letter(fulfillment, *, now) -> Letter | None   the e-mail that says what the buyer has now
# The first two are called under the locks of the purchase and the fulfilment.
DELIVERERS: dict[str, ModuleType] = {
    Type.DIGITAL: digital,
    Type.TICKET: tickets,
    Type.PHYSICAL: shipping,
    Type.SERVICE: bookings,
}

# About four hours of tries, then a person has to look.
ATTEMPTS = 12
# What only a person can supply is looked for again by itself, quietly: every hour in the beginning,
# then once for each quarter of the time it has been waiting, at least once a day.
SOONEST_LOOK, LATEST_LOOK = timedelta(hours=1), timedelta(days=1)
# What waits for ``hear_of`` when it has left the queue, and was neither delivered nor revoked.
STOOD_STILL = (Status.PENDING, Status.FAILED)
# A database in trouble is no failed attempt.
PUT_OFF_BUSY = timedelta(seconds=15)

_NEW = Insert(Fulfillment)
_PURCHASE = Change(Purchase)
_TYPE = Row(lambda: Offer.objects.filter(pk=Given("offer", UUIDField())).values_list("offer_type"))


# -- Hearing of payments and refunds --------------------------------------------------------------


class Outcome(Enum):
    """What an attempt says about its deliverer."""

    WORKED = "it delivered, or said what a person has to supply"
    BROKE = "it raised what nobody foresaw"
    NOTHING = "it wasn't asked, or the database was in trouble"


def take_in(*, now: datetime, until: float = math.inf, limit: int = 500) -> int:
    """Make a fulfilment for each purchase that became paid, revoke those refunded.

    Called by the sweep, which may have to end ``until`` a moment of the monotonic clock. Returns
    how many purchases it looked at. Those that another process has locked are that one's to do.
    """
    failed: list[uuid.UUID] = []
    for looked_at in range(limit):
        news = Purchase.objects.filter(fulfillment_due=True).exclude(pk__in=failed)
        purchase = None
        try:
            with transaction.atomic():
                purchase = (
                    news.order_by("paid_at")
                    .select_for_update(skip_locked=True, of=("self",), no_key=True)
                    .first()
                )
                if purchase is None or time.monotonic() > until:
                    return looked_at
                _hear_of(purchase, now=now)
        except Exception as error:  # the flag stays; the others get their turn
            drop_broken_connection()
            if purchase is None:
                raise
            failed.append(purchase.pk)
            log_failure("take_in", purchase, error)
    return limit


@retried
def hear_of(purchase_id: uuid.UUID, *, now: datetime) -> Fulfillment | None:
    """Bring the fulfilment in line with its purchase; ``None`` if there is nothing to deliver.

    Called by the sweep and by the message that follows a payment; locks the purchase. The flag is
    lowered in the same transaction, so each change is heard of once, whoever comes first.
    """
    with transaction.atomic():
        return _hear_of(purchases.lock(purchase_id), now=now)


def _hear_of(purchase: Purchase, *, now: datetime) -> Fulfillment | None:
    if not purchase.fulfillment_due:
        return Fulfillment.objects.filter(purchase=purchase).first()
    fulfillment = transitions.lock_of(purchase)
    if fulfillment is None and _was_paid(purchase):
        fulfillment = _take_on(purchase, now=now)
    if fulfillment is not None:
        if purchase.status == PurchaseStatus.REFUNDED:
            _take_back(fulfillment, now=now)
        elif fulfillment.status in STOOD_STILL and not fulfillment.is_due:
            # While a refund was under way, which then failed.
            fulfillment.due_at = now
            fulfillment.save(update_fields=["due_at"])
    purchase.fulfillment_due = False
    _PURCHASE.run(purchase, {"fulfillment_due": False})
    return fulfillment


def _was_paid(purchase: Purchase) -> bool:
    """Whether it is, or was: what was sold and taken back between two sweeps is told too."""
    return (
        purchase.status == PurchaseStatus.PAID
        or purchase.transitions.filter(to_status=PurchaseStatus.PAID).exists()
    )


def _take_on(purchase: Purchase, *, now: datetime) -> Fulfillment:
    found = _TYPE.get(offer=purchase.offer_id)
    assert found is not None  # noqa: S101 - a foreign key says so
    fulfillment = Fulfillment(
        purchase=purchase,
        type=TYPE_OF_OFFER[Offer.Type(found[0])],
        paid_at=purchase.paid_at or now,
        created_at=now,
        due_at=now,
    )
    _NEW.run([fulfillment])
    transitions.record(fulfillment, "take_on", None, now=now, source="worker")
    if purchase.status != PurchaseStatus.REFUNDED:
        mail.enqueue(purchase, Email.Occasion.CONFIRMED, now=now)
    announcements.paid(purchase, now=now)
    return fulfillment


def _take_back(fulfillment: Fulfillment, *, now: datetime) -> None:
    announcements.refunded(fulfillment.purchase, now=now)
    if fulfillment.status != Status.REVOKED:
        revoke_locked(fulfillment, now=now, source="worker", reason="refunded")


# -- Delivering -----------------------------------------------------------------------------------


def attempt(claimed: Fulfillment, *, now: datetime) -> Outcome:
    """Deliver what the caller has claimed, or note why not.

    Called by ``fulfillment.queue`` outside any transaction. Raises nothing but what the database
    does when it can't be told why not: the claim's end brings the row back then.
    """
    try:
        return _deliver(claimed, now=now)
    except CannotDeliver as missing:
        _fail(claimed, str(missing), now=now)
        return Outcome.WORKED
    except Exception as error:  # noqa: BLE001 - noted and logged; the others get their turn
        drop_broken_connection()
        _put_off(claimed, error, now=now)
        return Outcome.NOTHING if database_is_busy(error) else Outcome.BROKE


@retried
def _deliver(claimed: Fulfillment, *, now: datetime) -> Outcome:
    with transaction.atomic():
        fulfillment = _locked(claimed)
        if fulfillment.due_at != claimed.due_at:
            # This worker was so slow that the row went to another, or a refund was faster.
            return Outcome.NOTHING
        if fulfillment.purchase.status != PurchaseStatus.PAID:
            # On its way back: it waits for ``hear_of``, whatever becomes of the refund.
            if fulfillment.status == Status.PROCESSING:
                fulfillment.status = Status.PENDING  # as before the claim
            _leave_queue(fulfillment, "status")
            return Outcome.NOTHING
        if DELIVERERS[fulfillment.type].deliver(fulfillment, now=now):
            transitions.apply(fulfillment, FULFILL, now=now, source="worker")
        elif fulfillment.status == Status.PROCESSING:
            fulfillment.error = ""
            _leave_queue(fulfillment, "error")
        else:
            transitions.apply(fulfillment, HAND_OVER, now=now, source="worker")
    return Outcome.WORKED


def _locked(claimed: Fulfillment) -> Fulfillment:
    fulfillment = transitions.lock_of(purchases.lock(claimed.purchase_id))
    if fulfillment is None:
        raise FulfillmentNotFound
    return fulfillment


def _leave_queue(fulfillment: Fulfillment, *changed: str) -> None:
    fulfillment.due_at, fulfillment.is_stalled = None, False
    fulfillment.save(update_fields=["due_at", "is_stalled", *changed])


@retried
def _fail(claimed: Fulfillment, why: str, *, now: datetime) -> None:
    """Note what a person has to supply, once; it is looked for again by itself."""
    with transaction.atomic():
        fulfillment = _locked(claimed)
        if fulfillment.due_at != claimed.due_at:
            return
        clock = timezone.now()
        waited = (clock - fulfillment.created_at) / 4
        # A look is no failed attempt: those are counted from here.
        news: dict[str, Any] = {
            "due_at": clock + min(max(waited, SOONEST_LOOK), LATEST_LOOK),
            "error": why,
            "attempts": 0,
        }
        if fulfillment.status == Status.FAILED:
            _write(fulfillment, **news)
            return
        transitions.apply(fulfillment, FAIL, now=now, source="worker", reason=why, **news)
        transaction.on_commit(lambda: alert("cannot_deliver", fulfillment.purchase, detail=why))


@retried
def _put_off(claimed: Fulfillment, error: Exception, *, now: datetime) -> None:
    said = in_words(error)
    with transaction.atomic():
        fulfillment = _locked(claimed)
        log_failure("deliver", fulfillment.purchase, error, attempts=fulfillment.attempts)
        if fulfillment.due_at != claimed.due_at:
            return
        later = timezone.now() + row_queue.delay(fulfillment.attempts)
        if database_is_busy(error):
            later = timezone.now() + PUT_OFF_BUSY
            _write(fulfillment, attempts=fulfillment.attempts - 1, due_at=later, error=said)
        elif fulfillment.attempts >= ATTEMPTS and not fulfillment.is_stalled:
            _give_up(fulfillment, said, now=now)
        elif fulfillment.status == Status.FAILED:
            _write(fulfillment, due_at=later, error=said)
        else:
            news: dict[str, Any] = {"due_at": later, "error": said}
            transitions.apply(fulfillment, PUT_OFF, now=now, source="worker", reason=said, **news)


def _write(fulfillment: Fulfillment, **changes: Any) -> None:
    """Store what doesn't change the status."""
    for field, value in changes.items():
        setattr(fulfillment, field, value)
    fulfillment.save(update_fields=list(changes))


def _give_up(fulfillment: Fulfillment, said: str, *, now: datetime) -> None:
    if fulfillment.status == Status.FAILED:
        fulfillment.error = said
        _leave_queue(fulfillment, "error")
    else:
        transitions.apply(fulfillment, FAIL, now=now, source="worker", reason=said, error=said)
    transaction.on_commit(lambda: alert("fulfillment_given_up", fulfillment.purchase, detail=said))


def missing(offer: Offer, *, now: datetime) -> str | None:
    """What the organizer has still to supply before the offer's buyers get anything; for admin."""
    deliverer = DELIVERERS[TYPE_OF_OFFER[Offer.Type(offer.offer_type)]]
    told: str | None = deliverer.missing(offer, now=now)
    return told


# -- What staff do --------------------------------------------------------------------------------


@retried
def retry(
    fulfillment_id: uuid.UUID, *, now: datetime, source: str, actor: User | None = None
) -> Fulfillment:
    """Have a failed or waiting delivery tried again at once, with all its attempts.

    Called by admin and ``retry_fulfillment``. Raises ``FulfillmentNotFound`` and, for what is
    delivered, revoked or in somebody's hands, ``FulfillmentAlreadyResolved``.
    """
    with transaction.atomic():
        fulfillment = transitions.lock(fulfillment_id)
        transitions.apply(
            fulfillment, RETRY, now=now, source=source, actor=actor,
            due_at=now, attempts=0, is_stalled=False,
        )  # fmt: skip
        transaction.on_commit(
            lambda: wake("fulfillment.deliver_purchase", str(fulfillment.purchase_id))
        )
    return fulfillment


@retried
def retry_offer(offer_id: uuid.UUID, *, now: datetime) -> int:
    """Have what failed or waits of one offer tried again soon, because somebody mended the cause.

    Called by admin after what was missing has been supplied: codes, a file, a tier. Returns how
    many there are; they keep their order of payment.
    """
    waiting = Fulfillment.objects.filter(
        purchase__offer_id=offer_id, status__in=[Status.PENDING, Status.FAILED]
    ).exclude(purchase__status=PurchaseStatus.REFUNDING)
    with transaction.atomic():
        # In one order, whoever else changes many of them at once.
        rows = waiting.order_by("pk").select_for_update(of=("self",), no_key=True)
        chosen = list(rows.values_list("pk", flat=True))
        Fulfillment.objects.filter(pk__in=chosen).update(due_at=now, attempts=0, is_stalled=False)
        if chosen:
            transaction.on_commit(lambda: wake("fulfillment.deliver"))
    return len(chosen)


@retried
def mark_done(
    fulfillment_id: uuid.UUID,
    *,
    reason: str,
    now: datetime,
    source: str,
    actor: User | None = None,
) -> Fulfillment:
    """Staff delivered it themselves: nothing more is handed out, nobody gets an e-mail.

    Raises ``FulfillmentNotFound``, ``FulfillmentAlreadyResolved`` and ``NotPaidFor``.
    """
    with transaction.atomic():
        fulfillment = transitions.lock(fulfillment_id)
        return transitions.apply(
            fulfillment, FULFILL, now=now, source=source, actor=actor, reason=reason
        )


@retried
def revoke(
    fulfillment_id: uuid.UUID,
    *,
    reason: str,
    now: datetime,
    source: str,
    actor: User | None = None,
) -> Fulfillment:
    """Take back what was delivered, whatever becomes of the money.

    Called by admin. Raises ``FulfillmentNotFound`` and ``FulfillmentAlreadyResolved``.
    """
    with transaction.atomic():
        fulfillment = transitions.lock(fulfillment_id)
        return revoke_locked(fulfillment, now=now, source=source, actor=actor, reason=reason)


def revoke_locked(
    fulfillment: Fulfillment,
    *,
    reason: str,
    now: datetime,
    source: str,
    actor: User | None = None,
) -> Fulfillment:
    """The same for a caller who has the locks."""
    if fulfillment.status == Status.REVOKED:
        raise FulfillmentAlreadyResolved(status=fulfillment.status, transition=REVOKE.name)
    if remark := DELIVERERS[fulfillment.type].revoke(fulfillment, now=now):
        reason = f"{reason} ({remark})"
    return transitions.apply(
        fulfillment, REVOKE, now=now, source=source, actor=actor, reason=reason
    )
