"""Several upgrades of one ticket, refunded in any order and at the same moment."""

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fulfillment import delivery
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Registration, TicketTier
from purchases import states
from tests.conftest import at_once, deliver_now
from tests.factories import RegistrationFactory, TicketTierFactory
from tests.sandbox_process import wait_for
from tests.test_admin_pages import blocked_backends
from tests.ticket_upgrades import move_money, paid_upgrade, refund, tier_of, upgrade

TIERS = 4


def ladder() -> tuple[Registration, list[TicketTier]]:
    """A registration at the first of the tiers."""
    registration = RegistrationFactory(ticket_tier__slug="tier0")
    more = [TicketTierFactory(event=registration.event, slug=f"tier{n}") for n in range(1, TIERS)]
    return registration, [registration.ticket_tier, *more]


def chain(registration: Registration) -> list[tuple[str, str]]:
    """(from, to) of each upgrade that counts, in order."""
    active = TicketUpgrade.objects.filter(registration=registration, revoked_at=None)
    return list(active.order_by("pk").values_list("from_tier__slug", "to_tier__slug"))


# ("upgrade", tier) or ("refund", which of those that count).
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upgrade"), st.integers(0, TIERS - 1)),
        st.tuples(st.just("refund"), st.integers(0, 5)),
    ),
    max_size=10,
)


@pytest.mark.django_db
@settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    phases=[Phase.generate],  # to shrink what fails takes longer than a test may
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(steps=STEPS)
def test_ticket_is_what_the_upgrades_that_count_make_of_it(steps: list[tuple[str, int]]) -> None:
    """The model: the tier at the beginning, then each upgrade that isn't refunded, in order."""
    registration, tiers = ladder()
    counting: list[TicketUpgrade] = []
    for step, number in steps:
        if step == "upgrade":
            counting.append(upgrade(registration, tiers[number]))
        elif counting:
            refund(counting.pop(number % len(counting)))
        model = ["tier0", *(each.to_tier.slug for each in counting)]
        assert tier_of(registration) == model[-1], steps
        assert chain(registration) == list(pairwise(model)), steps


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
    (start, middle), (again, last) = chain(registration)
    assert (start, again) == ("tier0", middle)
    assert tier_of(registration) == last
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
