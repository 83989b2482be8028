"""What gets in the way of an act: Stripe failing at one call, a crash there, somebody else.

An act's calls to Stripe all go through one function, and its decisions through a row lock: these
are the points at which the world may change under it, so these are where it is interrupted.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from django.db import connection, transaction

from offers import inventory
from purchases import stripe_gateway, transitions
from purchases.errors import ProviderFailed
from purchases.models import Purchase
from tests.sandbox_process import wait_for

SECONDS = 20.0
# At which of an act's calls to Stripe, and how. All but the last two are the sandbox's own doing.
FAULTS = {
    "500": {"error_rate": 1.0, "error_status": 500},
    "answer lost": {"drop_rate": 1.0},
}
TROUBLES = (*FAULTS, "done, but 500", "crash before", "crash after")


class Crash(BaseException):
    """The process is killed here: no ``except`` of the service may see it."""


class Spent:
    """Idempotency keys under which Stripe has stored a 500: nothing else comes of them again."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._asked = threading.local()

    def note(self) -> None:
        """What this thread is asking with has got a 500, and will get it again."""
        key = getattr(self._asked, "key", None)
        if key is not None:
            self._keys.add(key)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block the gateway gets what Stripe would answer under such a key."""
        with (
            patch.object(stripe_gateway, "create_session", self._keyed("create_session")),
            patch.object(stripe_gateway, "create_refund", self._keyed("create_refund")),
        ):
            yield

    def _keyed(self, name: str) -> Callable[..., Any]:
        original = getattr(stripe_gateway, name)

        def ask(*args: Any, idempotency_key: str, **kwargs: Any) -> Any:
            if idempotency_key in self._keys:
                raise ProviderFailed
            self._asked.key = idempotency_key
            try:
                return original(*args, idempotency_key=idempotency_key, **kwargs)
            finally:
                self._asked.key = None

        return ask


@contextmanager
def at_call(
    number: int, before: Callable[[], None] | None, after: Callable[[], None] | None
) -> Iterator[None]:
    """Within the block, do something around this thread's call ``number`` (from 0) to Stripe."""
    me, made = threading.get_ident(), iter(range(10_000))
    original = stripe_gateway._ask

    def ask(what: str, call: Callable[[Any], Any]) -> Any:
        hit = threading.get_ident() == me and next(made) == number
        if hit and before:
            before()
        answer = original(what, call)
        if hit and after:
            after()
        return answer

    with patch.object(stripe_gateway, "_ask", ask):
        yield


@contextmanager
def trouble(
    kind: str, number: int, set_faults: Callable[..., None], spent: Spent
) -> Iterator[None]:
    """Within the block, call ``number`` to Stripe goes wrong as ``kind`` says."""

    def crash() -> None:
        raise Crash

    def fail() -> None:
        spent.note()
        raise ProviderFailed

    try:
        if kind in FAULTS:
            # Cleared by the next call, or at the end.
            with (
                at_call(number, lambda: set_faults(**FAULTS[kind]), None),
                at_call(number + 1, set_faults, None),
            ):
                yield
        else:
            before = crash if kind == "crash before" else None
            after = {"crash after": crash, "done, but 500": fail}.get(kind)
            with at_call(number, before, after):
                yield
    except Crash:
        connection.close()  # it died with its process
    finally:
        set_faults()


@contextmanager
def at_first_lock(then: Callable[[], None]) -> Iterator[None]:
    """Within the block, do ``then`` once, when this thread has just locked its first row."""
    me, waiting = threading.get_ident(), [then]

    def interposed(original: Callable[..., Any]) -> Callable[..., Any]:
        def lock(*args: Any) -> Any:
            locked = original(*args)
            if waiting and threading.get_ident() == me:
                waiting.pop()()
            return locked

        return lock

    take = inventory.take_with_commit

    def lock_and_take(**how: Any) -> None:
        # It locks in one go with its commit: here the row is locked before, and held as long.
        inventory.lock(how["seen"].pk)
        take(**how)

    open_checkout = transitions.open_checkout

    def lock_and_open(purchase: Purchase, **how: Any) -> bool:
        # The same of one that locks and changes in one.
        with transaction.atomic():
            transitions.lock(purchase.pk)
            return open_checkout(purchase, **how)

    with (
        patch.object(transitions, "open_checkout", lock_and_open),
        patch.object(transitions, "lock", interposed(transitions.lock)),
        patch.object(inventory, "lock", interposed(inventory.lock)),
        patch.object(inventory, "take_with_commit", lock_and_take),
    ):
        yield


def at_once(first: Callable[[], None], second: Callable[[], None]) -> None:
    """Run both so that ``second`` runs into the row lock that ``first`` holds, if it needs it.

    Without that lock the second would be through before the first has written what it decided.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            second()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            raised.append(error)
        finally:
            connection.close()

    other = threading.Thread(target=run)

    def let_it_run() -> None:
        other.start()
        wait_for(lambda: not other.is_alive() or _somebody_waits_for_us(), SECONDS)

    with at_first_lock(let_it_run):
        first()
    if other.ident is None:  # the first had nothing to lock
        run()
    else:
        other.join(SECONDS)
        assert not other.is_alive(), "The second act never came back."
    if raised:
        raise raised[0]


def _somebody_waits_for_us() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_locks"
            " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        return cursor.fetchone() is not None
