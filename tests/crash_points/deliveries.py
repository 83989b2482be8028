"""What was paid for is delivered, and taken back, by workers that are killed at it."""

from collections.abc import Callable

from offers.models import Offer
from tests.crash_points.processes import Step
from tests.crash_points.scenarios import Scenario
from tests.crash_points.world import World
from tests.factories import (
    DigitalContentFactory,
    RegistrationFactory,
    TicketTierFactory,
    TimeSlotFactory,
)

Prepare = Callable[[World], None]

DELIVER = Step("task", {"name": "fulfillment.deliver"})


def content(world: World) -> None:
    """With a code for each unit, so that a second delivery would show."""
    sells(world, Offer.Type.EXCLUSIVE_CONTENT)
    DigitalContentFactory(offer=world.offer, codes=9)


def ticket(world: World) -> None:
    sells(world, Offer.Type.TICKET_UPGRADE)
    event = world.offer.event
    RegistrationFactory(user=world.buyer, event=event)
    Offer.objects.filter(pk=world.offer.pk).update(ticket_tier=TicketTierFactory(event=event))


def parcel(world: World) -> None:
    sells(world, Offer.Type.MERCHANDISE)


def service(world: World) -> None:
    sells(world, Offer.Type.SERVICE)
    TimeSlotFactory(offer=world.offer, capacity=5)


def sells(world: World, offer_type: Offer.Type) -> None:
    Offer.objects.filter(pk=world.offer.pk).update(offer_type=offer_type)


def paid(prepare: Prepare) -> Callable[[World], Step]:
    """The webhook has come, and the worker is about to deliver."""

    def stage(world: World) -> Step:
        prepare(world)
        world.buy()
        world.act("pay")
        world.stripe.deliver()
        return DELIVER

    return stage


def refunded(prepare: Prepare) -> Callable[[World], Step]:
    """It was delivered, and then refunded in Stripe's dashboard."""

    def stage(world: World) -> Step:
        world.run(paid(prepare)(world), None)
        world.act("refund")
        world.stripe.deliver()
        return DELIVER

    return stage


def told(prepare: Prepare) -> Callable[[World], Step]:
    """It was delivered, and the e-mails wait."""

    def stage(world: World) -> Step:
        world.run(paid(prepare)(world), None)
        return Step("task", {"name": "purchases.send_emails"})

    return stage


DELIVERIES = [
    *(
        Scenario(f"delivery of {prepare.__name__}", paid(prepare), {"paid"}, fewest_points=6)
        for prepare in (content, ticket, parcel, service)
    ),
    *(
        Scenario(f"{prepare.__name__} taken back", refunded(prepare), {"refunded"}, fewest_points=2)
        for prepare in (content, ticket)
    ),
    Scenario("e-mails about content", told(content), {"paid"}, fewest_points=8),
]
