"""Faults on request: what goes wrong on the way to the sandbox's /v1 API, and on the way back.

They apply to API requests and webhooks, never to the control calls or to the pay page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from secrets import SystemRandom
from typing import Any

from .errors import ControlError

WEBHOOK_MODES = ("normal", "drop", "duplicate", "reorder")
REFUND_MODES = ("succeed", "pending", "fail")
_LONGEST_MS = 10 * 60 * 1000

_chance = SystemRandom().random


@dataclass(frozen=True)
class Faults:
    """The faults in force. The rates are shares of the requests, from 0 to 1.

    `latency_ms` delays each answer; `error_rate` answers with `error_status` and does nothing;
    `hang_rate` leaves the request without an answer until its client goes away, with the work done
    first where `hang_after_work` is set; `drop_rate` does the work and closes the connection
    without an answer; `webhooks` loses, repeats or reorders deliveries; `webhook_delay_ms` delays
    their first attempt.

    `rate_limit` is how many API requests a second are let through (0 or null: all of them), and
    the rest are answered 429. `refunds` is how the refunds made from now on begin: `succeed` at
    once; `pending` until a control call settles or fails them; `fail`: pending, and failed by
    themselves a moment later.
    """

    latency_ms: int = 0
    error_rate: float = 0.0
    error_status: int = 500
    hang_rate: float = 0.0
    hang_after_work: bool = False
    drop_rate: float = 0.0
    webhooks: str = "normal"
    webhook_delay_ms: int = 0
    rate_limit: int = 0
    refunds: str = "succeed"

    @classmethod
    def from_json(cls, wanted: Any) -> Faults:
        """The faults that a control call asks for; what it leaves out is switched off.

        Raises ControlError (400) with a sentence that names the field and what it takes.
        """
        if not isinstance(wanted, dict):
            raise ControlError("Faults are a JSON object; {} clears them.", status=400)
        known = {f.name for f in fields(cls)}
        for name, value in wanted.items():
            if name not in known:
                raise ControlError(
                    f"There is no fault {name!r}; there are {', '.join(sorted(known))}.", status=400
                )
            accepts, what = _ACCEPTED[name]
            if not accepts(value):
                raise ControlError(f"{name} must be {what}, not {value!r}.", status=400)
        # Only a rate limit is let through as null, which switches it off as 0 does.
        return cls(**{name: value for name, value in wanted.items() if value is not None})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def strikes(self, rate: float) -> bool:
        """Whether a fault of this rate hits the request at hand."""
        return rate > 0 and _chance() < rate


class Throttle:
    """Counts the API requests let through within the last second, whatever key they bore."""

    def __init__(self) -> None:
        self._let_through: deque[float] = deque()

    def admits(self, *, limit: int, at: float) -> bool:
        """Whether one more request may pass; `at` is a monotonic clock's time in seconds.

        A refused request does not count, so a client that keeps asking is not locked out by it.
        """
        if not limit:
            return True
        while self._let_through and at - self._let_through[0] >= 1:
            self._let_through.popleft()
        if len(self._let_through) >= limit:
            return False
        self._let_through.append(at)
        return True


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_milliseconds(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LONGEST_MS


def _is_error_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_webhook_mode(value: Any) -> bool:
    return isinstance(value, str) and value in WEBHOOK_MODES


def _is_refund_mode(value: Any) -> bool:
    return isinstance(value, str) and value in REFUND_MODES


def _is_rate_limit(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


_RATE = (_is_rate, "a number from 0 to 1")
_MILLISECONDS = (_is_milliseconds, f"a whole number of milliseconds from 0 to {_LONGEST_MS}")
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "latency_ms": _MILLISECONDS,
    "error_rate": _RATE,
    "error_status": (_is_error_status, "an HTTP status from 400 to 599"),
    "hang_rate": _RATE,
    "hang_after_work": (_is_flag, "true or false"),
    "drop_rate": _RATE,
    "webhooks": (_is_webhook_mode, f"one of {', '.join(WEBHOOK_MODES)}"),
    "webhook_delay_ms": _MILLISECONDS,
    "rate_limit": (_is_rate_limit, "a whole number of requests a second, or null"),
    "refunds": (_is_refund_mode, f"one of {', '.join(REFUND_MODES)}"),
}


def error_body(status: int) -> dict[str, Any]:
    """What Stripe says with `status` when the request itself is not to blame.

    https://docs.stripe.com/rate-limits and https://docs.stripe.com/error-low-level
    """
    if status == 429:
        error = {
            "message": "Request rate limit exceeded. You can learn more about rate limits here "
            "https://stripe.com/docs/rate-limits.",
            "type": "invalid_request_error",
            "code": "rate_limit",
        }
    elif status == 409:
        error = {
            "message": "This object cannot be accessed right now because another API request or "
            "Stripe process is currently accessing it.",
            "type": "invalid_request_error",
            "code": "lock_timeout",
        }
    elif status >= 500:
        error = {
            "message": "An unknown error occurred. (Asked for at /sandbox/faults.)",
            "type": "api_error",
        }
    else:
        error = {
            "message": f"The sandbox was asked for a {status}: /sandbox/faults.",
            "type": "card_error" if status == 402 else "invalid_request_error",
        }
    return {"error": error}
