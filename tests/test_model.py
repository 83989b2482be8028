"""Anything in any order: buyers, organizers, Stripe, webhooks, sweeps and faults, at random.

Hypothesis draws programs of steps; after each of them money and stock must add up
(``tests.model.rules``), and at the end of each program both sides must agree to the cent. What
fails is printed as the shortest such program.

The examples are the same each time. ``MODEL_EXAMPLES=500 pytest tests/test_model.py`` draws as many
new ones, of 50 steps, for as long as it takes.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from purchases import stripe_gateway
from tests.model import interruptions, rules
from tests.model.named import named
from tests.model.shop import Shop
from tests.model.world import World
from tests.sandbox_process import SandboxProcess

WANTED = int(os.environ.get("MODEL_EXAMPLES", "0"))
EXAMPLES, STEPS = (WANTED, 50) if WANTED else (30, 25)


@pytest.fixture
def stripe(sandbox_process: SandboxProcess, settings: Any) -> Iterator[SandboxProcess]:
    settings.STRIPE_API_BASE = sandbox_process.base_url
    settings.STRIPE_NETWORK_RETRIES = 0  # the SDK's pause before it repeats a call costs time only
    settings.MAX_OPEN_HOLDS_PER_USER = 5
    stripe_gateway._client.cache_clear()
    yield sandbox_process
    stripe_gateway._client.cache_clear()
    sandbox_process.control("faults", {})


@pytest.mark.timeout(0 if WANTED else 300)
@pytest.mark.django_db(transaction=True)
def test_money_and_stock_add_up_whatever_happens_in_whatever_order(
    stripe: SandboxProcess, record_property: Callable[[str, object], None]
) -> None:
    Shop.process, Shop.taken = stripe, Counter()
    run_state_machine_as_test(
        Shop,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not WANTED,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
    record_property("steps", Shop.taken["steps"])
    print(f"{Shop.taken['steps']} steps")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("second", ["deliver", "sweep", "cancel", "reconcile"])
@pytest.mark.parametrize("first", ["deliver", "sweep", "reconcile"])
def test_two_who_notice_a_payment_at_once_record_it_once(
    stripe: SandboxProcess, first: str, second: str
) -> None:
    """The one race that must be in every run, whatever is drawn: only the row's lock decides it."""
    world = World(stripe)
    try:
        world.buy(0, 0, 2, "")()
        world.look()
        world.session_act("pay", 0)()
        world.look()
        one, other = (named(world, name, 1 if name == "sweep" else 0) for name in (first, second))
        interruptions.at_once(one, other)
        world.look()
        rules.check_step(world)
        assert [purchase.status for purchase in world.purchases] == ["paid"]
    finally:
        world.close()
