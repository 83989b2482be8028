"""An act is something to be done, not done yet: alone, interrupted, or together with another."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from offers.errors import DomainError

Act = Callable[[], None]
Item = TypeVar("Item")


def choose(items: Sequence[Item], pick: int) -> Item:
    """The item that a drawn number stands for, however many there are."""
    return items[pick % len(items)]


def expecting(work: Callable[[], Any], *refusals: type[DomainError]) -> Act:
    """``work``, which these errors of the domain may refuse, and no others."""

    def act() -> None:
        with suppress(*refusals):
            work()

    return act


def ignoring(work: Callable[[], Any]) -> Act:
    """``work``, whose answer is of no interest."""
    return expecting(work)


def nothing() -> None:
    """The act of somebody who has nothing to do just now."""
