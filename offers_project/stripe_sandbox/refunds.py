"""Refunds and the payments behind them: https://docs.stripe.com/api/refunds

The functions that take `(sandbox, cause, ids, params)` are endpoints, called by the table in `api`.
"""

from __future__ import annotations

import time
from typing import Any

from . import objects, payment_objects
from .currencies import formatted
from .errors import ApiError, WrongState, missing
from .listing import page
from .parameters import Metadata, Moment, Text, Whole, endpoint, listing, merged
from .sandbox import Cause, Sandbox
from .store import Record

CREATE_REFUND = endpoint(
    amount=Whole(least=1),
    charge=Text(),
    metadata=Metadata(),
    payment_intent=Text(),
    reason=Text(choices=("duplicate", "fraudulent", "requested_by_customer")),
)
UPDATE_REFUND = endpoint(metadata=Metadata())
LIST_REFUNDS = listing(charge=Text(), created=Moment(), payment_intent=Text())


# How long a refund made under the fault `refunds: fail` is seen pending.
FAILS_AFTER_SECONDS = 1.0


def create_refund(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`POST /v1/refunds`; raises ApiError as `refund_charge` does."""
    return refund_charge(
        sandbox,
        _charge_for(sandbox, params),
        cause,
        amount=params.get("amount"),
        reason=params.get("reason"),
        metadata=params.get("metadata"),
    )


def refund_charge(
    sandbox: Sandbox,
    charge: Record,
    cause: Cause,
    *,
    amount: int | None,
    reason: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Record:
    """Refund `amount` (minor units) of a charge, or all that is left of it; returns the refund.

    The fault `refunds` decides how it begins. A pending one counts in `amount_refunded` like any
    other. The caller commits the store. Raises ApiError when the charge is disputed, refunded
    already, or has less left than is asked for.
    """
    remaining = charge["amount_captured"] - charge["amount_refunded"]
    if charge["disputed"]:
        raise ApiError(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
            executed=True,
        )
    if remaining <= 0:
        raise ApiError(
            f"Charge {charge['id']} has already been refunded.",
            code="charge_already_refunded",
            executed=True,
        )
    amount = amount or remaining
    if amount > remaining:
        currency = charge["currency"]
        raise ApiError(
            f"Refund amount ({formatted(amount, currency)}) is greater than unrefunded amount "
            f"on charge ({formatted(remaining, currency)})",
            param="amount",
            executed=True,
        )
    mode = sandbox.faults.refunds
    refund = payment_objects.refund(
        charge,
        amount=amount,
        reason=reason,
        metadata=metadata or {},
        status="succeeded" if mode == "succeed" else "pending",
        now=cause.now,
    )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    sandbox.store.put("refunds", refund["id"], refund)
    sandbox.store.put("charges", charge["id"], charge)
    sandbox.emit("refund.created", refund, cause)
    sandbox.emit("charge.refunded", charge, cause)
    if mode == "succeed":
        # Stripe sends one more as soon as the bank's reference for the refund is known.
        _refer(refund)
        sandbox.emit("refund.updated", refund, cause)
    elif mode == "fail":
        due = {"id": refund["id"], "due": time.time() + FAILS_AFTER_SECONDS}
        sandbox.store.put("refund_failures", refund["id"], due)
    return refund


def _refer(refund: Record) -> None:
    refund["destination_details"]["card"].update(
        reference=objects.new_id("ref", 10), reference_status="available"
    )


def refund_session(
    sandbox: Sandbox, session: Record, cause: Cause, *, amount: int | None
) -> Record:
    """Refund a session's payment by hand, as in Stripe's dashboard: nobody's metadata is on it.

    Raises WrongState for a session that is not paid, and ApiError as `refund_charge` does.
    """
    intent = sandbox.store.get("payment_intents", session["payment_intent"] or "")
    charge = sandbox.store.get("charges", (intent or {}).get("latest_charge") or "")
    if session["payment_status"] != "paid" or charge is None:
        raise WrongState(
            f"The session is {session['status']} and {session['payment_status']}; only a paid "
            "one can be refunded."
        )
    return refund_charge(sandbox, charge, cause, amount=amount)


def _charge_for(sandbox: Sandbox, params: dict[str, Any]) -> Record:
    if params.get("charge"):
        charge = sandbox.store.get("charges", params["charge"])
        if charge is None:
            raise missing("charge", params["charge"], param="charge")
    elif params.get("payment_intent"):
        intent = sandbox.store.get("payment_intents", params["payment_intent"])
        if intent is None:
            raise missing("payment_intent", params["payment_intent"], param="payment_intent")
        charge = sandbox.store.get("charges", intent["latest_charge"] or "")
    else:
        raise ApiError(
            "One of the following params should be provided for this request: payment_intent or "
            "charge.",
            code="parameter_missing",
            param="payment_intent",
        )
    if charge is None or charge["status"] != "succeeded":
        raise ApiError(
            f"This PaymentIntent ({params.get('payment_intent', 'of the charge')}) does "
            "not have a successful charge to refund.",
            code="payment_intent_unexpected_state",
            param="payment_intent",
            executed=True,
        )
    return charge


def settle_refund(sandbox: Sandbox, refund: Record, cause: Cause) -> None:
    """A pending refund goes through; raises WrongState for any other."""
    if refund["status"] != "pending":
        raise WrongState(f"The refund is {refund['status']}; only a pending one can be settled.")
    refund.pop("pending_reason", None)
    refund["status"] = "succeeded"
    _refer(refund)
    sandbox.store.put("refunds", refund["id"], refund)
    sandbox.store.remove("refund_failures", refund["id"])
    sandbox.emit("refund.updated", refund, cause)


def fail_refund(sandbox: Sandbox, refund: Record, cause: Cause) -> None:
    """The bank sends a refund's money back, maybe days later; raises WrongState if it did before.

    It may have been pending or have succeeded: https://docs.stripe.com/refunds#failed-refunds
    """
    if refund["status"] not in {"pending", "succeeded"}:
        raise WrongState(
            f"The refund is {refund['status']}; only one that is pending or succeeded can fail."
        )
    refund.pop("pending_reason", None)
    refund.update(
        status="failed",
        failure_reason="expired_or_canceled_card",
        failure_balance_transaction=objects.new_id("txn_3"),
    )
    charge = sandbox.store.all("charges")[refund["charge"]]
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    sandbox.store.put("refunds", refund["id"], refund)
    sandbox.store.put("charges", charge["id"], charge)
    sandbox.store.remove("refund_failures", refund["id"])
    sandbox.emit("refund.updated", refund, cause)
    sandbox.emit("refund.failed", refund, cause)


def fail_due(sandbox: Sandbox, *, at: float) -> bool:
    """Fail the refunds made to fail whose moment has come; True if there were any.

    `at` is in seconds since 1970. The caller commits the store.
    """
    due = [key for key, fate in sandbox.store.all("refund_failures").items() if fate["due"] <= at]
    for refund_id in due:
        fail_refund(sandbox, sandbox.store.all("refunds")[refund_id], Cause(now=int(at)))
    return bool(due)


def refund_by_id(sandbox: Sandbox, refund_id: str) -> Record:
    """The refund of that id; raises ApiError (404) when there is none."""
    refund = sandbox.store.get("refunds", refund_id)
    if refund is None:
        raise missing("refund", refund_id, param="refund")
    return refund


def get_refund(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/refunds/{id}`"""
    return refund_by_id(sandbox, ids[0])


def update_refund(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`POST /v1/refunds/{id}`: its metadata."""
    refund = refund_by_id(sandbox, ids[0])
    if "metadata" in params:
        refund["metadata"] = merged(refund["metadata"], params["metadata"])
        sandbox.store.put("refunds", refund["id"], refund)
        sandbox.emit("refund.updated", refund, cause)
    return refund


def list_refunds(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/refunds`"""
    intent, charge = params.get("payment_intent"), params.get("charge")
    return page(
        sandbox.store.all("refunds"),
        params,
        url="/v1/refunds",
        kind="refund",
        matches=lambda refund: (
            (not intent or refund["payment_intent"] == intent)
            and (not charge or refund["charge"] == charge)
        ),
    )


def get_payment_intent(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`GET /v1/payment_intents/{id}`"""
    intent = sandbox.store.get("payment_intents", ids[0])
    if intent is None:
        raise missing("payment_intent", ids[0], param="intent")
    return intent


def get_dispute(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/disputes/{id}`"""
    dispute = sandbox.store.get("disputes", ids[0])
    if dispute is None:
        raise missing("dispute", ids[0], param="dispute")
    return dispute


def get_charge(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/charges/{id}`"""
    charge = sandbox.store.get("charges", ids[0])
    if charge is None:
        raise missing("charge", ids[0], param="charge")
    return charge
