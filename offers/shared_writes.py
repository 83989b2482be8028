"""One transaction for those who want to write to the same row at the same moment.

The row's lock, the commit and the trips to the server cost as much for one as for ten, and while
one transaction is under way the next ones can only wait for its lock: so they wait here, and go
together. Within a process only; processes wait for each other at the row, as ever. Nothing depends
on it: whatever stands in the way of a shared transaction, each writes alone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from django.db import connection

from offers import turns

W = TypeVar("W")
R = TypeVar("R")

# Seconds. Longer than a few transactions of a rush take. Who has waited so long for one to begin
# writes alone: the one before is stuck at the row.
PATIENCE = 0.25
# Seconds. In a rush a transaction is put off for so long, for those to share it who are just
# coming. Who comes alone waits for nobody.
GATHER = 0.003

# How the thread of a wish goes on when it was seen to.
Ending = Callable[[], R]


@dataclass(eq=False)
class _Waiting(Generic[W, R]):
    """Somebody in line, who is called once: to an ending, or with ``None`` to write for all."""

    wish: W
    called: "Future[Ending[R] | None]" = field(default_factory=Future)


class SharedWrites(Generic[W, R]):
    """Writes by what they go to; those who come while one is under way share the next."""

    def __init__(self, write_all: Callable[[list[W]], Sequence[Ending[R]]]) -> None:
        """``write_all`` is one transaction, and returns for each wish how its thread goes on once
        that is done: with what came of it, or to write it alone after all."""
        self._write_all = write_all
        self._guard = threading.Lock()
        # Those who wait for the next transaction, by the keys of which one is under way.
        self._lines: dict[Hashable, deque[_Waiting[W, R]]] = {}

    def do(self, key: Hashable, wish: W, *, alone: Callable[[], R], most: int) -> R:
        """Return what ``alone`` returns, or what came of ``wish`` in one transaction with others.

        ``alone`` is for who comes while nobody is there, and for who has waited for ``PATIENCE``;
        up to ``most`` of the others go together, once it has returned. Called outside any
        transaction: in one, a test's, it is ``alone`` as well. What ``write_all`` raises is raised
        to all it was to write for.
        """
        if most == 1 or connection.in_atomic_block:
            return alone()
        me = _Waiting[W, R](wish)
        with self._guard:
            line = self._lines.get(key)
            if line is None:
                self._lines[key] = deque()
            else:
                line.append(me)
        if line is None:
            try:
                return alone()
            finally:
                self._call_next(key)
        leads = False
        try:
            connection.close()  # who writes needs one
            with turns.let_others():
                ending = self._called(key, me, alone)
                leads = ending is None
                if leads:
                    time.sleep(GATHER)
            if ending is None:
                ending = self._write(key, me, most)
        except BaseException:
            with self._guard:
                if me in line:
                    line.remove(me)  # nobody is to call who has gone
            raise
        finally:
            if leads:
                self._call_next(key)
        return ending()

    def _called(
        self, key: Hashable, me: _Waiting[W, R], alone: Callable[[], R]
    ) -> Ending[R] | None:
        try:
            return me.called.result(PATIENCE)
        except TimeoutError:
            with self._guard:
                line = self._lines.get(key)
                if line and me in line:
                    line.remove(me)
                    return alone
            return me.called.result()  # it is being written, or was called just now

    def _write(self, key: Hashable, me: _Waiting[W, R], most: int) -> Ending[R]:
        with self._guard:
            line = self._lines[key]
            others = [line.popleft() for _ in range(min(most - 1, len(line)))]
        try:
            mine, *theirs = self._write_all([me.wish, *(other.wish for other in others)])
        except BaseException as error:
            for other in others:
                other.called.set_exception(error)
            raise
        for other, ending in zip(others, theirs, strict=True):
            other.called.set_result(ending)
        return mine

    def _call_next(self, key: Hashable) -> None:
        """Have the first in line write next; with nobody there, whoever comes."""
        with self._guard:
            if line := self._lines[key]:
                line.popleft().called.set_result(None)
            else:
                del self._lines[key]
