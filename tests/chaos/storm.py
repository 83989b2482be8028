"""One storm from beginning to end."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import invariants
from tests.chaos.bank import Bank
from tests.chaos.books import read_books
from tests.chaos.buyers import Buyer
from tests.chaos.faults import Faults
from tests.chaos.journal import Journal
from tests.chaos.organizer import Organizer
from tests.chaos.recovery import recover
from tests.chaos.report import Result
from tests.chaos.stack import Stack
from tests.chaos.watch import Watch

# Longer than any one request of theirs.
FAREWELL_SECONDS = 90.0


@dataclass(frozen=True)
class Form:
    """How long, and how hard."""

    seconds: float
    reservation_minutes: str
    think: tuple[float, float]
    quick: bool


FULL = Form(seconds=300.0, reservation_minutes="0.3", think=(0.5, 3.0), quick=False)
QUICK = Form(seconds=20.0, reservation_minutes="0.1", think=(0.2, 1.5), quick=True)


def run(folder: Path, form: Form, *, buyers: int, seed: int, say: Callable[[str], None]) -> Result:
    """Start the stack in `folder`, let it storm, and say what is left. Raises StackFailed.

    Whatever happens, Ctrl-C included, nothing that it started is left running.
    """
    stack = Stack(
        folder,
        RESERVATION_MINUTES=form.reservation_minutes,
        # Not what is tried here, but a buyer or two should run into it.
        PURCHASE_RATE_LIMIT="40/m",
        PURCHASE_RATE_LIMIT_IP="100000/m",
        LOGIN_RATE_LIMIT_IP="10000/m",
    )
    over, done = threading.Event(), threading.Event()
    try:
        say("starting the stack of `make run` …")
        stack.start()
        return _storm(stack, form, buyers=buyers, seed=seed, say=say, over=over, done=done)
    finally:
        over.set()
        done.set()
        stack.stop()


def _storm(
    stack: Stack,
    form: Form,
    *,
    buyers: int,
    seed: int,
    say: Callable[[str], None],
    over: threading.Event,
    done: threading.Event,
) -> Result:
    journal = Journal()
    organizer = Organizer(
        url=stack.url, journal=journal, over=over, seed=seed, seconds=form.seconds
    )
    wares = organizer.open_shop()
    people: list[threading.Thread] = [organizer]
    people += [
        Buyer(
            f"attendee{number}",
            url=stack.url,
            sandbox_url=stack.sandbox_url,
            wares=wares,
            journal=journal,
            over=over,
            seed=seed,
            think=form.think,
        )
        for number in range(1, buyers + 1)
    ]
    watch = Watch(stack, journal, done)
    faults = Faults(stack, seconds=form.seconds, quick=form.quick, seed=seed, over=over, say=say)
    # A person who falls over is a storm that tried less than it says.
    threading.excepthook = lambda failed: journal.violation(
        "nobody of ours falls over",
        "".join(traceback.format_exception(failed.exc_value)),
    )
    for thread in (watch, *people):
        thread.start()
    say(f"{buyers} buyers are in; {form.seconds:.0f} s of storm, seed {seed}")
    faults.run()
    over.set()
    _part(people, journal)
    say("the storm is over")
    recovered = recover(stack, journal, seed=seed, say=say)
    done.set()
    watch.join()
    bank = Bank(stack.sandbox_url)
    webhook_answers = _webhook_answers(bank, journal)
    _look_for_secrets(stack, journal)
    books = read_books(stack, bank)
    return Result(
        seed=seed,
        buyers=buyers,
        seconds=form.seconds,
        journal=journal,
        books=books,
        timeline=faults.timeline,
        recovered=recovered,
        violations=invariants.check(books, journal),
        webhook_answers=webhook_answers,
        looks=watch.looks,
    )


def _part(people: list[threading.Thread], journal: Journal) -> None:
    """Wait for everybody's last request."""
    deadline = time.monotonic() + FAREWELL_SECONDS
    for person in people:
        person.join(max(0.0, deadline - time.monotonic()))
        if person.is_alive():
            journal.violation("every request is answered in time", f"{person.name} still waits")


def _look_for_secrets(stack: Stack, journal: Journal) -> None:
    """A bad day fills the logs with tracebacks, and others than we may read them."""
    for log in sorted((stack.folder / "logs").glob("*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        for name, secret in stack.secrets().items():
            if secret and secret in text:
                journal.violation("no secret is in a log", f"{log.name} has the {name}")


def _webhook_answers(bank: Bank, journal: Journal) -> Counter[str]:
    """How the webhooks were answered; anything but 2xx or 503 is no answer to give Stripe."""
    answers: Counter[str] = Counter()
    for delivery in bank.deliveries():
        for attempt in delivery["attempts"]:
            status = attempt["status"]
            answers[str(status or attempt["error"].partition(":")[0])] += 1
            if status is not None and status != 503 and not 200 <= status < 300:
                journal.violation(
                    "an answer that isn't in the contract", f"webhook {delivery['type']}: {status}"
                )
    return answers
