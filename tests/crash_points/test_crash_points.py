"""Purchases, webhooks, releases and refunds, killed (SIGKILL) wherever it could matter.

Each scenario is played again and again, in a new world, and its process is killed one point later
each time, until one survives. After each death only time, the sweeps and (where the scenario says
so) people do anything; then nothing may be lost, doubled or frozen.
"""

import sys
from collections.abc import Iterator
from itertools import count
from operator import attrgetter
from pathlib import Path

import pytest
from django.db import connection

from purchases.models import Purchase
from tests.conftest import Sandbox
from tests.crash_points import delivered
from tests.crash_points.bulk_jobs import BULK_JOBS
from tests.crash_points.deliveries import DELIVERIES
from tests.crash_points.invariants import broken_at_any_time, broken_in_the_end
from tests.crash_points.processes import Processes
from tests.crash_points.scenarios import SCENARIOS, Scenario, nothing
from tests.crash_points.world import Stripe, World
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)

# Minutes after the step, and how often the sweeps then run. Claims lapse after one or two minutes,
# holds after 15, sessions after 35.
SWEEPS = ((2, 1), (17, 2), (45, 1))


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes' mail server puts what it takes."""
    return tmp_path_factory.mktemp("mail")


@pytest.fixture(scope="module")
def processes(
    sandbox_process: SandboxProcess, django_db_setup: None, mail: Path
) -> Iterator[Processes]:
    options = connection.settings_dict
    address = f"{options['USER']}:{options['PASSWORD']}@{options['HOST']}:{options['PORT']}"
    started = Processes(
        database_url=f"postgres://{address}/{options['NAME']}",
        stripe_url=sandbox_process.base_url,
        mail=mail,
    )
    yield started
    started.stop()


@pytest.fixture(scope="module")
def tried(request: pytest.FixtureRequest) -> Iterator[dict[str, int]]:
    """How many points each scenario had; printed in the end, whatever pytest captures."""
    points: dict[str, int] = {}
    yield points
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        # To stderr, which also reaches the terminal from a worker of pytest-xdist.
        print(f"\ncrash points tried: {sum(points.values())}", file=sys.stderr)
        for name, number in points.items():
            print(f"{number:6}  {name}", file=sys.stderr)


@pytest.mark.parametrize("scenario", [*SCENARIOS, *DELIVERIES, *BULK_JOBS], ids=attrgetter("name"))
def test_killed_anywhere_it_leaves_nothing_that_the_sweeps_do_not_mend(
    scenario: Scenario, sandbox: Sandbox, processes: Processes, tried: dict[str, int], mail: Path
) -> None:
    stripe = Stripe(sandbox.process)
    wrong: list[str] = []
    for number in count():
        world = World(stripe, processes, mail)
        step = scenario.stage(world)
        life = world.run(step, die_at=number)
        where = f"killed {life.points[-1]}" if life.killed else "not killed"
        try:
            wrong += [f"{where}: {what}" for what in aftermath(world, scenario, step.minutes)]
        except Exception as error:
            error.add_note(f"{scenario.name}, {where}")
            raise
        if not life.killed:
            break
        assert len(life.points) == number + 1
    tried[scenario.name] = number
    assert not wrong, "\n".join(wrong)
    assert number == len(life.points) >= scenario.fewest_points


def aftermath(world: World, scenario: Scenario, minutes: float) -> Iterator[str]:
    """Let time pass after a death, and tell what isn't as it should be."""
    world.stripe.faults()
    yield from broken_at_any_time()
    with world.later(minutes):
        scenario.then(world)
    for later, times in SWEEPS:
        with world.later(minutes + later):
            for _ in range(times):
                world.sweep()
            yield from broken_at_any_time()
    if scenario.at_last is not nothing:
        with world.later(minutes + 50):
            scenario.at_last(world)
        with world.later(minutes + 70):
            world.sweep()
            yield from broken_at_any_time()
    yield from broken_in_the_end(world.stripe)
    yield from delivered.broken(world.letters())
    ended = Purchase.objects.filter(user=world.buyer).order_by("created_at")
    statuses = ", ".join(ended.values_list("status", flat=True)) or "nothing"
    if statuses not in scenario.ends:
        yield f"ended as {statuses}, not as {' or '.join(sorted(scenario.ends))}"
