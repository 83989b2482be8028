"""Holding units for a buyer: judged without the lock, and under it for who was too late once."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, transaction

from offers import catalog, inventory, money, wanted
from offers.contention import retried
from offers.error_texts import in_words
from offers.errors import Busy
from offers.models import Offer
from offers.shared_writes import SharedWrites
from purchases import admission, delivery_methods, session_requests, stripe_gateway, transitions
from purchases.errors import QuantityTooExpensive
from purchases.models import Purchase
from purchases.states import PAY, Transition

logger = structlog.get_logger("purchases")

# How often an offer is looked at that gets a price, and loses it, while somebody buys it.
LOOKS = 4
# Of what a new hold goes through at once, if it does.
_HOW: Any = {"source": "api", "reason": "free"}


def hold(
    stack: ExitStack,
    *,
    user: User,
    offer_id: uuid.UUID,
    quantity: int,
    delivery_method: str | None,
    idempotency_key: str | None,
    site_url: str,
    now: datetime,
    **rest: Any,
) -> tuple[Purchase, bool]:
    """The purchase that this key has made before, or a new one, and whether it is new.

    Called by checkout, outside any transaction; room to speak to Stripe, if that is needed, is
    taken on its ``stack``. Raises why the buyer may not buy, and ``Busy``.
    """
    for look in range(LOOKS):
        catalog.refuse_while_switched_off()
        # Most refusals are made here, without the lock: a sold-out offer's row is left in peace.
        offer, method = _judged(user, offer_id, quantity, delivery_method, now)
        if offer.price:
            if not stripe_gateway.has_room():
                # Who only repeats a request doesn't wait for some. Where they would be refused at
                # once, as in a long pause, it is ``checkout.start`` that finds what they have.
                earlier = admission.made_with(user, idempotency_key)
                if earlier is not None:
                    return earlier, False
            # With Stripe hanging, the refusal comes before anything is held, and at once.
            stack.enter_context(stripe_gateway.conversation())
        how = rest | {
            "user": user,
            "quantity": quantity,
            "idempotency_key": idempotency_key,
            "site_url": site_url,
            "now": now,
        }
        try:
            if look == 0:
                return _hold_as_seen(offer, method, **how)
            return _hold_as_it_is(offer, delivery_method, **how)
        except inventory.NotAsSeen:
            continue
    raise Busy


def _judged(
    user: User, offer_id: uuid.UUID, quantity: int, delivery_method: str | None, now: datetime
) -> tuple[Offer, str]:
    """The offer and how its buyer gets it; raises why they may not buy it now."""
    found = wanted.find(user, offer_id)
    offer = found.offer
    offer.refuse_unless_on_sale(now)
    offer.refuse_more_than_is_left(quantity)
    found.refuse_unless_eligible()
    minor = money.to_minor_units(offer.price, offer.currency)
    if minor * quantity > money.MAXIMUM_MINOR_UNITS:
        raise QuantityTooExpensive
    return offer, delivery_methods.chosen(offer, delivery_method)


def _hold_as_seen(offer: Offer, method: str, **hold: Any) -> tuple[Purchase, bool]:
    """Hold units of the offer as it was judged, together with others who want some just now.

    Raises ``NotAsSeen`` if it is another by now.
    """
    wish = _Wish(offer, method, hold)
    # An offer of another version is another one: it may have another price.
    key = (offer.pk, offer.catalog_version)
    return _together.do(key, wish, alone=wish.alone, most=settings.HOLDS_TOGETHER)


@retried
def _hold_alone(offer: Offer, method: str, **hold: Any) -> tuple[Purchase, bool]:
    with inventory.as_seen(), transaction.atomic():
        earlier = _admit(offer, **hold)
        if earlier is not None:
            return earlier, False
        purchase = _draft(offer, method, **hold)
        transitions.create(purchase, *_steps(offer), **_HOW, seen=offer)
        return purchase, True


@dataclass(frozen=True, repr=False)
class _Wish:
    """A hold that one request wants. Without a ``repr``: what is tried again is logged with it."""

    offer: Offer
    method: str
    hold: dict[str, Any]

    def alone(self) -> tuple[Purchase, bool]:
        return _hold_alone(self.offer, self.method, **self.hold)


def _hold_all(wishes: list[_Wish]) -> list[Callable[[], tuple[Purchase, bool]]]:
    """Hold what several buyers want of one offer, which they all have seen alike.

    Whoever can't be served without a further look makes their hold alone, and so do all of them
    when one's couldn't be made: none is there then. Locks the buyers' rows, of which it waits for
    none, and then the offer's. Raises what the database does when it was none of theirs: a lock
    that wasn't had in time, a connection that broke, after which a commit may have been done.
    """
    try:
        return _hold_all_or_none(wishes)
    except (OperationalError, InterfaceError):
        raise
    except inventory.NotAsSeen:
        pass
    except Exception as error:
        # Rolled back, whatever it was; whose fault it was hears of it alone.
        logger.warning("holds not made together", error=in_words(error), exc_info=error)
    return [wish.alone for wish in wishes]


@retried
def _hold_all_or_none(wishes: list[_Wish]) -> list[Callable[[], tuple[Purchase, bool]]]:
    seen = wishes[0].offer
    asked = [
        (wish.hold["user"], wish.hold["quantity"], wish.hold["idempotency_key"]) for wish in wishes
    ]
    with inventory.as_seen(), transaction.atomic():
        admitted = admission.admit_all(seen, asked)
        purchases = [
            _draft(wish.offer, wish.method, **wish.hold)
            for wish, is_admitted in zip(wishes, admitted, strict=True)
            if is_admitted
        ]
        tellings = transitions.create_all(purchases, *_steps(seen), **_HOW, seen=seen)
    # Committed: from here on nothing may be raised.
    made = iter(zip(purchases, tellings, strict=True))
    return [
        partial(_told, *next(made)) if is_admitted else wish.alone
        for wish, is_admitted in zip(wishes, admitted, strict=True)
    ]


def _told(purchase: Purchase, tell: Callable[[], None]) -> tuple[Purchase, bool]:
    tell()
    return purchase, True


_together = SharedWrites(_hold_all)


@retried
def _hold_as_it_is(
    seen: Offer,
    delivery_method: str | None,
    *,
    user: User,
    quantity: int,
    now: datetime,
    **hold: Any,
) -> tuple[Purchase, bool]:
    """Lock the offer first, judge it, and hold units: for who was too late once.

    However often it is edited, this comes to an end; but all others wait for it. Raises
    ``NotAsSeen`` only if it has a price now and had none, or the other way round: Stripe is needed
    then, or isn't.
    """
    hold |= {"user": user, "quantity": quantity, "now": now}
    with transaction.atomic():
        # The buyer's row before the offer's, as everywhere.
        earlier = _admit(seen, **hold)
        if earlier is not None:
            return earlier, False
        inventory.lock(seen.pk)
        # From here to the commit the offer's row is ours: what is found now stays true.
        offer, method = _judged(user, seen.pk, quantity, delivery_method, now)
        if bool(offer.price) != bool(seen.price):
            raise inventory.NotAsSeen
        _admit(offer, **hold)  # there may be another cap by now
        purchase = _draft(offer, method, **hold)
        transitions.create(purchase, *_steps(offer), **_HOW)
        return purchase, True


def _admit(
    offer: Offer, *, user: User, quantity: int, idempotency_key: str | None, **hold: Any
) -> Purchase | None:
    return admission.admit(user, offer, quantity, idempotency_key)


def _steps(offer: Offer) -> tuple[Transition, ...]:
    """What a hold of it goes through at once."""
    return () if offer.price else (PAY,)


def _draft(
    offer: Offer,
    delivery_method: str,
    *,
    user: User,
    quantity: int,
    language: str,
    idempotency_key: str | None,
    fingerprint: str,
    site_url: str,
    now: datetime,
) -> Purchase:
    """The purchase as it will be stored."""
    purchase = Purchase(
        user=user,
        offer=offer,
        event=offer.event,
        offer_title=offer.title,
        quantity=quantity,
        unit_price=offer.price,
        total_price=offer.price * quantity,
        currency=offer.currency,
        reserved_until=now + timedelta(minutes=settings.RESERVATION_MINUTES),
        created_at=now,
        idempotency_key=idempotency_key,
        request_fingerprint=fingerprint,
        delivery_method=delivery_method,
        language=language,
    )
    if offer.price:
        purchase.checkout_expires_at = now + session_requests.session_lifetime()
        page = f"{site_url}/events/{offer.event.slug}/offers"
        purchase.checkout_request = session_requests.session_request(purchase, offer, page)
    else:
        purchase.paid_at = now
    return purchase
