"""The refusals of the sandbox: Stripe's error bodies, and the control calls' own.

https://docs.stripe.com/api/errors
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal that the /v1 gateway answers in Stripe's shape.

    `executed` says that the endpoint had begun its work when it refused. Stripe keeps such answers
    under the idempotency key, and forgets those of a request that failed validation
    (https://docs.stripe.com/api/idempotent_requests).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.executed = executed

    def body(self) -> dict[str, Any]:
        """Stripe's JSON error body, without the fields that do not apply."""
        error: dict[str, Any] = {"message": self.message, "type": self.kind}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


class ControlError(Exception):
    """A control call that can't be done: answered with `status` and `{"error": {"message": …}}`."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class WrongState(ControlError):
    """The session is not in a state in which a buyer, a bank or time could do this (409)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=409)


def missing(kind: str, object_id: str, *, param: str, status: int = 404) -> ApiError:
    """The refusal for an id that names nothing.

    Stripe answers 404 where the id is the address, and 400 where it is one of several parameters.
    """
    return ApiError(
        f"No such {kind}: '{object_id}'", status=status, code="resource_missing", param=param
    )
