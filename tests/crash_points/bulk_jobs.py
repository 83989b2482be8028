"""Bulk actions whose worker is killed: each item is done once all the same, and the job ends."""

from collections.abc import Callable
from typing import Any

from django.utils import timezone

from purchases.bulk import jobs, kinds
from purchases.bulk.models import BulkItem, BulkJob
from purchases.models import Purchase
from tests.crash_points.processes import Step
from tests.crash_points.scenarios import Scenario
from tests.crash_points.world import World
from tests.factories import MembershipFactory

WORK = Step("task", {"name": "purchases.run_bulk_jobs"})


def asked(kind: str, *before: str, **parameters: Any) -> Callable[[World], Step]:
    """A manager has asked for it, of one purchase of which something had happened before."""

    def stage(world: World) -> Step:
        world.buy()
        for earlier in before:
            world.act(earlier)
        world.stripe.deliver()
        manager = MembershipFactory(organization=world.offer.event.organization).user
        chosen = Purchase.objects.filter(user=world.buyer)
        job = jobs.draft(kinds.of(kind), chosen, actor=manager, now=timezone.now())
        jobs.start(job, parameters=parameters, now=timezone.now())
        return WORK

    return stage


def part_went_back_once(world: World) -> None:
    it_is_done(world)
    (refund,) = Purchase.objects.get(user=world.buyer).refunds.all()
    assert str(refund.amount) == "1.000"


def it_is_done(world: World) -> None:
    """The newest job is this world's."""
    job = BulkJob.objects.latest("asked_at")
    assert job.state == "finished"
    assert [item.state for item in job.items.all()] == [BulkItem.State.DONE]


PART = {"amount": "1.00", "restock": True, "reason": "late"}
BULK_JOBS = [
    Scenario("bulk refund", asked("refund", "pay", **PART | {"amount": None}), {"refunded"},
             at_last=it_is_done),
    Scenario("bulk refund of a part", asked("refund", "pay", **PART), {"paid"},
             at_last=part_went_back_once),
    Scenario("bulk release", asked("release_holds"), {"released"}, at_last=it_is_done),
]  # fmt: skip
