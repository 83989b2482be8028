"""After the storm: the banks settle, then everything must come to rest without a person's help.

Only then the operator's commands run, for what is left to them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import psycopg

from tests.chaos.bank import Bank
from tests.chaos.books import read_sessions
from tests.chaos.invariants import OVER, SOLD
from tests.chaos.journal import Journal
from tests.chaos.stack import Stack

QUIET_SECONDS = 120.0
# Two periods of the sweeps: the commands leave little to do.
QUIET_AFTER_COMMANDS_SECONDS = 60.0
LOOK_SECONDS = 0.5
STUCK_AFTER_SECONDS = 60.0
FAILING_BANKS = 0.3
COMMANDS = ("release_inventory", "reconcile_stripe", "check_inventory")

# An e-mail that a worker had in its hands when it was killed goes out when the claim has lapsed,
# minutes later: that is no news here.
UNDER_WAY = """
SELECT (SELECT count(*) FROM purchases_purchase
        WHERE status IN ('reserved', 'awaiting_payment')) AS "open holds",
       (SELECT count(*) FROM purchases_stripeevent
        WHERE state IN ('stored', 'failed')) AS "unprocessed webhooks",
       (SELECT count(*) FROM purchases_purchase
        WHERE status IN ('refunding', 'refund_due')) AS "refunds under way",
       (SELECT count(*) FROM purchases_purchase WHERE fulfillment_due)
       + (SELECT count(*) FROM fulfillment_fulfillment
          WHERE due_at IS NOT NULL) AS "deliveries under way",
       (SELECT count(*) FROM purchases_email
        WHERE state = 'waiting' AND due_at <= now()) AS "e-mails not sent"
"""
GIVEN_UP = "SELECT id, type FROM purchases_stripeevent WHERE state = 'dead'"
REFUNDS = """
SELECT count(*) AS "refunds not sent" FROM purchases_refund
WHERE state IN ('requested', 'pending')
"""
STUCK = """
SELECT id::text FROM purchases_purchase
WHERE status IN ('reserved', 'awaiting_payment')
  AND greatest(reserved_until, to_timestamp(%s)) + make_interval(secs => %s) < now()
"""


@dataclass
class Recovered:
    """How it came to rest."""

    seconds: float = 0.0
    stuck: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)


def recover(stack: Stack, journal: Journal, *, seed: int, say: Callable[[str], None]) -> Recovered:
    """Wait for quiet, run the commands, and say what is left over. Raises StackFailed."""
    bank = Bank(stack.sandbox_url)
    rng = Random(f"{seed}/banks")  # noqa: S311 - chance that can be repeated
    began, clock = time.monotonic(), time.time()
    for session in bank.sessions():
        if session["status"] == "complete" and session["payment_status"] == "unpaid":
            # Too late for those whose bank has decided before.
            bank.act(
                session["id"], "fail_async" if rng.random() < FAILING_BANKS else "settle_async"
            )
    found = Recovered()
    wait_until_quiet(stack, bank, QUIET_SECONDS, say)
    found.seconds = time.monotonic() - began
    with stack.connect() as connection:
        stuck = connection.execute(STUCK, (clock, STUCK_AFTER_SECONDS))
        found.stuck = [row["id"] for row in stuck]
    for command in COMMANDS:
        found.commands[command] = run_command(stack, journal, command)
        say(f"manage.py {command}: {found.commands[command]}")
    found.left = wait_until_quiet(stack, bank, QUIET_AFTER_COMMANDS_SECONDS, say)
    with stack.connect() as connection:
        for event in connection.execute(GIVEN_UP):
            journal.violation("no webhook is given up", f"{event}")
    for what, number in found.left.items():
        journal.violation("everything comes to rest", f"{what}: {number}")
    return found


def wait_until_quiet(
    stack: Stack, bank: Bank, seconds: float, say: Callable[[str], None]
) -> dict[str, int]:
    """Wait until nothing is under way, but no longer than that; what still is then."""
    deadline = time.monotonic() + seconds
    shown: dict[str, int] = {}
    while left := under_way(stack, bank):
        if time.monotonic() > deadline:
            say(f"not quiet after {seconds:.0f} s: {left}")
            break
        if left.keys() != shown.keys():
            say(f"waiting: {left}")
        shown = left
        stack.check()
        time.sleep(LOOK_SECONDS)
    return left


def under_way(stack: Stack, bank: Bank) -> dict[str, int]:
    """What hasn't come to rest: first what the database says, then what Stripe does."""
    try:
        with stack.connect() as connection:
            counts = dict(connection.execute(UNDER_WAY).fetchone() or {})
            counts |= connection.execute(REFUNDS).fetchone() or {}
            over = {
                str(row["id"])
                for row in connection.execute(
                    "SELECT id FROM purchases_purchase WHERE status = ANY(%s)", ([*OVER, *SOLD],)
                )
            }
    except psycopg.OperationalError:
        return {"the database is away": 1}
    left = {what: number for what, number in counts.items() if number}
    if left:
        return left
    payable = sum(s.can_be_paid and s.purchase in over for s in read_sessions(bank))
    pending = sum(delivery["state"] == "pending" for delivery in bank.deliveries())
    found = {"pages that can still be paid": payable, "webhooks under way": pending}
    return {what: number for what, number in found.items() if number}


def run_command(stack: Stack, journal: Journal, command: str) -> str:
    """One of the operator's commands; its last line. A failure of it is a violation."""
    ran = stack.manage(command)
    if ran.returncode != 0:
        output = ran.stdout + ran.stderr
        journal.violation("the operator's commands succeed", f"{command}: {output.strip()}")
    return (ran.stdout or ran.stderr).strip().splitlines()[-1]
