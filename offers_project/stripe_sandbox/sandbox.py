"""The sandbox's state in one place, handed to every endpoint, control call and page."""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from typing import Any

from . import objects
from .faults import Faults, Throttle
from .idempotency import IdempotencyKeys
from .store import Record, Store
from .webhooks import Deliveries


@dataclass(frozen=True)
class Cause:
    """What made something happen: the time (seconds since 1970), and the API request if it was one.

    The events of a step name its request, as Stripe's do.
    """

    now: int
    request_id: str | None = None
    idempotency_key: str | None = None


class Sandbox:
    """Everything the sandbox knows. One event loop uses it; no change to it awaits anything."""

    def __init__(self, store: Store, *, webhook_url: str | None, webhook_secret: str) -> None:
        self.store = store
        self.faults = Faults()
        self.throttle = Throttle()
        self.keys = IdempotencyKeys(store)
        self.deliveries = Deliveries(
            store, faults=lambda: self.faults, url=webhook_url, secret=webhook_secret
        )
        # Where people reach the pay page; the server sets it once it knows its port.
        self.base_url = "http://127.0.0.1"
        # Counts the resets, so that a request that waits meanwhile can tell that its world is gone.
        self.resets = 0
        self._deadlines: list[tuple[int, str]] = [
            (session["expires_at"], key)
            for key, session in store.all("sessions").items()
            if session["status"] == "open"
        ]
        heapq.heapify(self._deadlines)

    def emit(self, kind: str, subject: Record, cause: Cause) -> Record:
        """Record an event with a snapshot of `subject` and hand it to the webhooks.

        Returns the event. The caller commits the store.
        """
        snapshot = json.loads(json.dumps(subject))
        event = objects.event(
            kind,
            snapshot,
            created=cause.now,
            request_id=cause.request_id,
            idempotency_key=cause.idempotency_key,
            pending_webhooks=1 if self.deliveries.url else 0,
        )
        self.store.put("events", event["id"], event)
        self.deliveries.enqueue(event)
        return event

    def watch_deadline(self, session: Record) -> None:
        """Have `sessions_due` name this new session once its `expires_at` has come."""
        heapq.heappush(self._deadlines, (session["expires_at"], session["id"]))

    def sessions_due(self, now: int) -> list[Record]:
        """The open sessions whose time has come, each named once."""
        due = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, key = heapq.heappop(self._deadlines)
            session = self.store.get("sessions", key)
            if session is not None and session["status"] == "open":
                due.append(session)
        return due

    def inflict(self, faults: Faults) -> None:
        """Put these faults and no others in force; a rate limit starts with an empty second."""
        self.faults = faults
        self.throttle = Throttle()

    def reset(self) -> None:
        """Forget every object, answer, delivery and fault; where webhooks go stays as it is."""
        self.resets += 1
        self.inflict(Faults())
        self.deliveries.forget()
        self.keys.forget()
        self._deadlines.clear()
        self.store.forget(keep=["settings"])

    def overview(self) -> dict[str, Any]:
        """What the front page shows."""
        return {
            "faults": {
                name: value
                for name, value in self.faults.as_json().items()
                if value != Faults().as_json()[name]
            },
            "webhook_url": self.deliveries.url,
            "counts": {
                kind: len(self.store.all(kind))
                for kind in ("sessions", "refunds", "events", "requests")
            },
        }
