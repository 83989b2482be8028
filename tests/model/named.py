"""The acts that can be interrupted, or done two at once, by the names that programs draw."""

from collections.abc import Callable

from tests.model.acts import Act, ignoring, nothing
from tests.model.world import BUYERS, World

# Those that ask Stripe something, so that Stripe can fail them.
ASKING_STRIPE = (
    "buy", "buy", "sweep", "send refunds", "process events", "reconcile", "repeat", "cancel",
)  # fmt: skip
NAMES = (*ASKING_STRIPE[1:], "refund", "deliver", "deliver again", "pay", "dashboard")


def named(world: World, name: str, pick: int) -> Act:
    """The act of that name; nothing, while there is nothing that it could be about."""
    return _possible(world).get(name, lambda pick: nothing)(pick)


def _possible(world: World) -> dict[str, Callable[[int], Act]]:
    acts: dict[str, Callable[[int], Act]] = {
        "buy": lambda pick: world.buy(pick % BUYERS, 0, 1 + pick % 3, world.fresh_key(True)),
        "sweep": lambda pick: lambda: world.sweep(16 if pick % 2 else 0),
        "send refunds": lambda pick: world.send_refunds,
        "process events": lambda pick: world.process_events,
        "reconcile": lambda pick: ignoring(world.reconcile),
    }
    if any(key for *_, key in world.asked):
        acts["repeat"] = world.repeat
    if world.purchases:
        acts["cancel"] = world.cancel
        acts["refund"] = lambda pick: world.refund(pick, pick % 3 == 2, True)
    if world.bag:
        acts["deliver"] = world.deliver
    if world.delivered:
        acts["deliver again"] = world.replay
    if world.with_status("open"):
        acts["pay"] = lambda pick: world.session_act("pay", pick)
    if world.paid():
        acts["dashboard"] = lambda pick: world.dashboard_refund(pick, pick % 2 == 1)
    return acts
