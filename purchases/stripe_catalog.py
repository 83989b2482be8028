"""Offers as Products and Prices at Stripe, so that organizers find their sales there by name.

A copy, made after the offer is saved: a save never fails because Stripe does, and checkout uses the
Price only when it charges exactly what the offer costs. ``Offer.catalog_version`` counts the saves
(and the tries for which Stripe will give no other answer), ``catalog_synced_version`` the ones that
Stripe has heard of.
"""

import math
import uuid
from datetime import datetime, timedelta

import structlog
from django.db.models import F, Q
from django.utils import timezone

from offers import money, row_queue
from offers.contention import drop_broken_connection
from offers.models import Offer
from offers.wake import wake
from purchases import stripe_gateway
from purchases.errors import (
    PaymentProviderUnavailable,
    ProviderFailed,
    ProviderRefused,
    ProviderTurnedAway,
    is_stripe_away,
)

logger = structlog.get_logger(__name__)

# Longer than one offer's conversation with Stripe can take: a claim lapses only after a crash.
CLAIM = timedelta(seconds=120)
PUT_OFF = timedelta(seconds=25)  # shorter than the sweep's interval, so that its next run tries


def sync_offer(offer_id: uuid.UUID | str, *, now: datetime) -> bool:
    """Tell Stripe of one offer's latest save; called by the task that the save wakes.

    Returns whether Stripe was told. What could not be told is told by the sweep; raises what the
    gateway raises. One at a time tells Stripe of an offer: a claim is kept while it is saved again.
    """
    claimed = (
        Offer.objects.filter(
            Q(catalog_sync_after__isnull=True) | Q(catalog_sync_after__lte=now), pk=offer_id
        )
        .exclude(catalog_synced_version=F("catalog_version"))
        .update(catalog_sync_after=timezone.now() + CLAIM)
    )
    if not claimed:
        return False
    offer = Offer.objects.get(pk=offer_id)
    try:
        _tell_stripe(offer)
    except Exception:
        # Whatever it was is the caller's to judge; the claim must not outlive it.
        Offer.objects.filter(pk=offer.pk).update(catalog_sync_after=timezone.now() + PUT_OFF)
        raise
    # A save that came meanwhile has a newer version, so the offer stays due, and without a claim.
    Offer.objects.filter(pk=offer.pk).update(
        catalog_synced_version=offer.catalog_version, catalog_sync_after=None
    )
    if Offer.objects.filter(pk=offer.pk).exclude(catalog_version=offer.catalog_version).exists():
        wake("purchases.sync_offer", str(offer.pk))
    return True


def sync_due_offers(*, now: datetime, limit: int = 200, until: float = math.inf) -> int:
    """Catch up with offers that Stripe hasn't heard of; called by the sweep. Returns how many."""
    due = Offer.objects.filter(
        Q(catalog_sync_after__isnull=True) | Q(catalog_sync_after__lte=now)
    ).exclude(catalog_synced_version=F("catalog_version"))
    done = 0
    offer_ids = list(due.order_by("updated_at").values_list("pk", flat=True)[:limit])
    for offer_id in row_queue.in_time(offer_ids, until):
        try:
            done += sync_offer(offer_id, now=now)
        except PaymentProviderUnavailable as error:
            if is_stripe_away(error):
                break
        except Exception:
            # One offer that can't be told, for whatever reason, must not keep the others waiting.
            logger.exception("offer not told to Stripe", offer_id=str(offer_id))
            drop_broken_connection()
    return done


def _tell_stripe(offer: Offer) -> None:
    product_id = _tell_product(offer)
    if offer.price and offer.is_in_stripes_hands:
        price_id = offer.stripe_price_id
    elif offer.price:
        price_id = _make_price(offer, product_id)
    else:
        price_id = None
    # On record before the old one is deactivated: checkout must not be left without a Price.
    recorded = Offer.objects.filter(pk=offer.pk, catalog_version=offer.catalog_version).update(
        stripe_product_id=product_id,
        stripe_price_id=price_id,
        stripe_price_minor=price_id and money.to_minor_units(offer.price, offer.currency),
        stripe_price_currency=offer.currency if price_id else "",
    )
    # Else a save came meanwhile, and whoever tells Stripe of that one decides which Price stays.
    if recorded:
        stripe_gateway.keep_only_price(product_id, price_id)


def _make_price(offer: Offer, product_id: str) -> str:
    """Make the Price of this save, or get the one that an earlier try has made.

    Stripe keeps a 5xx under its key for a day, so the next try needs another: the failure counts as
    a save. Whoever may still be at work on this one can't put its Price on record then.
    """
    try:
        return stripe_gateway.create_price(
            {
                "product": product_id,
                "currency": offer.currency.lower(),
                "unit_amount": money.to_minor_units(offer.price, offer.currency),
                "metadata": {"offer": str(offer.pk)},
            },
            idempotency_key=f"price:{offer.pk}:{offer.catalog_version}",
        )
    except ProviderTurnedAway:
        raise
    except ProviderFailed:
        Offer.objects.filter(pk=offer.pk, catalog_version=offer.catalog_version).update(
            catalog_version=F("catalog_version") + 1
        )
        raise


def _tell_product(offer: Offer) -> str:
    # The id is ours to choose, so that making the product twice is impossible.
    product_id = f"offer_{offer.pk.hex}"
    fields: dict[str, object] = {
        "name": offer.title,
        "active": not offer.is_archived,
        "metadata": {"offer": str(offer.pk)},
    }
    if offer.stripe_product_id is None:
        try:
            described = {"description": offer.description} if offer.description else {}
            stripe_gateway.create_product({"id": product_id} | fields | described)
        except ProviderRefused as error:
            if error.provider_code != "resource_already_exists":
                raise
        else:
            return product_id
    # Here an empty description clears what an earlier save had set.
    stripe_gateway.update_product(product_id, fields | {"description": offer.description})
    return product_id
