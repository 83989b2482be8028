"""What is on record when all is over: PostgreSQL's side and Stripe's, read past the product."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.chaos.bank import Bank
from tests.chaos.stack import Stack

RESERVED = ("reserved", "awaiting_payment", "payment_processing")
SOLD = ("paid", "refunding")
NO_DIGITS = {"JPY"}
THREE_DIGITS = {"KWD"}

# One statement, so that it sees one moment.
STOCK = """
SELECT o.id::text, o.title, o.inventory_total AS total, o.inventory_reserved AS reserved,
       o.inventory_sold AS sold,
       coalesce(sum(p.quantity) FILTER (WHERE p.status = ANY(%(reserved)s)), 0)::int AS held,
       coalesce(sum(p.quantity) FILTER (WHERE p.status = ANY(%(sold)s)), 0)::int AS bought
FROM offers_offer o LEFT JOIN purchases_purchase p ON p.offer_id = o.id
GROUP BY o.id
"""
PURCHASES = """
SELECT p.*, u.username, f.status AS delivery,
       EXISTS (SELECT FROM purchases_purchasetransition t
               WHERE t.purchase_id = p.id AND t.to_status = 'paid') AS was_paid
FROM purchases_purchase p
JOIN auth_user u ON u.id = p.user_id
LEFT JOIN fulfillment_fulfillment f ON f.purchase_id = p.id
"""
# Of everybody who ever had an upgrade: the tier they are at, and how many upgrades they have now.
UPGRADED = """
SELECT u.username AS buyer, t.slug AS tier, count(*) FILTER (WHERE g.revoked_at IS NULL) AS upgrades
FROM fulfillment_ticketupgrade g
JOIN offers_registration r ON r.id = g.registration_id
JOIN offers_tickettier t ON t.id = r.ticket_tier_id
JOIN auth_user u ON u.id = r.user_id
GROUP BY 1, 2
"""


def minor(amount: Decimal, currency: str) -> int:
    """The amount as Stripe counts it."""
    digits = 0 if currency in NO_DIGITS else 3 if currency in THREE_DIGITS else 2
    return int(amount.scaleb(digits))


@dataclass(frozen=True)
class Stock:
    """An offer's counters, and what its purchases say they should be."""

    title: str
    total: int | None
    reserved: int
    sold: int
    held: int
    bought: int

    @property
    def problem(self) -> str:
        """What is wrong with it, or nothing."""
        if min(self.reserved, self.sold) < 0:
            return f"a negative counter: {self}"
        if self.total is not None and self.reserved + self.sold > self.total:
            return f"oversold: {self}"
        if (self.reserved, self.sold) != (self.held, self.bought):
            return f"counters differ from the purchases: {self}"
        return ""


@dataclass(frozen=True)
class Purchase:
    """A row of ours."""

    id: str
    buyer: str
    status: str
    currency: str
    total: int
    refunded: int
    reserved_until: datetime
    release_reason: str
    problem: str
    was_paid: bool = False
    delivery: str | None = None


@dataclass(frozen=True)
class Upgraded:
    """An attendee who has or had an upgrade of their ticket."""

    buyer: str
    tier: str
    upgrades: int


@dataclass(frozen=True)
class Session:
    """A Checkout Session at Stripe and the money that went through it, in minor units."""

    id: str
    purchase: str
    status: str
    payment_status: str
    amount: int
    currency: str
    refunded: int = 0

    @property
    def received(self) -> int:
        """What was paid, refunds not counted."""
        return self.amount if self.status == "complete" and self.payment_status == "paid" else 0

    @property
    def can_be_paid(self) -> bool:
        """Whether a buyer can still pay on its page."""
        return self.status == "open"


@dataclass
class Books:
    """Both sides."""

    stock: list[Stock] = field(default_factory=list)
    purchases: dict[str, Purchase] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    upgraded: list[Upgraded] = field(default_factory=list)
    loose_ends: dict[str, int] = field(default_factory=dict)

    def sessions_of(self, purchase_id: str) -> list[Session]:
        """Every session that was opened for a purchase."""
        return [session for session in self.sessions if session.purchase == purchase_id]


def read_stock(connection: Any) -> list[Stock]:
    """Every offer's counters at one moment."""
    rows = connection.execute(STOCK, {"reserved": list(RESERVED), "sold": list(SOLD)})
    return [Stock(**{name: row[name] for name in Stock.__dataclass_fields__}) for row in rows]


def read_books(stack: Stack, bank: Bank) -> Books:
    """Everything; Stripe must be well, and nothing under way."""
    with stack.connect() as connection:
        stock = read_stock(connection)
        purchases = [_purchase(row) for row in connection.execute(PURCHASES)]
        upgraded = [Upgraded(**row) for row in connection.execute(UPGRADED)]
    return Books(stock, {p.id: p for p in purchases}, read_sessions(bank), upgraded)


def read_sessions(bank: Bank) -> list[Session]:
    """Stripe's sessions, with what was sent back of each."""
    refunds: dict[str, int] = {}
    for refund in bank.refunds():
        if refund["status"] in ("succeeded", "pending"):
            intent = refund["payment_intent"]
            refunds[intent] = refunds.get(intent, 0) + refund["amount"]
    return [
        Session(
            id=session["id"],
            purchase=session["client_reference_id"] or "",
            status=session["status"],
            payment_status=session["payment_status"],
            amount=session["amount_total"],
            currency=session["currency"].upper(),
            refunded=refunds.get(session["payment_intent"] or "", 0),
        )
        for session in bank.sessions()
    ]


def _purchase(row: dict[str, Any]) -> Purchase:
    currency = row["currency"]
    return Purchase(
        id=str(row["id"]),
        buyer=row["username"],
        status=row["status"],
        currency=currency,
        total=minor(row["total_price"], currency),
        refunded=minor(row["refunded_amount"], currency),
        reserved_until=row["reserved_until"],
        release_reason=row["release_reason"],
        problem=row.get("problem") or "",
        was_paid=row["was_paid"],
        delivery=row["delivery"],
    )
