"""The JSON of a purchase that is written by hand is what DRF's fields would write."""

from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.serializers import ModelSerializer

from fulfillment.serializers import DeliveredPurchaseSerializer
from offers.serializers import with_currency_digits
from purchases.models import Purchase
from purchases.serializers import PurchaseSerializer
from purchases.states import Status
from tests.factories import OfferFactory, PurchaseFactory

pytestmark = pytest.mark.django_db


def by_fields(purchase: Purchase) -> dict[str, Any]:
    written = ModelSerializer.to_representation(PurchaseSerializer(purchase), purchase)
    return with_currency_digits(written, purchase, "unit_price", "total_price", "refunded_amount")


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("currency", ["USD", "JPY", "KWD"])
def test_purchase_by_hand_is_the_purchase_by_fields(status: Status, currency: str) -> None:
    offer = OfferFactory(currency=currency, price=Decimal(500))
    purchase = PurchaseFactory(status=status, offer=offer, quantity=2)
    purchase.refunded_at = timezone.now().replace(microsecond=0)
    by_hand = PurchaseSerializer(purchase).data
    assert by_hand == by_fields(purchase)
    assert list(by_hand) == list(PurchaseSerializer.Meta.fields)


def test_fulfillment_comes_last(rf: Any) -> None:
    purchase = PurchaseFactory(status=Status.PAID)
    shown = DeliveredPurchaseSerializer(purchase, context={"request": rf.get("/")}).data
    assert list(shown) == list(DeliveredPurchaseSerializer.Meta.fields)
