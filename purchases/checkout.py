"""Starting a purchase: hold the stock, then open a Checkout Session at Stripe.

The hold is committed before Stripe is asked, with everything that is needed to ask again: a crash,
a time-out or a second request with the same ``Idempotency-Key`` takes it up from there.
"""

import hashlib
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from offers.contention import retried
from offers.errors import DomainError
from offers.wake import wake
from purchases import admission, holding, session_requests, stripe_gateway, transitions
from purchases.activity import log_failure
from purchases.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    PaymentProviderUnavailable,
    ProviderFailed,
    ProviderNotReached,
    ProviderRefused,
    ProviderSaturated,
    ProviderStillRunning,
    ProviderTurnedAway,
    ProviderUnreachable,
)
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status
from purchases.stripe_objects import CheckoutSession

TOO_LATE = _("This took too long and the hold has ended: try again.")
# Seconds: beyond them the buyer has waited too long for a second attempt after Stripe's error.
SECOND_ATTEMPT_WITHIN = 2.0


@dataclass(frozen=True)
class Started:
    """What ``start`` did: the purchase, and whether an earlier request had made it."""

    purchase: Purchase
    replayed: bool


def start(
    *,
    user: User,
    offer_id: uuid.UUID,
    quantity: int,
    idempotency_key: str | None,
    site_url: str,
    now: datetime,
    delivery_method: str | None = None,
    language: str = "en",
) -> Started:
    """Hold ``quantity`` units for ``user`` and open their Checkout Session; free offers are paid.

    Called by the API outside any transaction. ``site_url`` is where Stripe sends the buyer back to.
    Without a ``delivery_method`` merchandise is sent if its offer is, and collected if not.
    ``language``, one of ``LANGUAGES``, is that of Stripe's page and of the e-mails; a repeated
    request keeps the first one's. Raises the errors of ``offers.errors`` and ``purchases.errors``
    that the contract lists; after each of them nothing is held, but for ``ProviderUnreachable``:
    there the hold stays until Stripe has been asked what became of it, unless nothing was asked.
    """
    fingerprint = _fingerprint(offer_id, quantity, delivery_method)
    with ExitStack() as stack:
        try:
            purchase, is_new = holding.hold(
                stack,
                user=user,
                offer_id=offer_id,
                quantity=quantity,
                delivery_method=delivery_method,
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
                language=language,
                site_url=site_url,
                now=now,
            )
        except DomainError:
            # What is refused now may have been bought before, by the same request.
            earlier = admission.made_with(user, idempotency_key)
            if earlier is None:
                raise
            purchase, is_new = earlier, False
        if not is_new:
            return _replay(purchase, fingerprint, now=now)
        if purchase.status == Status.RESERVED:
            purchase = _open_session(purchase, is_new=True)
        return Started(purchase, replayed=False)


def _fingerprint(offer_id: uuid.UUID, quantity: int, delivery_method: str | None) -> str:
    """What makes two requests the same one. Who names no method asks as everybody once did."""
    asked = f"{offer_id}:{quantity}" + (f":{delivery_method}" if delivery_method else "")
    return hashlib.sha256(asked.encode()).hexdigest()


def _replay(purchase: Purchase, fingerprint: str, *, now: datetime) -> Started:
    """Answer a request whose key has made a purchase before, finishing it if that is needed."""
    same_request = purchase.request_fingerprint == fingerprint
    if purchase.checkout_failed_at is not None and purchase.status == Status.RESERVED:
        # The buyer was told 503, so the key is free again as soon as this hold has been given back.
        if not same_request or purchase.reserved_until <= now:
            raise IdempotencyKeyInUse
    elif not same_request:
        raise IdempotencyKeyReused
    if purchase.status != Status.RESERVED or purchase.reserved_until <= now:
        return Started(purchase, replayed=True)
    # The first request crashed, failed or is still at it. Asking Stripe with the same key gets the
    # same session in all three cases, so no claim is needed, except against an end of the hold.
    if purchase.is_ending(now):
        raise IdempotencyKeyInUse
    return Started(_open_session(purchase), replayed=True)


def resume(purchase: Purchase) -> Purchase:
    """Finish a hold whose request died before it had a session; called by reconciliation.

    The same as a repeated request does; ``purchase`` itself may change, too. Raises
    ``PaymentProviderUnavailable``.
    """
    return _open_session(purchase)


def _open_session(purchase: Purchase, *, is_new: bool = False) -> Purchase:
    """Open the purchase's Checkout Session; on failure give the hold back and raise why.

    ``is_new`` says that no earlier request has asked Stripe for one.
    """
    started = time.monotonic()
    while purchase.status == Status.RESERVED:
        try:
            session = create_session(purchase)
        except ProviderSaturated:
            raise  # a replay that found no room: nothing was asked, so nothing has changed
        except ProviderUnreachable as error:
            if isinstance(error, ProviderStillRunning) and _is_anothers(purchase, started):
                raise IdempotencyKeyInUse from error
            if is_new and isinstance(error, ProviderNotReached):
                _give_back(purchase, error)
            else:
                # The session may exist: the hold stays until the sweep has found out (rule 6).
                _note_failure(purchase, error)
            raise
        except PaymentProviderUnavailable as error:
            hurried = time.monotonic() - started < SECOND_ATTEMPT_WITHIN
            if purchase.checkout_attempt == 1 and hurried and _can_try_again(error):
                purchase = _next_attempt(purchase, error)
                continue
            _give_back(purchase, error)
            raise
        return _record_session(purchase, session)
    # Somebody else resolved the hold between our two attempts.
    if purchase.status == Status.RELEASED:
        raise PaymentProviderUnavailable(TOO_LATE)
    return purchase


def _is_anothers(purchase: Purchase, started: float) -> bool:
    """Whether what Stripe is still running is another request with the same ``Idempotency-Key``.

    Sooner than our own time-out it can be nothing else; later it may be our own first try.
    """
    waited = time.monotonic() - started
    return purchase.idempotency_key is not None and waited < settings.STRIPE_READ_TIMEOUT


def create_session(purchase: Purchase) -> CheckoutSession:
    """Ask Stripe for the purchase's session; the same one again for the same attempt.

    Also called by whoever ends a hold whose session isn't known.
    """
    return stripe_gateway.create_session(
        cast("dict[str, Any]", purchase.checkout_request),
        idempotency_key=f"checkout:{purchase.pk}:{purchase.checkout_attempt}",
    )


def _can_try_again(error: PaymentProviderUnavailable) -> bool:
    """Whether a second attempt, with a new key, could do better than the first.

    Stripe stores a 500 under its key, so only a new key gets past one. A refusal is worth it when
    it is about what may have aged: the Price (deactivated meanwhile) or the session's end.
    """
    if isinstance(error, ProviderRefused):
        aged = ("price" in (error.param or ""), error.param == "expires_at")
        return any(aged) or error.provider_code == "resource_missing"
    return isinstance(error, ProviderFailed) and not isinstance(error, ProviderTurnedAway)


@retried
def _next_attempt(purchase: Purchase, error: PaymentProviderUnavailable) -> Purchase:
    """Store what the second attempt will ask, and return the purchase as it is then."""
    now = timezone.now()
    with transaction.atomic():
        stored = transitions.lock(purchase.pk)
        if stored.status != Status.RESERVED or stored.checkout_attempt != purchase.checkout_attempt:
            return stored  # a second request with the same key, or an end of the hold, was faster
        if stored.is_ending(now):
            raise PaymentProviderUnavailable(TOO_LATE)
        stored.checkout_attempt += 1
        stored.checkout_expires_at = now + session_requests.session_lifetime()
        stored.checkout_request = cast("dict[str, Any]", stored.checkout_request) | {
            "line_items": [
                {"price_data": session_requests.inline_price(stored), "quantity": stored.quantity}
            ],
            "expires_at": int(stored.checkout_expires_at.timestamp()),
        }
        stored.stray_session_check_due |= not isinstance(error, ProviderRefused)
        stored.save(
            update_fields=[
                "checkout_attempt",
                "checkout_expires_at",
                "checkout_request",
                "stray_session_check_due",
            ]
        )
    return stored


@retried
def _record_session(purchase: Purchase, session: CheckoutSession) -> Purchase:
    now = timezone.now()
    opened: Any = {"session_id": session.id, "url": session.url, "expires_at": session.expires_at}
    if transitions.open_checkout(purchase, **opened, now=now, source="api"):
        return purchase
    with transaction.atomic():
        purchase = transitions.lock(purchase.pk)
        if transitions.open_checkout(purchase, **opened, now=now, source="api"):
            return purchase  # whoever was ending the hold has let it be
        if purchase.checkout_session_id == session.id and purchase.status != Status.RELEASED:
            return purchase  # a second request with the same key, or the webhook, was faster
        # Nobody is given this session: the hold has ended, is ending, or lives in another one.
        purchase.stray_session_check_due = True
        if purchase.status == Status.RESERVED:
            purchase.checkout_failed_at = now
        elif purchase.status == Status.RELEASED:
            purchase.idempotency_key = None
        purchase.save(
            update_fields=["stray_session_check_due", "checkout_failed_at", "idempotency_key"]
        )
    wake("purchases.end_overdue_holds")
    if purchase.status in (Status.RESERVED, Status.RELEASED):
        raise PaymentProviderUnavailable(TOO_LATE)
    return purchase


def _note_failure(purchase: Purchase, error: Exception) -> None:
    now = timezone.now()
    noted = Purchase.objects.filter(pk=purchase.pk, status=Status.RESERVED).update(
        checkout_failed_at=now
    )
    if noted:
        wake("purchases.end_overdue_holds")
    log_failure("open_checkout", purchase, error, outcome="unknown")


@retried
def _give_back(purchase: Purchase, error: PaymentProviderUnavailable) -> None:
    """Release a hold for which Stripe has most likely done nothing; the buyer may try again.

    The key is freed with it, since the request "created nothing". Unless Stripe plainly refused,
    the sweep makes sure afterwards that no session was left open: nobody was given its address.
    """
    log_failure("open_checkout", purchase, error, outcome="given back")
    with transaction.atomic():
        purchase = transitions.lock(purchase.pk)
        if purchase.status == Status.RESERVED:
            transitions.release(
                purchase,
                reason=ReleaseReason.PROVIDER_ERROR,
                now=timezone.now(),
                source="api",
                note=type(error).__name__,
                stray_session_check_due=isinstance(error, ProviderFailed),
            )
