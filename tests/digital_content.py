"""Offers with content, and purchases of them that were delivered."""

from typing import Any

from django.core.files.base import ContentFile
from django.utils import timezone

from fulfillment.digital import codes, content
from fulfillment.digital.models import AccessCode, DigitalContent
from fulfillment.models import Fulfillment
from offers.models import Offer
from purchases.states import Status
from tests.conftest import deliver_now
from tests.factories import OfferFactory, PurchaseFactory

# Every byte there is, more than one block of it, and no block like another.
BYTES = b"".join(number.to_bytes(4, "big") for number in range(100_000)) + bytes(range(256))


def content_offer(**fields: Any) -> Offer:
    offer: Offer = OfferFactory(
        offer_type=Offer.Type.EXCLUSIVE_CONTENT, **{"inventory_total": None} | fields
    )
    return offer


def offer_with_file(
    data: bytes = BYTES, name: str = "talks.zip", *, instructions: str = "", **fields: Any
) -> Offer:
    """For tests outside a transaction, as an upload is."""
    offer = content_offer(**fields)
    content.put_file(offer.pk, ContentFile(data, name), now=timezone.now())
    DigitalContent.objects.update(instructions=instructions)
    return offer


def fill_pool(offer: Offer, how_many: int, *, start: int = 0) -> list[str]:
    added = [f"CODE-{number:05}" for number in range(start, start + how_many)]
    codes.take_in(offer.pk, list(enumerate(added, 1)))
    return added


def delivered(offer: Offer, **purchase: Any) -> Fulfillment:
    """A purchase that was paid, and what the worker made of it."""
    bought = PurchaseFactory(offer=offer, status=Status.PAID, **purchase)
    return deliver_now(bought.pk)


def given(offer: Offer) -> list[str]:
    pool = AccessCode.objects.filter(offer=offer, fulfillment__isnull=False)
    return list(pool.values_list("code", flat=True))
