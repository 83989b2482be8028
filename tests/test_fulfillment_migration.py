"""What was sold before there was a fulfilment."""

import importlib
from datetime import timedelta

import pytest
from django.apps import apps
from django.utils import timezone

from fulfillment import delivery
from fulfillment.models import Fulfillment
from purchases.models import Email, Purchase
from purchases.states import Status
from tests.factories import EventFactory, OfferFactory, PurchaseFactory

pytestmark = pytest.mark.django_db

migration = importlib.import_module("purchases.migrations.0006_news_for_fulfillment")


def test_what_was_sold_before_is_delivered_unless_its_event_is_over_and_gets_no_receipt() -> None:
    now = timezone.now()
    over = EventFactory(ends_at=now - timedelta(days=1))
    coming = EventFactory(ends_at=now + timedelta(days=1))
    undated = EventFactory()
    for event in (over, coming, undated):
        PurchaseFactory(offer=OfferFactory(event=event), status=Status.PAID)
    PurchaseFactory(offer=OfferFactory(event=coming), status=Status.AWAITING_PAYMENT)
    Purchase.objects.update(fulfillment_due=False)

    migration.have_paid_ones_heard_of(apps, None)
    delivery.take_in(now=now)

    taken_on = Fulfillment.objects.values_list("purchase__event", flat=True)
    assert set(taken_on) == {coming.pk, undated.pk}
    assert set(Email.objects.values_list("occasion", "state")) == {("confirmed", "given_up")}
