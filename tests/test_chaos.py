"""The short form of `make chaos`, and that its rules see what is wrong."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.chaos.books import Books, Purchase, Session, Stock, Upgraded
from tests.chaos.invariants import check
from tests.chaos.journal import Journal, Told
from tests.local_processes import ROOT, clean_environment, processes_of, wait_for

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
KEY = "a key"


def storm(folder: Path) -> subprocess.Popen[str]:
    """`make chaos QUICK=1`, with its data and logs in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--quick", "--seed=1", f"--folder={folder}"],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# Above a minute on an idle machine, and other tests run beside it.
@pytest.mark.timeout(400)
@linux_only
def test_a_short_storm_breaks_no_rule_and_leaves_no_hold_behind(tmp_path: Path) -> None:
    folder = tmp_path / "chaos"
    process = storm(folder)
    try:
        output, _ = process.communicate(timeout=380)
    finally:
        process.kill()  # its stack ends with it
    assert process.returncode == 0, output
    assert "| **invariant violations** | **0** |" in output
    assert "| **stuck holds** | **0** |" in output
    assert processes_of(folder) == {}


@linux_only
def test_an_interrupted_storm_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "chaos"
    process = storm(folder)
    try:
        wait_for(
            lambda: any("bin/postgres" in command for command in processes_of(folder).values()),
            "PostgreSQL is started",
            timeout=30,
        )
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert processes_of(folder) == {}


# -- The rules ------------------------------------------------------------------------------------


DELIVERED = {"paid": "FULFILLED", "refunded": "REVOKED"}


def purchase(purchase_id: str, status: str, *, refunded: int = 0) -> Purchase:
    return Purchase(
        id=purchase_id,
        buyer="attendee1",
        status=status,
        currency="USD",
        total=5000,
        refunded=refunded,
        reserved_until=datetime(2026, 1, 1, tzinfo=UTC),
        release_reason="expired" if status == "released" else "",
        problem="",
        was_paid=status in DELIVERED,
        delivery=DELIVERED.get(status),
    )


def session(purchase_id: str, *, paid: bool = True, refunded: int = 0) -> Session:
    return Session(
        id=f"cs_{purchase_id}",
        purchase=purchase_id,
        status="complete" if paid else "expired",
        payment_status="paid" if paid else "unpaid",
        amount=5000,
        currency="USD",
        refunded=refunded,
    )


def storm_without_a_fault() -> tuple[Books, Journal]:
    """One purchase of each end, as it should be."""
    purchases = (
        purchase("sold", "paid"),
        purchase("partly", "paid", refunded=1000),
        purchase("refunded", "refunded", refunded=5000),
        purchase("released", "released"),
    )
    books = Books(
        stock=[Stock("Hoodie", total=2, reserved=0, sold=2, held=0, bought=2)],
        purchases={p.id: p for p in purchases},
        sessions=[
            session("sold"),
            session("partly", refunded=1000),
            session("refunded", refunded=5000),
            session("released", paid=False),
        ],
    )
    journal = Journal(
        purchases={
            p.id: Told("attendee1", "50.00", "USD", keys={f"{KEY} of {p.id}"}) for p in purchases
        },
        refunds_asked={"partly", "refunded"},
    )
    journal.purchases["sold"].was_paid = True
    journal.purchases["refunded"].was_paid = True
    return books, journal


def test_a_storm_without_a_fault_breaks_no_rule() -> None:
    assert check(*storm_without_a_fault()) == []


Damage = Callable[[Books, Journal], object]


def status(name: str, new: str) -> Damage:
    """The purchase has another status than it should."""

    def damage(books: Books, journal: Journal) -> None:
        books.purchases[name] = dataclasses.replace(books.purchases[name], status=new)

    return damage


def at_stripe(name: str, **changes: object) -> Damage:
    """Stripe has something else on record of the purchase's session."""

    def damage(books: Books, journal: Journal) -> None:
        books.sessions = [
            dataclasses.replace(s, **changes) if s.purchase == name else s for s in books.sessions
        ]

    return damage


def delivery(name: str, new: str | None) -> Damage:
    """Something else became of the purchase than should."""

    def damage(books: Books, journal: Journal) -> None:
        books.purchases[name] = dataclasses.replace(books.purchases[name], delivery=new)

    return damage


def upgraded(tier: str, upgrades: int) -> Damage:
    return lambda books, _: books.upgraded.append(Upgraded("attendee1", tier, upgrades))


def stock(**changes: int) -> Damage:
    """The offer's counters are others."""

    def damage(books: Books, journal: Journal) -> None:
        books.stock = [dataclasses.replace(books.stock[0], **changes)]

    return damage


STOCK = "counters equal the purchases, and no unit is sold twice"
BELONGS = "every payment belongs to a purchase that has it"
MONEY = "money received, less money sent back, is what is on record"
PAID = "what is paid was paid at Stripe, once"
DECIDED = "what the bank has decided is on record"
PAYABLE = "nobody can pay for what is over"
TOLD = "what buyers were told is true"
DELIVERS = "what is paid for is delivered, and what is refunded taken back"
ONCE = "one Idempotency-Key made at most one purchase"


@pytest.mark.parametrize(
    ("rule", "damage"),
    [
        pytest.param(STOCK, stock(sold=3, bought=3), id="oversold"),
        pytest.param(STOCK, stock(reserved=-1, held=-1), id="negative"),
        pytest.param(STOCK, stock(sold=1), id="a sale isn't counted"),
        pytest.param(STOCK, stock(total=9, reserved=1), id="a hold is counted that isn't there"),
        pytest.param(BELONGS, status("sold", "released"), id="paid and released"),
        pytest.param(BELONGS, at_stripe("sold", purchase="nobody's"), id="paid for nothing"),
        pytest.param(BELONGS, status("sold", "refund_due"), id="a refund that isn't sent"),
        pytest.param(MONEY, at_stripe("sold", refunded=1), id="a cent too much sent back"),
        pytest.param(MONEY, at_stripe("refunded", refunded=0), id="refunded on paper only"),
        pytest.param(MONEY, at_stripe("refunded", refunded=9999), id="more sent back than paid"),
        pytest.param(MONEY, at_stripe("partly", refunded=2000), id="sent back twice"),
        pytest.param(PAID, at_stripe("sold", payment_status="unpaid"), id="sold unpaid"),
        pytest.param(PAID, at_stripe("sold", currency="EUR"), id="paid in another currency"),
        pytest.param(
            PAID, lambda books, _: books.sessions.append(session("sold")), id="charged twice"
        ),
        pytest.param(DECIDED, status("sold", "payment_processing"), id="settled, not noticed"),
        pytest.param(PAYABLE, at_stripe("released", status="open"), id="released, still payable"),
        pytest.param(PAYABLE, at_stripe("sold", status="open"), id="sold, still payable"),
        pytest.param(DELIVERS, delivery("sold", None), id="paid, never taken on"),
        pytest.param(DELIVERS, delivery("sold", "PENDING"), id="paid, never delivered"),
        pytest.param(DELIVERS, delivery("refunded", "FULFILLED"), id="refunded, and kept"),
        pytest.param(DELIVERS, delivery("released", "FULFILLED"), id="delivered unpaid"),
        pytest.param(DELIVERS, upgraded("vip", 0), id="a tier kept after the refund"),
        pytest.param(DELIVERS, upgraded("standard", 1), id="a tier that was never given"),
        pytest.param(TOLD, lambda books, _: books.purchases.pop("released"), id="forgotten"),
        pytest.param(TOLD, status("sold", "refunded"), id="refunded though nobody asked"),
        pytest.param(
            ONCE,
            lambda _, journal: journal.purchases["sold"].keys.add(f"{KEY} of released"),
            id="two purchases of one key",
        ),
        pytest.param(
            ONCE, lambda _, journal: journal.made_by_key.update([KEY, KEY]), id="201 twice"
        ),
    ],
)
def test_the_rules_see(rule: str, damage: Damage) -> None:
    books, journal = storm_without_a_fault()
    damage(books, journal)
    assert rule in {broken for broken, _ in check(books, journal)}


@pytest.mark.parametrize(
    ("call", "status", "codes", "allowed"),
    [
        ("buy", 201, [], True),
        ("buy", 409, ["sold_out"], True),
        ("buy", 409, ["not_cancellable"], False),
        ("buy", 500, ["error"], False),
        ("poll", 404, ["not_found"], False),
        ("change", 400, ["total_below_committed"], True),
    ],
)
def test_an_answer_that_is_not_in_the_contract_is_a_violation(
    call: str, status: int, codes: list[str], allowed: bool
) -> None:
    journal = Journal()
    journal.note_answer(call, status, codes, "{}", retry_after=True)
    assert (journal.violations == []) == allowed


def test_a_503_that_does_not_say_when_to_come_back_is_a_violation() -> None:
    journal = Journal()
    journal.note_answer("buy", 503, ["busy"], "{}", retry_after=False)
    assert [rule for rule, _ in journal.violations] == ["no Retry-After"]
