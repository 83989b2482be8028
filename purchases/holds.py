"""Ending holds, the safe way: release only what can't be paid any more (rule 6).

Stripe's sessions outlive our holds, so a hold's session is expired at Stripe first. If the buyer
was faster, the hold is recorded as paid instead. If Stripe can't be asked, the hold stays until
its session is dead by its own ``expires_at``.
"""

import math
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from offers import row_queue
from offers.contention import drop_broken_connection, retried
from offers.error_texts import without_quotes
from offers.errors import database_is_busy
from purchases import checkout, payments, stripe_gateway, transitions
from purchases.activity import log_failure
from purchases.errors import (
    HoldAlreadyResolved,
    HoldIsEnding,
    HoldWasPaid,
    NotCancellable,
    PaymentMismatch,
    PaymentProviderUnavailable,
    ProviderFailed,
    ProviderRefused,
    ProviderTurnedAway,
    ProviderUnreachable,
    PurchaseNotFound,
    is_stripe_away,
)
from purchases.models import Purchase
from purchases.states import OPEN_HOLDS, RELEASE, ReleaseReason, Status
from purchases.stripe_objects import CheckoutSession

# Longer than the longest conversation with Stripe, so that a claim lapses only after a crash.
CLAIM = timedelta(seconds=60)
# Our clock and Stripe's may differ by this much when we call a session dead without asking.
CLOCK_MARGIN = timedelta(minutes=2)
# A sweep ends a hold within a minute of its time, unless Stripe can't be asked.
STUCK = timedelta(hours=1)


def cancel(*, purchase_id: uuid.UUID, user: User, now: datetime) -> Purchase:
    """Give the buyer's own unpaid hold back at once; called by the API.

    Raises ``PurchaseNotFound`` for somebody else's, ``NotCancellable`` when it isn't an unpaid hold
    (any more), and ``PaymentProviderUnavailable`` when Stripe can't be asked: the hold then stays.
    """
    purchase = Purchase.objects.filter(pk=purchase_id, user=user).first()
    if purchase is None:
        raise PurchaseNotFound
    try:
        purchase = end(
            purchase,
            reason=ReleaseReason.CANCELLED,
            now=now,
            source="api",
            actor=user,
        )
    except (HoldAlreadyResolved, HoldIsEnding) as error:
        raise NotCancellable from error
    except PaymentMismatch as error:
        raise NotCancellable(
            gettext("This purchase needs a look by the organizer: ask them.")
        ) from error
    if purchase.status != Status.RELEASED:
        raise NotCancellable(gettext("This purchase was paid in the meantime."))
    return purchase


def release(
    purchase_id: uuid.UUID, *, now: datetime, source: str, actor: User | None = None
) -> Purchase:
    """Put an unpaid hold's units back on sale, because staff say so; called by admin.

    So are those of a delayed payment that didn't fit, once all of it was sent back. Outside any
    transaction: Stripe is asked first, for up to some seconds. Raises
    ``PurchaseNotFound``, ``HoldWasPaid``, and what ``end`` raises; after
    ``PaymentProviderUnavailable`` the hold is as it was.
    """
    purchase = Purchase.objects.filter(pk=purchase_id).first()
    if purchase is None:
        raise PurchaseNotFound
    how: dict[str, Any] = {"now": now, "source": source, "actor": actor}
    if _is_mismatch_of_delayed_payment(purchase):
        purchase = _end_delayed(purchase, **how)
    else:
        purchase = end(purchase, reason=ReleaseReason.STAFF, **how)
    if purchase.status != Status.RELEASED:
        raise HoldWasPaid(status=purchase.get_status_display().lower())
    return purchase


def is_releasable(purchase: Purchase) -> bool:
    """Whether ``release`` has anything to ask Stripe about; called by admin."""
    return purchase.is_open_hold or _is_mismatch_of_delayed_payment(purchase)


def _is_mismatch_of_delayed_payment(purchase: Purchase) -> bool:
    is_delayed = purchase.status == Status.PAYMENT_PROCESSING
    return is_delayed and purchase.checkout_session_id in payments.noted_sessions(purchase)


def _end_delayed(purchase: Purchase, *, now: datetime, source: str, actor: User | None) -> Purchase:
    """Nobody opens or expires anything for it any more, so it needs no claim."""
    session = stripe_gateway.retrieve_session(str(purchase.checkout_session_id))
    if not _came_to_nothing(session, purchase, now=now, source=source):
        return Purchase.objects.get(pk=purchase.pk)
    return _release(
        purchase.pk,
        of=(Status.PAYMENT_PROCESSING,),
        reason=ReleaseReason.STAFF,
        now=now,
        source=source,
        actor=actor,
    )


def _came_to_nothing(
    session: CheckoutSession, purchase: Purchase, *, now: datetime, source: str
) -> bool:
    """Record a complete session; whether nothing was bought by it and nothing is left of it."""
    try:
        payments.record_session(session, now=now, source=source)
    except PaymentMismatch:
        # Staff's way out of it.
        if not payments.settle_mismatch(session, purchase, now=now, source=source):
            raise
        return True
    return False


def end(
    purchase: Purchase,
    *,
    reason: ReleaseReason,
    now: datetime,
    source: str,
    actor: User | None = None,
    ask_stripe: bool = True,
) -> Purchase:
    """End one open hold and return what became of it: released, or paid after all.

    Called outside any transaction by cancel, release, the sweep and the command. ``ask_stripe`` is
    false when Stripe can't tell; only a hold whose session is dead by its own clock can be ended
    then. Raises ``HoldAlreadyResolved``, ``HoldIsEnding`` (somebody else is at it),
    ``PaymentMismatch``, or ``PaymentProviderUnavailable``, after which the hold is as it was.
    """
    if not ask_stripe and not _is_dead(purchase, now):
        raise ProviderUnreachable
    purchase = _claim(purchase)
    try:
        session = _make_unpayable(purchase) if ask_stripe else None
    except PaymentProviderUnavailable:
        Purchase.objects.filter(pk=purchase.pk).update(ending_until=None)
        raise
    if (
        session is not None
        and session.status == "complete"
        and not _came_to_nothing(session, purchase, now=now, source=source)
    ):
        return Purchase.objects.get(pk=purchase.pk)
    return _release(
        purchase.pk,
        reason=reason,
        now=now,
        source=source,
        actor=actor,
        # Whether somebody had paid a session that is dead is asked when Stripe is back.
        stray_session_check_due=not ask_stripe,
    )


@retried
def _release(
    purchase_id: uuid.UUID, *, of: tuple[Status, ...] = OPEN_HOLDS, **how: Any
) -> Purchase:
    with transaction.atomic():
        purchase = transitions.lock(purchase_id)
        if purchase.status not in of:
            return purchase  # a webhook was faster: paid, or about to be settled
        return transitions.release(purchase, **how)


def _claim(purchase: Purchase) -> Purchase:
    """Mark the hold as ending, so that nobody opens a session for it meanwhile."""
    clock = timezone.now()
    claimed = Purchase.objects.filter(
        Purchase.nobody_is_ending(clock), pk=purchase.pk, status__in=OPEN_HOLDS
    ).update(ending_until=clock + CLAIM)
    current = Purchase.objects.get(pk=purchase.pk)
    if claimed:
        return current
    if current.is_open_hold:
        raise HoldIsEnding
    raise HoldAlreadyResolved(status=current.status, transition=RELEASE.name)


def _make_unpayable(purchase: Purchase) -> CheckoutSession | None:
    """Expire the hold's session at Stripe; ``None`` when there is none."""
    session_id = purchase.checkout_session_id
    if session_id is None:
        session = _find_session(purchase)
        if session is None:
            return None
        session_id = session.id
    return stripe_gateway.expire_session(session_id)


def _find_session(purchase: Purchase) -> CheckoutSession | None:
    """The session of a hold that has none on record: its request crashed, or had no answer.

    Asking again with the same key gets the session if there is one. If there is none, this makes
    one (which is then expired), or Stripe refuses because by now it would end too soon. Only after
    that is the question settled: a request that Stripe is still working on can't succeed later.
    """
    try:
        return checkout.create_session(purchase)
    except ProviderRefused:
        return None
    except ProviderTurnedAway:
        raise  # Stripe didn't look, so this says nothing about the session
    except ProviderFailed:
        # A stored 500 is all that this key will ever get; the session may exist nevertheless.
        found = _sessions_at_stripe([purchase])[purchase.pk]
        return next((s for s in found if s.status in ("open", "complete")), None)


def _sessions_at_stripe(purchases: list[Purchase]) -> dict[uuid.UUID, list[CheckoutSession]]:
    """What Stripe has of these purchases, found by walking over all sessions of their time."""
    found = stripe_gateway.sessions_of(
        {str(purchase.pk) for purchase in purchases},
        since=min(p.created_at for p in purchases) - CLOCK_MARGIN,
        until=max(p.checkout_expires_at or p.reserved_until for p in purchases) + CLOCK_MARGIN,
    )
    return {uuid.UUID(reference): sessions for reference, sessions in found.items()}


def _is_dead(purchase: Purchase, now: datetime) -> bool:
    return (
        purchase.checkout_expires_at is not None
        and purchase.checkout_expires_at + CLOCK_MARGIN <= now
    )


# -- Sweeps ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """What became of one hold that a sweep looked at. ``error`` is set if it is still held."""

    purchase: Purchase
    error: Exception | None = None


def is_overdue(*, now: datetime) -> Q:
    """What a sweep would end at ``now``: the one definition, for tasks, lists and figures.

    Its time is up, or its buyer was told that Stripe failed. One with a problem waits for a person.
    """
    is_due = Q(reserved_until__lte=now) | Q(checkout_failed_at__lte=now)
    return Q(status__in=OPEN_HOLDS) & is_due & Q(problem="")


def is_stuck(*, now: datetime) -> Q:
    """Overdue for so long that something keeps the sweeps from it: Stripe away, or no worker."""
    return is_overdue(now=now - STUCK)


def overdue(*, now: datetime) -> QuerySet[Purchase]:
    """The holds that are; called by the sweep's task and command, and the back-office."""
    return Purchase.objects.filter(is_overdue(now=now))


def open_holds() -> QuerySet[Purchase]:
    """Every unpaid hold, overdue or not."""
    return Purchase.objects.filter(status__in=OPEN_HOLDS)


def end_all(
    holds: QuerySet[Purchase],
    *,
    reason: ReleaseReason,
    now: datetime,
    source: str,
    actor: User | None = None,
    until: float = math.inf,
    at_once: int = 1,
) -> Iterator[Ended]:
    """End each of ``holds``, oldest first, yielding what became of it; a task and a command.

    ``at_once`` so many, since each waits for Stripe most of the time. One that fails, for whatever
    reason, doesn't stop the rest. Once Stripe is out of reach it isn't asked again: only holds
    whose session is dead are still ended.
    """
    sweep = _Sweep({"reason": reason, "now": now, "source": source, "actor": actor}, until)
    due = list(holds.order_by("reserved_until"))
    if at_once == 1:
        yield from takewhile(bool, map(sweep.end, due))
        return
    pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="sweep")
    try:
        # Each in a copy of this context, which has the task's id for the log.
        ends = [pool.submit(copy_context().run, sweep.end_in_thread, hold) for hold in due]
        yield from filter(None, (end.result() for end in ends))
    finally:
        # Who interrupts the command waits for those that have begun, and no others are ended.
        pool.shutdown(cancel_futures=True)


class _Sweep:
    """What the threads of a sweep share: how to end a hold, and whether Stripe is away."""

    def __init__(self, how: dict[str, Any], until: float) -> None:
        self._how = how
        self._until = until
        self._stripe_away: Exception | None = None

    def end_in_thread(self, purchase: Purchase) -> Ended | None:
        try:
            return self.end(purchase)
        finally:
            connection.close()

    def end(self, purchase: Purchase) -> Ended | None:
        """What became of the hold; ``None`` when the sweep's time is over."""
        if time.monotonic() > self._until:
            return None
        away, now = self._stripe_away, self._how["now"]
        if away is not None and not _is_dead(purchase, now):
            return Ended(purchase, away)
        try:
            return Ended(self._end(purchase, ask_stripe=away is None))
        except HoldAlreadyResolved:
            return Ended(Purchase.objects.get(pk=purchase.pk))
        except (HoldIsEnding, PaymentProviderUnavailable) as error:
            return Ended(purchase, error)
        except Exception as error:  # noqa: BLE001 - logged; the other holds must not wait for it
            log_failure("release", purchase, error)
            drop_broken_connection()
            return Ended(purchase, error)

    def _end(self, purchase: Purchase, *, ask_stripe: bool) -> Purchase:
        try:
            return end(purchase, **self._how, ask_stripe=ask_stripe)
        except PaymentProviderUnavailable as error:
            if is_stripe_away(error):
                self._stripe_away = error
            log_failure("release", purchase, error)
            if not ask_stripe or not _is_dead(purchase, self._how["now"]):
                raise
            return end(purchase, **self._how, ask_stripe=False)


def settle_stray_sessions(*, now: datetime, limit: int = 100, until: float = math.inf) -> int:
    """Close sessions that Stripe may have opened for holds that were given back.

    Their addresses were given to nobody. One that was paid all the same is a late payment. Called
    by the sweep; returns how many purchases were settled, raises what the gateway raises.
    """
    due = Purchase.objects.filter(stray_session_check_due=True).exclude(status__in=OPEN_HOLDS)
    batch = list(due.order_by("created_at")[:limit])
    if not batch:
        return 0
    sessions = _sessions_at_stripe(batch)
    settled = 0
    for purchase in row_queue.in_time(batch, until):
        try:
            for session in sessions[purchase.pk]:
                _close_stray(purchase, session, now=now)
        except Exception as error:
            if is_stripe_away(error):
                raise
            # A payment that doesn't fit is on the purchase by now, for staff; others go on.
            log_failure("settle_stray_session", purchase, error)
            drop_broken_connection()
            if database_is_busy(error):
                continue
            if not isinstance(error, PaymentMismatch):
                # Tried for ever, it would make every sweep walk over all sessions since then.
                why = without_quotes(str(error))
                payments.note_problem(purchase.pk, f"{payments.UNCLOSED}: {why}")
        Purchase.objects.filter(pk=purchase.pk).update(stray_session_check_due=False)
        settled += 1
    return settled


def _close_stray(purchase: Purchase, session: CheckoutSession, *, now: datetime) -> None:
    if session.id == purchase.checkout_session_id and purchase.status != Status.RELEASED:
        return
    closed = stripe_gateway.expire_session(session.id) if session.is_open else session
    if closed.status == "complete":
        payments.record_session(closed, now=now, source="sweep")
