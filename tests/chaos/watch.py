"""Looks at the stock all the time: what must be true at every commit, not only in the end."""

import contextlib
import threading
from typing import Any

import psycopg

from tests.chaos.books import read_stock
from tests.chaos.journal import Journal
from tests.chaos.stack import Stack

EVERY_SECONDS = 0.5
RULE = "counters equal the purchases at every moment, and no unit is sold twice"


class Watch(threading.Thread):
    """Reads every offer's counters together with its purchases until `over` is set."""

    def __init__(self, stack: Stack, journal: Journal, over: threading.Event) -> None:
        super().__init__(name="watch", daemon=True)
        self.looks = 0
        self._stack = stack
        self._journal = journal
        self._over = over
        self._seen: set[str] = set()

    def run(self) -> None:
        """Look; connect again whenever PostgreSQL was taken away."""
        while not self._over.is_set():
            with contextlib.suppress(psycopg.OperationalError), self._stack.connect() as connection:
                while not self._over.wait(EVERY_SECONDS):
                    self._look(connection)
            self._over.wait(EVERY_SECONDS)

    def _look(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        for offer in read_stock(connection):
            # Once each: what is wrong stays wrong, and would fill the page.
            if offer.problem and offer.title not in self._seen:
                self._seen.add(offer.title)
                self._journal.violation(RULE, offer.problem)
        self.looks += 1
