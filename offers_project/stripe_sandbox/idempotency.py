"""Idempotency keys as Stripe keeps them: https://docs.stripe.com/api/idempotent_requests"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .errors import ApiError
from .store import Record, Store

LONGEST_KEY = 255
KEPT_SECONDS = 24 * 60 * 60


class IdempotencyKeys:
    """The answers kept under keys, and the keys whose first request is still running.

    The running ones live in memory only: after a crash of the sandbox their requests never
    happened.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: set[str] = set()

    def begin(self, key: str, *, path: str, params: dict[str, Any], now: int) -> Record | None:
        """Start the work under `key`, or return the kept answer (`status`, `body`, `request_id`).

        After None the caller must call `finish` or `abandon`. Raises ApiError for a key that is too
        long (400), was used with another path or other parameters (400), or is in use at this
        moment (409).
        """
        if len(key) > LONGEST_KEY:
            raise ApiError(
                f"Idempotency keys can be at most {LONGEST_KEY} characters long; this one has "
                f"{len(key)}.",
                kind="idempotency_error",
            )
        kept = self._store.get("idempotency", key)
        if kept is not None and now - kept["created"] < KEPT_SECONDS:
            if kept["path"] != path or kept["fingerprint"] != _fingerprint(params):
                raise ApiError(
                    "Keys for idempotent requests can only be used with the same parameters they "
                    f"were first used with. Try using a key other than '{key}' if you meant to "
                    "execute a different request.",
                    kind="idempotency_error",
                )
            return kept
        if key in self._running:
            raise ApiError(
                "There is currently another in-progress request using this Idempotent Key (that "
                "probably means you submitted twice, and the other request is still going "
                f"through): {key}. If you continue to receive this error after multiple tries, "
                "please contact support.",
                status=409,
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        self._running.add(key)
        return None

    def finish(
        self,
        key: str,
        *,
        path: str,
        params: dict[str, Any],
        now: int,
        request_id: str,
        status: int,
        body: dict[str, Any],
    ) -> None:
        """Keep the answer of the request that `begin` started; the caller commits the store."""
        self._running.discard(key)
        # Put anew, so that a key used again after its time moves to the end of the file too.
        self._store.remove("idempotency", key)
        self._store.put(
            "idempotency",
            key,
            {
                "path": path,
                "fingerprint": _fingerprint(params),
                "created": now,
                "request_id": request_id,
                "status": status,
                # A copy: the objects in the body go on changing, the kept answer must not.
                "body": json.loads(json.dumps(body)),
            },
        )

    def abandon(self, key: str) -> None:
        """Give the key back: its request failed before its work began, and may be tried again."""
        self._running.discard(key)

    def forget(self) -> None:
        self._running.clear()


def _fingerprint(params: dict[str, Any]) -> str:
    canonical = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
