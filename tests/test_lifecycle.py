"""The states of an offer, and what organizers do to it: one function each, for API and admin."""

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from offers import inventory, lifecycle
from offers.errors import Busy, OfferArchived, OfferExpired
from offers.lifecycle import State, Step
from offers.models import Offer
from purchases.states import Status
from tests.conftest import at_once, counters
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    OfferFactory,
    PurchaseFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_state_in_sql_is_the_state_of_the_domain() -> None:
    event = EventFactory()
    windows = [(None, None), (NOW, NOW + HOUR), (NOW + HOUR, None), (None, NOW), (NOW - HOUR, NOW)]
    for active, archived, (start, end), (total, sold) in itertools.product(
        (True, False), (True, False), windows, ((None, 0), (2, 0), (2, 2), (0, 0))
    ):
        OfferFactory(
            event=event, is_active=active, is_archived=archived, starts_at=start, expires_at=end,
            inventory_total=total, inventory_sold=sold,
        )  # fmt: skip
    found: Any = lifecycle.with_state(Offer.objects.all(), NOW)
    assert {offer.state for offer in found} == set(State)
    for offer in found:
        assert offer.state == lifecycle.state_of(offer, NOW)
        assert (offer.state == State.ON_SALE) == (offer.refusal(NOW, quantity=1) is None)


STEPS = (lifecycle.ARCHIVE, lifecycle.RESTORE, lifecycle.PAUSE, lifecycle.RESUME)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.done)
def test_step_is_taken_once_and_stripe_hears_of_it(step: Step) -> None:
    offer = OfferFactory(**{step.field: not step.value})
    for _ in range(2):
        lifecycle.take(step, offer.pk, now=NOW, source="tests", actor=None)
    offer.refresh_from_db()
    assert getattr(offer, step.field) == step.value
    assert offer.catalog_version == 2


def test_what_is_archived_is_restored_before_it_is_resumed_or_paused() -> None:
    for is_active, step in ((False, lifecycle.RESUME), (True, lifecycle.PAUSE)):
        offer = OfferFactory(is_archived=True, is_active=is_active)
        with pytest.raises(OfferArchived):
            lifecycle.take(step, offer.pk, now=NOW, source="tests", actor=None)


def test_what_has_ended_is_not_resumed() -> None:
    offer = OfferFactory(is_active=False, expires_at=NOW)
    with pytest.raises(OfferExpired, match="later end"):
        lifecycle.take(lifecycle.RESUME, offer.pk, now=NOW, source="tests", actor=None)
    lifecycle.take(lifecycle.RESUME, offer.pk, now=NOW - HOUR, source="tests", actor=None)


def test_many_are_changed_by_few_statements_and_each_refusal_is_told(
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    event = EventFactory()
    paused = OfferFactory.create_batch(25, event=event, is_active=False)
    already = OfferFactory.create_batch(2, event=event)
    over = OfferFactory(event=event, is_active=False, expires_at=NOW)
    keys = [offer.pk for offer in (*paused, *already, over)]
    with django_assert_max_num_queries(12):
        outcome = lifecycle.take_all(lifecycle.RESUME, keys, now=NOW, source="tests", actor=None)
    assert (len(outcome.changed), outcome.unchanged) == (25, 2)
    assert [(offer.pk, type(error)) for offer, error in outcome.refused] == [
        (over.pk, OfferExpired)
    ]
    assert Offer.objects.filter(is_active=True, catalog_version=2).count() == 25


@pytest.mark.django_db(transaction=True)
def test_batch_that_was_locked_for_too_long_is_told_as_busy() -> None:
    offer = OfferFactory()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            inventory.lock(offer.pk)
            held.set()
            done.wait(30)

    def act() -> Any:
        held.wait(30)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = 100")
            return lifecycle.take_all(
                lifecycle.PAUSE, [offer.pk], now=NOW, source="tests", actor=None
            )
        finally:
            done.set()
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")  # the pool gives it to others

    _, outcome = at_once([hold, act])
    assert [(each.pk, type(error)) for each, error in outcome.refused] == [(offer.pk, Busy)]
    offer.refresh_from_db()
    assert offer.is_active


def test_copy_says_the_same_and_has_sold_nothing() -> None:
    event = EventFactory()
    offer = OfferFactory(
        event=event, title="x" * 200, description="d", price=Decimal("12.50"), currency="EUR",
        original_price=20, inventory_total=7, max_per_user=2, starts_at=NOW, expires_at=NOW + HOUR,
        offer_type=Offer.Type.TICKET_UPGRADE, ticket_tier=TicketTierFactory(event=event),
        stripe_product_id="prod_1", stripe_price_id="price_1", is_archived=True,
    )  # fmt: skip
    offer.target_sessions.add(EventSessionFactory(event=event))
    offer.target_ticket_tiers.add(offer.ticket_tier)
    PurchaseFactory(offer=offer, status=Status.PAID)
    offer.refresh_from_db()

    copy = lifecycle.duplicate(offer.pk, source="tests", actor=UserFactory())

    copy.refresh_from_db()
    assert counters(copy) == (0, 0)
    assert copy.title == "x" * 193 + " (copy)"
    assert (copy.is_active, copy.is_archived) == (False, False)
    assert (copy.stripe_product_id, copy.stripe_price_id) == (None, None)
    for name in (
        "event", "description", "price", "currency", "original_price", "inventory_total",
        "max_per_user", "starts_at", "expires_at", "offer_type", "ticket_tier",
    ):  # fmt: skip
        assert getattr(copy, name) == getattr(offer, name), name
    for name in ("target_sessions", "target_ticket_tiers"):
        assert set(getattr(copy, name).all()) == set(getattr(offer, name).all()) != set()
    assert counters(offer) == (0, 1)


def test_api_archives_twice_without_an_error(client_of: Any) -> None:
    offer = OfferFactory()
    client = client_of(UserFactory(is_superuser=True))
    for _ in range(2):
        assert client.delete(f"/api/v1/offers/{offer.pk}/").status_code == 204
    offer.refresh_from_db()
    assert lifecycle.state_of(offer, timezone.now()) == State.ARCHIVED
