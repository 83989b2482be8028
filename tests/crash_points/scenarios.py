"""What is killed, in which situation, and who does what afterwards. A table, at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from offers.models import Offer
from purchases.errors import PaymentProviderUnavailable
from purchases.states import Status
from tests.crash_points.processes import Step
from tests.crash_points.world import World
from tests.factories import MembershipFactory

OVERDUE = 16.0  # minutes
DEAD = 40.0  # minutes: by then the session has ended by its own clock


def nothing(world: World) -> None:
    """Nobody comes back, and no webhook either."""


@dataclass(frozen=True)
class Scenario:
    """``stage`` sets the stage and returns the step that is killed, in a new world each time.

    ``then`` happens right after the death, ``at_last`` when the sweeps have done all they can.
    ``ends`` are the statuses that the buyer's purchases may end in, oldest first.
    """

    name: str
    stage: Callable[[World], Step]
    ends: set[str]
    then: Callable[[World], None] = nothing
    at_last: Callable[[World], None] = nothing
    fewest_points: int = 4  # two effects


# -- Purchases ------------------------------------------------------------------------------------


def buying(world: World) -> Step:
    return world.purchase_step()


def buying_for_nothing(world: World) -> Step:
    world.offer.price = Decimal(0)
    world.offer.save()
    return world.purchase_step()


def buying_while_stripe_fails(world: World) -> Step:
    world.stripe.faults(error_rate=1.0, error_status=500)
    return world.purchase_step()


def buying_while_stripe_recovers(world: World) -> Step:
    world.stripe.faults(error_rate=1.0, error_status=500)
    return world.purchase_step("purchase_when_stripe_recovers")


def buying_again_without_a_session(world: World) -> Step:
    world.run(world.purchase_step(), "before POST /v1/checkout/sessions")
    return world.purchase_step()


def buying_again_with_a_session(world: World) -> Step:
    world.run(world.purchase_step(), "after POST /v1/checkout/sessions")
    return world.purchase_step()


def same_request_again(world: World) -> None:
    """It is answered as if nothing had happened."""
    purchase = world.buy()
    assert purchase.status in (Status.AWAITING_PAYMENT, Status.PAID), purchase.status
    assert purchase.checkout_url or not purchase.total_price


def same_request_until_it_is_had(world: World) -> None:
    """A 503 says that nothing was created, so the next try with the key may make a new purchase."""
    try:
        world.buy()
    except PaymentProviderUnavailable:
        same_request_again(world)


def same_request_again_and_paid(world: World) -> None:
    same_request_again(world)
    world.stripe.act(world.buy().checkout_session_id, "pay")
    world.stripe.deliver()


def same_request_again_and_paid_unheard(world: World) -> None:
    """The webhook is lost for good."""
    same_request_again(world)
    world.stripe.act(world.buy().checkout_session_id, "pay")


# -- Webhooks -------------------------------------------------------------------------------------


def hearing(action: str, event: str, *before: str) -> Callable[[World], Step]:
    """A webhook about a hold's session, after what had happened (and was heard of) before."""

    def stage(world: World) -> Step:
        world.buy()
        for earlier in before:
            world.act(earlier)
        world.stripe.deliver()
        world.act(action, event)
        return world.webhook_step()

    return stage


settled = hearing("settle_async", "async_payment_succeeded", "pay_async")
not_settled = hearing("fail_async", "async_payment_failed", "pay_async")


def hearing_of_a_payment_before_the_session(world: World) -> Step:
    """The webhook overtakes the answer to the request that opened the session."""
    world.run(world.purchase_step(), "after POST /v1/checkout/sessions")
    (session,) = world.stripe.sessions()
    world.stripe.act(session["id"], "pay")
    world.event = world.stripe.events("checkout.session.completed")[-1]
    return world.webhook_step()


def hearing_of_a_late_payment(world: World) -> Step:
    world.buy()
    world.act("pay", "completed")
    world.release_though_payable()
    return world.webhook_step()


def hearing_of_a_late_payment_for_nothing(world: World) -> Step:
    step = hearing_of_a_late_payment(world)
    world.sell_the_rest()
    return step


def deliver_again(world: World) -> None:
    world.deliver_again()


def settle(world: World) -> None:
    """The bank settles a delayed payment, and this webhook arrives."""
    world.act("settle_async", "async_payment_succeeded")
    world.deliver_again()


# -- Releases -------------------------------------------------------------------------------------


def sweeping(minutes: float = 0) -> Step:
    return Step("task", {"name": "purchases.end_overdue_holds"}, minutes)


def ending(*acts: str) -> Callable[[World], Step]:
    """The sweep ends an overdue hold; what happened to its session was not heard of."""

    def stage(world: World) -> Step:
        world.buy()
        for act in acts:
            world.act(act)
        return sweeping(OVERDUE)

    return stage


def ending_without_a_session(world: World) -> Step:
    world.run(world.purchase_step(), "before POST /v1/checkout/sessions")
    return sweeping(OVERDUE)


def ending_with_an_unknown_session(world: World) -> Step:
    world.run(world.purchase_step(), "after POST /v1/checkout/sessions")
    return sweeping(OVERDUE)


def ending_after_a_stored_500(world: World) -> Step:
    """All that the hold's idempotency key will ever get from Stripe is this 500."""
    world.stripe.faults(error_rate=1.0, error_status=500)
    world.run(world.purchase_step(), "after POST /v1/checkout/sessions")
    world.stripe.faults()
    return sweeping(OVERDUE)


def ending_after_a_lost_answer(world: World) -> Step:
    """The buyer was told 503, so the sweep needn't wait for the hold's time."""
    world.stripe.faults(drop_rate=1.0)
    assert world.run(world.purchase_step(), None).raised == "ProviderUnreachable"
    world.stripe.faults()
    return sweeping()


def ending_a_dead_one_while_stripe_is_away(*acts: str) -> Callable[[World], Step]:
    def stage(world: World) -> Step:
        world.buy()
        for act in acts:
            world.act(act)
        world.stripe.faults(error_rate=1.0, error_status=500)
        return sweeping(DEAD)

    return stage


def cancelling(*acts: str) -> Callable[[World], Step]:
    def stage(world: World) -> Step:
        world.buy()
        for act in acts:
            world.act(act)
        return Step("cancel", {"user": world.buyer.pk, "purchase": str(world.purchase.pk)})

    return stage


def cancelling_without_a_session(world: World) -> Step:
    world.run(world.purchase_step(), "before POST /v1/checkout/sessions")
    return Step("cancel", {"user": world.buyer.pk, "purchase": str(world.purchase.pk)})


def settling_a_stray_session(*acts: str) -> Callable[[World], Step]:
    def stage(world: World) -> Step:
        world.buy()
        world.release_though_payable(stray_session_check_due=True)
        for act in acts:
            world.act(act)
        return sweeping()

    return stage


# -- Refunds --------------------------------------------------------------------------------------


def refunding_a_late_payment(world: World) -> Step:
    hearing_of_a_late_payment_for_nothing(world)
    world.deliver_again()
    assert world.purchase.status == Status.REFUND_DUE
    return Step("task", {"name": "purchases.send_refunds"})


def asking_for_a_refund(world: World) -> Step:
    world.buy()
    world.act("pay")
    world.stripe.deliver()
    owner = MembershipFactory(organization=world.offer.event.organization).user
    return Step("refund", {"user": owner.pk, "purchase": str(world.purchase.pk)})


def sending_a_refund(world: World) -> Step:
    world.run(asking_for_a_refund(world), None)
    assert world.purchase.status == Status.REFUNDING
    return Step("task", {"name": "purchases.send_refunds"})


def hearing_of_a_refund_in_the_dashboard(event: str) -> Callable[[World], Step]:
    def stage(world: World) -> Step:
        asking_for_a_refund(world)
        world.act("refund")
        world.event = world.stripe.events(event)[-1]
        return world.webhook_step()

    return stage


def hearing_of_a_second_payment(world: World) -> Step:
    """The first one's session was unknown when the buyer's request was repeated."""
    asking_for_a_refund(world)
    world.stripe.pay_again(world.purchase)
    world.event = world.stripe.events("checkout.session.completed")[-1]
    return world.webhook_step()


# -- Reconciliation -------------------------------------------------------------------------------


def reconciling(*acts: str) -> Callable[[World], Step]:
    """Nothing was heard of what happened at Stripe."""

    def stage(world: World) -> Step:
        world.buy()
        for act in acts:
            world.act(act)
        return Step("task", {"name": "purchases.reconcile"}, minutes=3)

    return stage


def reconciling_a_hold_without_a_session(world: World) -> Step:
    world.run(world.purchase_step(), "before POST /v1/checkout/sessions")
    return Step("task", {"name": "purchases.reconcile"}, minutes=3)


def deliver_everything(world: World) -> None:
    """Stripe's webhooks about whatever has happened."""
    world.stripe.deliver()


# -- Stripe's copy of the offers ------------------------------------------------------------------


def telling_stripe_of_a_new_offer(world: World) -> Step:
    return Step("task", {"name": "purchases.sync_offers"})


def telling_stripe(**changes: object) -> Callable[[World], Step]:
    """An offer that Stripe knows was changed."""

    def stage(world: World) -> Step:
        world.sweep()
        world.offer.refresh_from_db()
        for field, value in changes.items():
            setattr(world.offer, field, value)
        world.offer.save()
        return Step("task", {"name": "purchases.sync_offers"})

    return stage


def change_the_price(world: World) -> None:
    offer = Offer.objects.get(pk=world.offer.pk)
    offer.price += 10
    offer.save()


SCENARIOS = [
    Scenario("purchase", buying, {"nothing", "released"}),
    Scenario("purchase, repeated", buying, {"released"}, same_request_again),
    Scenario("purchase, repeated and paid", buying, {"paid"}, same_request_again_and_paid),
    Scenario(
        "purchase, repeated and paid unheard", buying, {"paid"}, same_request_again_and_paid_unheard
    ),
    Scenario("free purchase", buying_for_nothing, {"nothing", "paid"}, fewest_points=2),
    Scenario(
        "free purchase, repeated",
        buying_for_nothing,
        {"paid"},
        same_request_again,
        fewest_points=2,
    ),
    Scenario("purchase while Stripe fails", buying_while_stripe_fails, {"nothing", "released"}),
    Scenario(
        "purchase while Stripe fails, repeated",
        buying_while_stripe_fails,
        {"released", "released, released"},
        same_request_until_it_is_had,
    ),
    Scenario(
        "purchase while Stripe recovers", buying_while_stripe_recovers, {"nothing", "released"}
    ),
    Scenario(
        "purchase while Stripe recovers, repeated and paid",
        buying_while_stripe_recovers,
        {"paid"},
        same_request_again_and_paid,
    ),
    Scenario("replay without a session", buying_again_without_a_session, {"released"}),
    Scenario(
        "replay without a session, repeated and paid",
        buying_again_without_a_session,
        {"paid"},
        same_request_again_and_paid,
    ),
    Scenario("replay with a session", buying_again_with_a_session, {"released"}),
    Scenario(
        "replay with a session, repeated and paid",
        buying_again_with_a_session,
        {"paid"},
        same_request_again_and_paid,
    ),
    *(
        Scenario(f"webhook: {name}", stage, ends, deliver_again)
        for name, stage, ends in [
            ("paid", hearing("pay", "completed"), {"paid"}),
            ("paid, session unknown", hearing_of_a_payment_before_the_session, {"paid"}),
            ("paid late", hearing_of_a_late_payment, {"paid"}),
            ("paid late, none left", hearing_of_a_late_payment_for_nothing, {"refunded"}),
            ("pays later", hearing("pay_async", "completed"), {"payment_processing"}),
            ("settled", settled, {"paid"}),
            ("not settled", not_settled, {"released"}),
            ("expired", hearing("expire", "expired"), {"released"}),
        ]
    ),
    *(
        Scenario(f"webhook: {name}, heard again late", stage, ends, at_last=deliver_again)
        for name, stage, ends in [
            ("paid", hearing("pay", "completed"), {"paid"}),
            ("paid late", hearing_of_a_late_payment, {"paid"}),
            ("paid late, none left", hearing_of_a_late_payment_for_nothing, {"refunded"}),
            ("not settled", not_settled, {"released"}),
        ]
    ),
    Scenario(
        "webhook: pays later, then settles", hearing("pay_async", "completed"), {"paid"}, settle
    ),
    Scenario("release", ending(), {"released"}),
    Scenario("release, paid meanwhile", ending("pay"), {"paid"}),
    Scenario("release, pays later meanwhile", ending("pay_async"), {"payment_processing"}),
    Scenario("release, could not pay later", ending("pay_async", "fail_async"), {"released"}),
    Scenario("release without a session", ending_without_a_session, {"released"}),
    Scenario("release with an unknown session", ending_with_an_unknown_session, {"released"}),
    Scenario("release after a stored 500", ending_after_a_stored_500, {"released"}),
    Scenario("release after a lost answer", ending_after_a_lost_answer, {"released"}),
    Scenario("release of a dead one", ending_a_dead_one_while_stripe_is_away(), {"released"}),
    Scenario(
        "release of a dead one, paid", ending_a_dead_one_while_stripe_is_away("pay"), {"paid"}
    ),
    Scenario("cancel", cancelling(), {"released"}),
    Scenario("cancel, paid meanwhile", cancelling("pay"), {"paid"}),
    Scenario("cancel without a session", cancelling_without_a_session, {"released"}),
    Scenario("stray session", settling_a_stray_session(), {"released"}),
    Scenario("stray session, paid", settling_a_stray_session("pay"), {"paid"}),
    Scenario("refund of a late payment", refunding_a_late_payment, {"refunded"}),
    Scenario(
        "refund of a late payment, heard of",
        refunding_a_late_payment,
        {"refunded"},
        deliver_everything,
    ),
    Scenario("refund asked for", asking_for_a_refund, {"paid", "refunded"}, fewest_points=2),
    Scenario("refund sent", sending_a_refund, {"refunded"}),
    Scenario("refund sent, heard of", sending_a_refund, {"refunded"}, deliver_everything),
    *(
        Scenario(
            f"webhook: {event} of the dashboard{told}",
            hearing_of_a_refund_in_the_dashboard(event),
            {"refunded"},
            then,
        )
        for event in ("refund.created", "charge.refunded")
        for told, then in (("", deliver_again), (", never heard again", nothing))
    ),
    Scenario("webhook: paid twice", hearing_of_a_second_payment, {"paid"}, deliver_again),
    Scenario("reconciliation, paid", reconciling("pay"), {"paid"}),
    Scenario("reconciliation, not settled", reconciling("pay_async", "fail_async"), {"released"}),
    Scenario("reconciliation, no session", reconciling_a_hold_without_a_session, {"released"}),
    Scenario("new offer", telling_stripe_of_a_new_offer, {"nothing"}),
    Scenario("new price", telling_stripe(price=Decimal("60.00")), {"nothing"}),
    Scenario(
        "new price, and another",
        telling_stripe(price=Decimal("60.00")),
        {"nothing"},
        change_the_price,
    ),
    Scenario("price dropped", telling_stripe(price=Decimal(0)), {"nothing"}),
]
