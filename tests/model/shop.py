"""The state machine: every rule is one step of the programs that Hypothesis draws."""

from collections import Counter
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.model import interruptions, rules
from tests.model.acts import Act, ignoring
from tests.model.named import ASKING_STRIPE, NAMES, named
from tests.model.world import BUYERS, World
from tests.sandbox_process import SandboxProcess

PICK = st.integers(0, 11)
BUYER = st.integers(0, BUYERS - 1)
OFFER = st.sampled_from([0, 0, 0, 1, 2, 3])  # the scarce one, most of all
QUANTITY = st.integers(1, 3)
ASKING = st.sampled_from(ASKING_STRIPE)
ANY = st.sampled_from(NAMES)


class Shop(RuleBasedStateMachine):
    """A program: each rule is a step that somebody takes, or that chance does."""

    process: SandboxProcess
    taken: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.process)
        self.is_sound = True

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self.end()
        finally:
            self.world.close()

    def end(self) -> None:
        self.world.come_to_rest()
        rules.check_rest(self.world)
        pending = [r for r in self.world.refunds_at_stripe if r["status"] == "pending"]
        for refund in pending:
            self.world.at_stripe(f"refunds/{refund['id']}/settle")()
        if pending:
            self.world.look()
            self.world.come_to_rest()
            rules.check_rest(self.world)
        assert not [row for row in self.world.rows if row.is_under_way]

    def do(self, act: Act) -> None:
        """Take a step, and look at what has become of the world."""
        self.taken["steps"] += 1
        try:
            act()
            self.world.look()
        except BaseException:
            self.is_sound = False
            raise

    @invariant()
    def money_and_stock_add_up(self) -> None:
        try:
            rules.check_step(self.world)
        except BaseException:
            self.is_sound = False
            raise

    @initialize(forgets=st.booleans())
    def stripe_forgets_lost_events(self, forgets: bool) -> None:
        """Whether a lost webhook's event is also gone from the list that Stripe keeps."""
        self.world.forgets_lost_events = forgets

    # -- Buyers -----------------------------------------------------------------------------------

    @rule(buyer=BUYER, offer=OFFER, quantity=QUANTITY, with_key=st.booleans())
    def buy(self, buyer: int, offer: int, quantity: int, with_key: bool) -> None:
        self.do(self.world.buy(buyer, offer, quantity, self.world.fresh_key(with_key)))

    @rule(buyer=BUYER, offer=OFFER, quantity=QUANTITY)
    def buy_and_pay(self, buyer: int, offer: int, quantity: int) -> None:
        """All goes well: the quickest way to something that can be refunded."""

        def act() -> None:
            world = self.world
            world.buy(buyer, offer, quantity, world.fresh_key(True))()
            world.look()
            if world.sessions and world.sessions[-1]["status"] == "open":
                world.session_act("pay", -1)()
            world.look()
            world.deliver_all()

        self.do(act)

    @precondition(lambda self: any(key for *_, key in self.world.asked))
    @rule(pick=PICK)
    def repeat_a_request_with_its_key(self, pick: int) -> None:
        self.do(self.world.repeat(pick))

    @precondition(lambda self: self.world.purchases)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        self.do(self.world.cancel(pick))

    @precondition(lambda self: self.world.with_status("open"))
    @rule(act=st.sampled_from(["pay", "pay", "pay", "pay_async", "decline", "expire"]), pick=PICK)
    def at_checkout(self, act: str, pick: int) -> None:
        self.do(self.world.session_act(act, pick))

    @precondition(lambda self: self.world.processing())
    @rule(act=st.sampled_from(["settle_async", "fail_async"]), pick=PICK)
    def bank_decides(self, act: str, pick: int) -> None:
        self.do(self.world.session_act(act, pick))

    @precondition(lambda self: self.world.paid())
    @rule(pick=PICK)
    def dispute(self, pick: int) -> None:
        self.do(self.world.session_act("dispute", pick))

    @precondition(lambda self: any("dispute" in e["type"] for e in self.world.events))
    @rule(won=st.booleans())
    def close_dispute(self, won: bool) -> None:
        self.do(self.world.close_dispute(won))

    # -- Webhooks ---------------------------------------------------------------------------------

    @precondition(lambda self: self.world.bag)
    @rule(pick=PICK)
    def deliver(self, pick: int) -> None:
        self.do(self.world.deliver(pick))

    @precondition(lambda self: self.world.bag)
    @rule(backwards=st.booleans())
    def deliver_all(self, backwards: bool) -> None:
        self.do(lambda: self.world.deliver_all(backwards))

    @precondition(lambda self: self.world.delivered)
    @rule(pick=PICK, by_staff=st.booleans())
    def deliver_again(self, pick: int, by_staff: bool) -> None:
        self.do((self.world.replay if by_staff else self.world.deliver_again)(pick))

    @precondition(lambda self: self.world.bag)
    @rule(pick=PICK)
    def lose_a_webhook(self, pick: int) -> None:
        self.do(lambda: self.world.lose(pick))

    # -- Sweeps -----------------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([0, 16, 40]))
    def sweep(self, minutes: int) -> None:
        self.do(lambda: self.world.sweep(minutes))

    @rule()
    def process_events(self) -> None:
        self.do(self.world.process_events)

    @rule()
    def send_refunds(self) -> None:
        self.do(self.world.send_refunds)

    @rule()
    def reconcile(self) -> None:
        self.do(ignoring(self.world.reconcile))

    @rule()
    def leases_lapse(self) -> None:
        self.do(self.world.leases_lapse)

    # -- Organizers, and refunds ------------------------------------------------------------------

    @precondition(lambda self: self.world.purchases)
    @rule(pick=PICK, in_part=st.booleans(), restock=st.booleans())
    def refund(self, pick: int, in_part: bool, restock: bool) -> None:
        self.do(self.world.refund(pick, in_part, restock))

    @precondition(lambda self: self.world.paid())
    @rule(pick=PICK, restock=st.booleans())
    def refund_all_and_send(self, pick: int, restock: bool) -> None:
        def act() -> None:
            self.world.refund(pick, False, restock)()
            self.world.send_refunds()

        self.do(act)

    @precondition(lambda self: self.world.paid())
    @rule(pick=PICK, in_part=st.booleans())
    def refund_in_the_dashboard(self, pick: int, in_part: bool) -> None:
        self.do(self.world.dashboard_refund(pick, in_part))

    @rule()
    def refunds_begin_pending_from_now_on_or_no_longer(self) -> None:
        self.do(self.world.toggle_pending_refunds)

    @precondition(lambda self: self.world.refunds_at_stripe)
    @rule(act=st.sampled_from(["settle", "fail"]), pick=PICK)
    def bank_answers_a_refund(self, act: str, pick: int) -> None:
        self.do(self.world.refund_act(act, pick))

    @rule(offer=OFFER, total=st.integers(0, 6))
    def change_total(self, offer: int, total: int) -> None:
        self.do(self.world.edit_offer(offer, inventory_total=total))

    @rule(offer=st.sampled_from([0, 1, 3]), price=st.sampled_from(["600", "700"]))
    def change_price(self, offer: int, price: str) -> None:
        self.do(self.world.edit_offer(offer, price=price))

    @precondition(lambda self: len(self.world.purchases) > 2)
    @rule(offer=OFFER)
    def archive(self, offer: int) -> None:
        self.do(self.world.archive(offer))

    @rule()
    def tell_stripe_of_the_offers(self) -> None:
        self.do(self.world.sync_offers)

    # -- Against the rules ------------------------------------------------------------------------

    @precondition(lambda self: self.world.open_holds())
    @rule(pick=PICK)
    def release_unasked_what_can_still_be_paid(self, pick: int) -> None:
        self.do(lambda: self.world.release_unasked(pick))

    @precondition(lambda self: any(purchase.total_price for purchase in self.world.purchases))
    @rule(pick=PICK)
    def open_a_second_session(self, pick: int) -> None:
        self.do(lambda: self.world.open_second_session(pick))

    @precondition(lambda self: self.world.paid())
    @rule(pick=PICK, bounces=st.booleans())
    def pay_a_second_time(self, pick: int, bounces: bool) -> None:
        """All of it goes back at once, unless Stripe refuses: that payment is disputed."""

        def act() -> None:
            world = self.world
            world.open_second_session(pick)
            world.look()
            world.session_act("pay", -1)()
            world.look()
            world.deliver_all()
            if bounces:
                world.session_act("dispute", -1)()
            world.send_refunds()

        self.do(act)

    # -- Trouble, and two at once -----------------------------------------------------------------

    def named(self, name: str, pick: int) -> Act:
        return named(self.world, name, pick)

    @rule(
        name=ASKING,
        pick=PICK,
        kind=st.sampled_from(interruptions.TROUBLES),
        call=st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    )
    def trouble_at_one_call_to_stripe(self, name: str, pick: int, kind: str, call: int) -> None:
        def act() -> None:
            world = self.world
            with interruptions.trouble(kind, call, world.set_faults, world.spent):
                todo()

        todo = self.named(name, pick)
        self.do(act)

    @rule(
        name=ASKING,
        pick=PICK,
        fault=st.sampled_from(list(interruptions.FAULTS)),
    )
    def stripe_is_away(self, name: str, pick: int, fault: str) -> None:
        def act() -> None:
            self.world.set_faults(**interruptions.FAULTS[fault])
            try:
                todo()
            finally:
                self.world.set_faults()

        todo = self.named(name, pick)
        self.do(act)

    @rule(
        name=ASKING,
        pick=PICK,
        call=st.integers(0, 2),
        then=ANY,
        other=PICK,
        late=st.booleans(),
    )
    def meanwhile(self, name: str, pick: int, call: int, then: str, other: int, late: bool) -> None:
        """Just before or after one of an act's calls to Stripe, somebody else does something."""
        first, second = self.named(name, pick), self.named(then, other)

        def act() -> None:
            with interruptions.at_call(call, None if late else second, second if late else None):
                first()

        self.do(act)

    @rule(name=ANY, pick=PICK, then=ANY, other=PICK)
    def two_at_once(self, name: str, pick: int, then: str, other: int) -> None:
        first, second = self.named(name, pick), self.named(then, other)
        self.do(lambda: interruptions.at_once(first, second))

    @rule(buyer=BUYER, quantity=QUANTITY, other=QUANTITY)
    def two_buyers_at_once(self, buyer: int, quantity: int, other: int) -> None:
        """Of the scarce offer, whose units may not be enough for both."""
        world = self.world
        first = world.buy(buyer, 0, quantity, world.fresh_key(True))
        second = world.buy((buyer + 1) % BUYERS, 0, other, "")
        self.do(lambda: interruptions.at_once(first, second))

    @precondition(lambda self: self.world.with_status("open"))
    @rule(pick=PICK, pair=st.permutations(["deliver", "cancel", "sweep", "reconcile"]))
    def payment_is_noticed_by_two_at_once(self, pick: int, pair: list[str]) -> None:
        def act() -> None:
            world = self.world
            world.session_act("pay", pick)()
            world.look()
            bought = world.bag[-1]["data"]["object"]["client_reference_id"]
            held = [str(purchase.pk) for purchase in world.open_holds()]
            hold = held.index(bought) if bought in held else 0
            picks = {"deliver": -1, "cancel": hold, "sweep": 1, "reconcile": 0}
            interruptions.at_once(*(self.named(name, picks[name]) for name in pair[:2]))

        self.do(act)

    @precondition(lambda self: self.world.paid())
    @rule(pick=PICK, pair=st.permutations(["deliver", "refund", "send refunds", "reconcile"]))
    def refund_is_noticed_by_two_at_once(self, pick: int, pair: list[str]) -> None:
        def act() -> None:
            self.world.dashboard_refund(pick, in_part=False)()
            self.world.look()
            interruptions.at_once(*(self.named(name, -1) for name in pair[:2]))

        self.do(act)
