"""What must be true of money and stock: after every step, and once the world has come to rest.

Computed from the sandbox's own objects and from plain SQL, by none of the service's own functions.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import connection

from purchases.models import Dispute, Purchase, Refund, StripeEvent
from purchases.states import Status
from tests.model.stripe_view import intent_of, is_paid, is_processing
from tests.model.world import MINOR, World

# The contract's table: which stock a status occupies.
COUNTERS = """
    SELECT o.title, o.inventory_total, o.inventory_reserved, o.inventory_sold,
      COALESCE(SUM(p.quantity) FILTER (
        WHERE p.status IN ('reserved', 'awaiting_payment', 'payment_processing')), 0),
      COALESCE(SUM(p.quantity) FILTER (WHERE p.status IN ('paid', 'refunding')), 0)
    FROM offers_offer o LEFT JOIN purchases_purchase p ON p.offer_id = o.id
    GROUP BY o.id"""
LAST_TRANSITIONS = """
    SELECT p.id, p.status, t.to_status FROM purchases_purchase p
    LEFT JOIN LATERAL (SELECT to_status FROM purchases_purchasetransition
      WHERE purchase_id = p.id ORDER BY id DESC LIMIT 1) t ON true
    WHERE t.to_status IS DISTINCT FROM p.status"""
STRIPE_WAS_AWAY = re.compile(r"Provider(Failed|Unreachable|TurnedAway|StillRunning)")
DONE = (StripeEvent.State.PROCESSED, StripeEvent.State.IGNORED)
UNDER_WAY = (Refund.State.REQUESTED, Refund.State.PENDING)
HAS_MONEY = (Status.PAID, Status.REFUNDING, Status.REFUND_DUE, Status.REFUNDED)


class Books:
    """Both sides of the ledger as the world was last looked at, by purchase and by payment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.purchases = {str(purchase.pk): purchase for purchase in world.purchases}
        self.sessions = {session["id"]: session for session in world.sessions}
        self.payments = {intent_of(s): s for s in world.sessions if is_paid(s)}
        self.rows: dict[str, list[Refund]] = defaultdict(list)
        for row in world.rows:
            self.rows[row.payment_intent_id].append(row)
        self.refunds: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for refund in world.refunds_at_stripe:
            self.refunds[refund["payment_intent"]].append(refund)
        self.news: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in world.events:
            self.news[event["data"]["object"]["id"]].append(event)

    def purchase_of(self, session: dict[str, Any]) -> Purchase:
        return self.purchases[session["client_reference_id"]]

    def received(self, payment: str) -> int:
        session = self.payments.get(payment)
        return session["amount_total"] if session else 0

    def back(self, payment: str, *statuses: str) -> int:
        """What Stripe has sent back of a payment, or tries to, in minor units."""
        return sum(r["amount"] for r in self.refunds[payment] if r["status"] in statuses)

    def has_heard(self, events: Iterable[dict[str, Any]]) -> bool:
        """Whether every one of these events was processed here."""
        return all(self.world.states.get(event["id"]) in DONE for event in events)

    def knows_payment(self, session: dict[str, Any]) -> bool:
        """Whether news of this session's payment has been processed here."""
        told = [
            event
            for event in self.news[session["id"]]
            if event["data"]["object"]["payment_status"] == "paid"
        ]
        return any(self.world.states.get(event["id"]) in DONE for event in told)


def minor(amount: Decimal, currency: str) -> int:
    return int(amount * MINOR[currency])


# -- After every step -----------------------------------------------------------------------------


def check_counters() -> None:
    with connection.cursor() as cursor:
        cursor.execute(COUNTERS)
        for title, total, reserved, sold, held, paid in cursor.fetchall():
            assert (reserved, sold) == (held, paid), f"{title}: counters are not the sums"
            assert reserved >= 0, f"{title}: negative"
            assert sold >= 0, f"{title}: negative"
            assert total is None or reserved + sold <= total, f"{title}: oversold"
        cursor.execute(LAST_TRANSITIONS)
        assert cursor.fetchall() == [], "The log's last entry is not the purchase's status."


def check_nothing_sent_twice(books: Books) -> None:
    for payment in books.refunds:
        sent = books.back(payment, "succeeded", "pending")
        assert sent <= books.received(payment), f"{payment}: more sent back than came in"
    ours: dict[str, int] = defaultdict(int)
    for refund in books.world.refunds_at_stripe:
        reference = refund["metadata"].get("refund")
        if reference:
            ours[reference] += 1
    assert all(times == 1 for times in ours.values()), f"Refunds sent more than once: {ours}"


def check_every_euro_has_a_home(books: Books) -> None:
    for payment, session in books.payments.items():
        if books.knows_payment(session):
            assert has_home(books, payment, session), f"{payment}: received, and nobody's"


def has_home(books: Books, payment: str, session: dict[str, Any]) -> bool:
    purchase = books.purchase_of(session)
    if purchase.payment_intent_id == payment:
        return purchase.status in HAS_MONEY
    return bool(books.rows[payment])


def check_every_unit_sold_has_its_payment(books: Books) -> None:
    for purchase in books.world.purchases:
        if not purchase.total_price:
            assert purchase.payment_intent_id == "", f"{purchase.pk}: free, and paid"
            continue
        if purchase.status not in HAS_MONEY:
            continue
        price = minor(purchase.total_price, purchase.currency)
        session = books.payments.get(purchase.payment_intent_id)
        assert session is not None, f"{purchase.pk} is {purchase.status}, and nobody paid"
        assert session["client_reference_id"] == str(purchase.pk), f"{purchase.pk}: whose money?"
        assert session["amount_total"] == price, f"{purchase.pk}: paid another amount"
        assert session["id"] == purchase.checkout_session_id, f"{purchase.pk}: another's session"


def check_refunds_on_record(books: Books) -> None:
    for purchase in books.world.purchases:
        rows = books.rows[purchase.payment_intent_id] if purchase.payment_intent_id else []
        back = sum((row.amount for row in rows if row.state == "succeeded"), Decimal(0))
        # More than there was, until the news comes that an earlier one of them had failed.
        back = min(back, purchase.total_price)
        assert purchase.refunded_amount == back, f"{purchase.pk}: refunded_amount isn't the sum"
        if purchase.total_price:
            is_back = back >= purchase.total_price
            assert (purchase.status == Status.REFUNDED) == is_back, f"{purchase.pk}: {back} is back"
        if purchase.status == Status.REFUNDING:
            assert any(row.state in UNDER_WAY for row in rows), f"{purchase.pk}: refunds nothing"
    for row in books.world.rows:
        assert books.received(row.payment_intent_id), f"{row.pk}: a refund of no payment"
    stored = {row.stripe_refund_id: row for row in books.world.rows}
    for refund in books.world.refunds_at_stripe:
        if books.has_heard(books.news[refund["id"]]):
            assert refund["id"] in stored, f"{refund['id']}: heard of, and not on record"
            assert stored[refund["id"]].state == refund["status"], f"{refund['id']}: other state"


def check_open_sessions(books: Books) -> None:
    """A session that can be paid belongs to a hold, or somebody is going to look for it."""
    for session in books.world.with_status("open"):
        purchase = books.purchase_of(session)
        belongs = purchase.status == Status.RESERVED or (
            purchase.status == Status.AWAITING_PAYMENT
            and purchase.checkout_session_id == session["id"]
        )
        looked_for = purchase.stray_session_check_due or purchase.pk in books.world.tampered
        assert belongs or looked_for, f"{session['id']} is open, {purchase.pk} {purchase.status}"


def check_failed_events() -> None:
    """An event only fails because Stripe could not be asked about it."""
    failed = StripeEvent.objects.filter(state__in=["failed", "dead"])
    for error in failed.values_list("error", flat=True):
        assert STRIPE_WAS_AWAY.search(error.strip().splitlines()[-1]), error


def check_step(world: World) -> None:
    books = Books(world)
    check_counters()
    check_nothing_sent_twice(books)
    check_every_euro_has_a_home(books)
    check_every_unit_sold_has_its_payment(books)
    check_refunds_on_record(books)
    check_open_sessions(books)
    check_failed_events()


# -- At rest --------------------------------------------------------------------------------------


def check_rest(world: World) -> None:
    """Webhooks came or never will, sweeps found the rest: both sides must agree to the cent."""
    check_step(world)
    books = Books(world)
    assert world.with_status("open") == [], "A session is open, and no hold behind it"
    assert not any(purchase.stray_session_check_due for purchase in world.purchases)
    left = {p: s for p, s in world.states.items() if s not in DONE}
    assert left == {}, f"Events that nobody processed: {left}"
    for payment, session in books.payments.items():
        assert has_home(books, payment, session), f"{payment}: received, and nobody's"
        if books.purchase_of(session).payment_intent_id != payment:
            check_second_payment(books, payment, session)
    for purchase in world.purchases:
        check_purchase_at_rest(books, purchase)
    for row in world.rows:
        at_stripe = [r for r in world.refunds_at_stripe if r["id"] == row.stripe_refund_id]
        status = at_stripe[0]["status"] if at_stripe else "failed"  # refused: never made there
        assert row.state == status, f"{row.pk} is {row.state}, at Stripe {status}"
    known = {row.stripe_refund_id for row in world.rows}
    assert all(r["id"] in known for r in world.refunds_at_stripe), "A refund that we don't know"
    check_disputes(world)
    assert world.reconcile() == [], "The reconciliation finds more each time"


def check_second_payment(books: Books, payment: str, session: dict[str, Any]) -> None:
    sent = books.back(payment, "succeeded", "pending")
    purchase = books.purchase_of(session)
    assert sent == books.received(payment) or purchase.problem, (
        f"{payment}: a second payment that stays here, and no note for staff"
    )


def check_purchase_at_rest(books: Books, purchase: Purchase) -> None:
    payment = purchase.payment_intent_id
    own = [s for s in books.world.sessions if s["client_reference_id"] == str(purchase.pk)]
    if not purchase.total_price:
        assert purchase.status in (Status.PAID, Status.REFUNDED)
    elif not any(is_paid(session) for session in own):
        waits = any(is_processing(session) for session in own)
        expected = Status.PAYMENT_PROCESSING if waits else Status.RELEASED
        assert purchase.status == expected, f"{purchase.pk}: {purchase.status}, nobody has paid"
    else:
        received = books.received(payment)
        if books.back(payment, "succeeded") == received:
            assert purchase.status == Status.REFUNDED, f"{purchase.pk}: all of it is back"
        elif purchase.status == Status.REFUND_DUE:
            returning = any(row.state in UNDER_WAY for row in books.rows[payment])
            assert returning or purchase.problem, f"{purchase.pk}: owed, and forgotten"
        else:
            assert purchase.status in (Status.PAID, Status.REFUNDING), f"{purchase.pk}"


def check_disputes(world: World) -> None:
    lost = {event["id"] for event in world.lost} if world.forgets_lost_events else set()
    told = [e for e in world.events if "dispute" in e["type"] and e["id"] not in lost]
    for event in told:
        dispute = Dispute.objects.get(pk=event["data"]["object"]["id"])
        if event["type"] == "charge.dispute.closed":
            assert dispute.status == event["data"]["object"]["status"]
