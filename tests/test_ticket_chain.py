"""Several upgrades of one ticket, refunded in any order and at the same moment."""

import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fulfillment import delivery
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Offer, Registration, TicketTier
from purchases import states
from purchases.models import Purchase
from tests.conftest import at_once, deliver_now
from tests.factories import RegistrationFactory, TicketTierFactory
from tests.sandbox_process import wait_for
from tests.test_admin_pages import blocked_backends
from tests.ticket_upgrades import (
    move_by_hand,
    move_money,
    paid_upgrade,
    refund,
    tier_of,
    upgrade,
)

TIERS = 4


def ladder() -> tuple[Registration, list[TicketTier]]:
    """A registration at the first of the tiers."""
    registration = RegistrationFactory(ticket_tier__slug="tier0")
    more = [TicketTierFactory(event=registration.event, slug=f"tier{n}") for n in range(1, TIERS)]
    return registration, [registration.ticket_tier, *more]


def chain(registration: Registration) -> list[tuple[str, str]]:
    """(from, to) of each upgrade that counts, in the order of payment."""
    active = TicketUpgrade.objects.filter(registration=registration, revoked_at=None)
    in_order = active.order_by("fulfillment__paid_at", "pk")
    return list(in_order.values_list("from_tier__slug", "to_tier__slug"))


# ("upgrade", tier), ("pay", tier) of one that is delivered later, ("deliver", which of those that
# wait), or ("refund", which of those that count).
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upgrade"), st.integers(0, TIERS - 1)),
        st.tuples(st.just("pay"), st.integers(0, TIERS - 1)),
        st.tuples(st.just("deliver"), st.integers(0, 5)),
        st.tuples(st.just("refund"), st.integers(0, 5)),
    ),
    max_size=14,
)


@pytest.mark.django_db
@settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    phases=[Phase.generate],  # to shrink what fails takes longer than a test may
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(steps=STEPS)
def test_ticket_is_what_the_upgrades_that_count_make_of_it(steps: list[tuple[str, int]]) -> None:
    """The model: the tier at the beginning, then each upgrade that isn't refunded, as was paid."""
    registration, tiers = ladder()
    waiting: list[Purchase] = []
    counting: list[TicketUpgrade] = []
    for step, number in steps:
        if step == "upgrade":
            counting.append(upgrade(registration, tiers[number]))
        elif step == "pay":
            waiting.append(paid_upgrade(registration, tiers[number]))
        elif step == "deliver" and waiting:
            late = waiting.pop(number % len(waiting))
            deliver_now(late.pk)
            counting.append(TicketUpgrade.objects.get(fulfillment__purchase=late))
        elif step == "refund" and counting:
            refund(counting.pop(number % len(counting)))
        counting.sort(key=lambda each: (each.fulfillment.paid_at, each.pk))
        model = ["tier0", *(each.to_tier.slug for each in counting)]
        assert tier_of(registration) == model[-1], steps
        assert chain(registration) == list(pairwise(model)), steps
        newest = counting[-1] if counting else None
        for each in counting:
            assert each.superseded_by() == (newest if each != newest else None), steps


@pytest.mark.django_db
def test_upgrade_that_waited_for_its_offer_s_tier_goes_below_what_was_bought_meanwhile() -> None:
    registration, (_, vip, gold, _) = ladder()
    first = paid_upgrade(registration, None, ago=timedelta(hours=3), event=registration.event)
    assert deliver_now(first.pk).status == "FAILED"
    later = upgrade(registration, gold)

    Offer.objects.filter(pk=first.offer_id).update(ticket_tier=vip)
    delivery.retry_offer(first.offer_id, now=timezone.now())
    assert deliver_now(first.pk).status == "FULFILLED"

    assert tier_of(registration) == "tier2"
    assert chain(registration) == [("tier0", "tier1"), ("tier1", "tier2")]
    assert TicketUpgrade.objects.get(fulfillment__purchase=first).superseded_by() == later
    assert later.superseded_by() is None
    refund(later)
    assert tier_of(registration) == "tier1"
    refund(first)
    assert tier_of(registration) == "tier0"


@pytest.mark.django_db
def test_late_older_upgrade_leaves_the_tier_that_staff_set() -> None:
    registration, (_, vip, gold, by_hand) = ladder()
    first = paid_upgrade(registration, vip, ago=timedelta(hours=3))
    later = upgrade(registration, gold)
    move_by_hand(registration, by_hand)
    deliver_now(first.pk)
    assert tier_of(registration) == by_hand.slug
    refund(first)
    later.refresh_from_db()
    assert (tier_of(registration), later.from_tier.slug) == (by_hand.slug, "tier0")


# -- At the same moment ---------------------------------------------------------------------------


def while_locked(registration: Registration, calls: list[Callable[[], Any]]) -> list[Any]:
    """Run the calls in threads until all wait for the registration's row, then let them go on.

    So each has read what it could before any has written.
    """
    answers: list[Any] = []
    with transaction.atomic():
        Registration.objects.select_for_update(no_key=True).get(pk=registration.pk)
        running = threading.Thread(target=lambda: answers.extend(at_once(calls)))
        running.start()
        wait_for(lambda: blocked_backends() == len(calls))
    running.join()
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    return answers


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first_back", [0, 1])
def test_two_upgrades_at_once_make_a_chain(first_back: int) -> None:
    registration, tiers = ladder()
    bought = [paid_upgrade(registration, tier) for tier in tiers[1:3]]

    done = while_locked(registration, [lambda p=p: deliver_now(p.pk) for p in bought])

    assert [fulfillment.status for fulfillment in done] == ["FULFILLED", "FULFILLED"]
    # Whichever was faster: it is the order of payment that counts.
    assert chain(registration) == [("tier0", "tier1"), ("tier1", "tier2")]
    assert tier_of(registration) == "tier2"
    refund(bought[first_back])
    refund(bought[1 - first_back])
    assert tier_of(registration) == "tier0"


@pytest.mark.django_db(transaction=True)
def test_upgrade_and_refund_at_once_leave_what_counts() -> None:
    registration, tiers = ladder()
    old = upgrade(registration, tiers[1]).fulfillment.purchase
    new = paid_upgrade(registration, tiers[2])
    move_money(old, states.REFUND)

    while_locked(
        registration,
        [
            lambda: deliver_now(new.pk),
            lambda: delivery.hear_of(old.pk, now=timezone.now()),
        ],
    )

    assert chain(registration) == [("tier0", "tier2")]
    assert tier_of(registration) == "tier2"
    refund(new)
    assert tier_of(registration) == "tier0"


@pytest.mark.django_db(transaction=True)
def test_refunds_of_all_upgrades_at_once_lead_back_to_the_beginning() -> None:
    registration, tiers = ladder()
    bought = [upgrade(registration, tier).fulfillment.purchase for tier in tiers[1:]]
    for purchase in bought:
        move_money(purchase, states.REFUND)

    while_locked(
        registration,
        [lambda p=p: delivery.hear_of(p.pk, now=timezone.now()) for p in bought],
    )

    assert chain(registration) == []
    assert tier_of(registration) == "tier0"
