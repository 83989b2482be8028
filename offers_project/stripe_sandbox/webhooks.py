"""Signed webhook deliveries with retries.

https://docs.stripe.com/webhooks: at least once, in no promised order, repeated for up to three
days. The sandbox starts its retries after one second, so that a local run recovers while somebody
is watching.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import httpx

from .errors import ControlError
from .faults import Faults
from .store import Record, Store

TIMEOUT_SECONDS = 20.0
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60 * 60.0
GIVE_UP_SECONDS = 3 * 24 * 60 * 60.0
AT_ONCE = 32

# How long `reorder` collects events before it delivers them backwards, and how long it waits for
# each.
REORDER_WINDOW_SECONDS = 1.0
REORDER_PATIENCE_SECONDS = 2.0


def signature(body: bytes, *, secret: str, timestamp: int) -> str:
    """The `Stripe-Signature` header for `body` sent at `timestamp` (seconds since 1970).

    https://docs.stripe.com/webhooks#verify-manually
    """
    signed = str(timestamp).encode() + b"." + body
    return f"t={timestamp},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def retry_delay(attempts: int) -> float:
    """Seconds to wait after that many failed attempts: 1, 2, 4, 8 … and at most an hour."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 20), LONGEST_RETRY_SECONDS)


class Deliveries:
    """Brings each event to one address: many events at a time, one attempt at a time for each.

    A delivery is `pending` until an answer was 2xx (`delivered`), three days have passed
    (`gave_up`), or the fault `drop` lost it (`dropped`). All but the first of these still count as
    undelivered.
    """

    def __init__(
        self, store: Store, *, faults: Callable[[], Faults], url: str | None, secret: str
    ) -> None:
        self._store = store
        self._faults = faults
        self.url = url
        self.secret = secret
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._held: list[str] = []

    def start(self) -> None:
        """Go on with what was pending when the sandbox last stopped. Needs a running event loop."""
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False)
        if self.url is not None:
            self._resume()

    def _resume(self) -> None:
        for event_id, delivery in self._store.all("deliveries").items():
            if delivery["state"] == "pending":
                self._spawn(self._carry(event_id))

    def send_to(self, url: str, secret: str) -> None:
        """Deliver to another address from now on, what is pending included."""
        was_nowhere = self.url is None
        self.url, self.secret = url, secret
        if was_nowhere:
            self._resume()

    async def stop(self) -> None:
        """End the deliveries under way; the pending ones stay pending in the store."""
        await self._cancel_all()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def enqueue(self, event: Record) -> None:
        """Deliver a new event, if webhooks go anywhere. The caller commits the store."""
        if self.url is None:
            return
        faults = self._faults()
        delivery = {
            "event_id": event["id"],
            "type": event["type"],
            "url": self.url,
            "state": "pending",
            "attempts": [],
            "next_attempt_at": time.time() + faults.webhook_delay_ms / 1000,
        }
        self._store.put("deliveries", event["id"], delivery)
        if faults.webhooks == "reorder":
            self._held.append(event["id"])
            if len(self._held) == 1:
                self._spawn(self._deliver_backwards())
        else:
            self._spawn(self._carry(event["id"]))

    async def resend(self, event_id: str) -> Record:
        """Attempt a delivery now, whatever its state and the faults, and return it.

        Raises ControlError when the event is unknown (404) or webhooks go nowhere (409).
        """
        event = self._store.get("events", event_id)
        if event is None:
            raise ControlError(f"No such event: {event_id!r}.", status=404)
        if self.url is None:
            raise ControlError(
                "Webhooks go nowhere: start the sandbox with --webhook-url, or POST "
                "/sandbox/webhook-endpoint.",
                status=409,
            )
        delivery = self._store.get("deliveries", event_id)
        if delivery is None:
            delivery = {
                "event_id": event_id,
                "type": event["type"],
                "url": self.url,
                "state": "pending",
                "attempts": [],
                "next_attempt_at": None,
            }
            self._store.put("deliveries", event_id, delivery)
            await self._attempt(event_id)
            self._spawn(self._carry(event_id))
        else:
            await self._attempt(event_id)
        return delivery

    def undelivered(self, event_id: str) -> bool:
        """What `delivery_success=false` of `GET /v1/events` asks."""
        delivery = self._store.get("deliveries", event_id)
        return delivery is not None and delivery["state"] != "delivered"

    def forget(self) -> None:
        """Drop every delivery under way, for `Sandbox.reset`, which drops their records too."""
        for task in self._tasks:
            task.cancel()
        self._held.clear()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, event_id: str, tried: asyncio.Event | None = None) -> None:
        """Attempt a delivery while it is pending; sets `tried` after the first attempt."""
        while (delivery := self._store.get("deliveries", event_id)) is not None:
            if delivery["state"] != "pending":
                break
            await asyncio.sleep(max(0.0, (delivery["next_attempt_at"] or 0.0) - time.time()))
            if delivery["state"] != "pending":
                break
            faults = self._faults()
            if faults.webhooks == "drop":
                self._record(delivery, status=None, error="dropped by a fault", state="dropped")
                break
            await self._attempt(event_id)
            if faults.webhooks == "duplicate" and delivery["state"] == "delivered":
                await self._attempt(event_id)
            if tried is not None:
                tried.set()
        if tried is not None:
            tried.set()

    async def _deliver_backwards(self) -> None:
        """Collect events for a moment, then deliver them one by one, the last first."""
        await asyncio.sleep(REORDER_WINDOW_SECONDS)
        backwards, self._held = self._held[::-1], []
        for event_id in backwards:
            tried = asyncio.Event()
            self._spawn(self._carry(event_id, tried))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tried.wait(), REORDER_PATIENCE_SECONDS)

    async def _attempt(self, event_id: str) -> None:
        lock = self._locks.get(event_id)
        if lock is None:
            lock = self._locks[event_id] = asyncio.Lock()
        async with lock, self._slots:
            event = self._store.get("events", event_id)
            delivery = self._store.get("deliveries", event_id)
            if event is None or delivery is None or self.url is None or self._client is None:
                return
            delivery["url"] = self.url
            body = json.dumps(event, indent=2).encode()
            headers = {
                "Content-Type": "application/json; charset=utf-8",
                "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
                "Stripe-Signature": signature(body, secret=self.secret, timestamp=int(time.time())),
            }
            status: int | None = None
            error: str | None = None
            try:
                status = (
                    await self._client.post(self.url, content=body, headers=headers)
                ).status_code
            except (httpx.HTTPError, httpx.InvalidURL) as failure:
                error = f"{type(failure).__name__}: {failure}".rstrip(": ")
            ok = status is not None and 200 <= status < 300
            self._record(delivery, status=status, error=error, state="delivered" if ok else None)

    def _record(
        self, delivery: Record, *, status: int | None, error: str | None, state: str | None
    ) -> None:
        """Note one attempt; without a new `state` the delivery is tried again, or given up."""
        event_id = delivery["event_id"]
        if self._store.get("deliveries", event_id) is not delivery:
            return  # forgotten by a reset while the receiver was answering
        now = time.time()
        attempts = delivery["attempts"]
        attempts.append({"time": round(now, 3), "status": status, "error": error})
        if state is not None:
            delivery["state"] = state
            delivery["next_attempt_at"] = None
        elif delivery["state"] == "pending":
            if now - attempts[0]["time"] > GIVE_UP_SECONDS:
                delivery["state"], delivery["next_attempt_at"] = "gave_up", None
            else:
                delivery["next_attempt_at"] = now + retry_delay(len(attempts))
        event = self._store.get("events", event_id)
        if event is not None and delivery["state"] == "delivered" and event["pending_webhooks"]:
            event["pending_webhooks"] = 0
            self._store.put("events", event_id, event)
        self._store.put("deliveries", event_id, delivery)
        self._store.commit()
