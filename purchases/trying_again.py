"""Buying once more what a hold ended of: the same offer, quantity and way of delivery."""

import uuid
from collections.abc import Iterable
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import Q

from offers import catalog, targeting
from purchases import checkout, held_already
from purchases.errors import NotEnded, PurchaseNotFound
from purchases.models import Purchase
from purchases.states import STATUSES_IN_RESERVED_STOCK, STATUSES_IN_SOLD_STOCK, Status


def start(
    *, purchase_id: uuid.UUID, user: User, site_url: str, now: datetime, language: str = "en"
) -> Purchase:
    """Start the purchase anew, once: who asks twice gets the same new purchase twice.

    Called by the pages outside any transaction. If the new one has ended as well, it is that one
    which is tried again; if the user holds the same already, it is that hold they mean. Raises
    ``PurchaseNotFound`` for somebody else's, ``NotEnded``, and what ``checkout.start`` raises.
    """
    ended = Purchase.objects.filter(pk=purchase_id, user=user).first()
    if ended is None:
        raise PurchaseNotFound
    if ended.status != Status.RELEASED:
        raise NotEnded
    held = held_already.find(
        user,
        offer_id=ended.offer_id,
        quantity=ended.quantity,
        delivery_method=ended.delivery_method,
        now=now,
    )
    if held is not None:
        return held
    while True:
        started = checkout.start(
            user=user,
            offer_id=ended.offer_id,
            quantity=ended.quantity,
            delivery_method=ended.delivery_method or None,
            idempotency_key=_key(ended),
            site_url=site_url,
            language=language,
            now=now,
        )
        if not started.replayed or started.purchase.status != Status.RELEASED:
            return started.purchase
        ended = started.purchase


def possible(user: User, purchases: Iterable[Purchase], *, now: datetime) -> set[uuid.UUID]:
    """Which of the user's ``purchases`` have ended and can be had again now, as far as one can see.

    Two queries, however many they are: for lists and pages. Left out is what was tried again, or
    bought or held in another way since: that purchase is what counts. Whether the user may have so
    many, and everything that changes meanwhile, is found out by ``start``.
    """
    ended = [purchase for purchase in purchases if purchase.status == Status.RELEASED]
    if not ended or not catalog.is_selling():
        return set()
    later = Purchase.objects.filter(
        Q(idempotency_key__in=[_key(purchase) for purchase in ended])
        | Q(
            offer__in={purchase.offer_id for purchase in ended},
            status__in=(*STATUSES_IN_RESERVED_STOCK, *STATUSES_IN_SOLD_STOCK),
        ),
        user=user,
    )
    tried: set[str | None] = set()
    bought_at: dict[uuid.UUID, datetime] = {}
    for key, offer_id, made in later.order_by("created_at").values_list(
        "idempotency_key", "offer_id", "created_at"
    ):
        tried.add(key)
        bought_at[offer_id] = made
    offers = targeting.buyable_by(user).in_bulk({purchase.offer_id for purchase in ended})
    return {
        purchase.pk
        for purchase in ended
        if _key(purchase) not in tried
        and bought_at.get(purchase.offer_id, purchase.created_at) <= purchase.created_at
        and (offer := offers.get(purchase.offer_id)) is not None
        and offer.refusal(now, quantity=purchase.quantity) is None
    }


def _key(purchase: Purchase) -> str:
    return f"again:{purchase.pk}"
