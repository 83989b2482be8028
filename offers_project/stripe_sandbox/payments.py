"""What buyers, banks and cardholders do: the acts behind the control calls and the pay page.

Each act checks the state first and raises WrongState (409) before it changes anything. The caller
commits the store. Stripe's order of things:
https://docs.stripe.com/payments/checkout/fulfill-orders
"""

from __future__ import annotations

from dataclasses import dataclass

from . import objects, payment_objects
from .errors import WrongState
from .sandbox import Cause, Sandbox
from .store import Record

DISPUTE_SECONDS = 7 * 24 * 60 * 60


@dataclass(frozen=True)
class Buyer:
    """What the buyer types on the pay page. `address` counts only where one is asked for."""

    email: str = "buyer@example.com"
    name: str = "Demo Buyer"
    address: Record | None = None


def demo_address(session: Record) -> Record:
    """An address that the session ships to: the form's first values, and a control call's."""
    allowed = (session["shipping_address_collection"] or {}).get("allowed_countries", ["US"])
    return {
        "city": "Springfield",
        "country": "US" if "US" in allowed else allowed[0],
        "line1": "742 Evergreen Terrace",
        "line2": None,
        "postal_code": "49007",
        "state": "OR",
    }


def pay(sandbox: Sandbox, session: Record, cause: Cause, buyer: Buyer) -> None:
    """The buyer pays by card: the session is complete and paid."""
    intent = _begin(sandbox, session, cause, buyer, act="paid")
    session.update(status="complete", url=None)
    if intent is not None:
        _succeed(sandbox, session, intent, cause, method="card")
    _store(sandbox, "sessions", session)
    sandbox.emit("checkout.session.completed", session, cause)


def pay_later(sandbox: Sandbox, session: Record, cause: Cause, buyer: Buyer) -> None:
    """The buyer pays by a delayed method: complete, and unpaid until the bank has settled it.

    https://docs.stripe.com/payments/payment-methods#payment-notification
    """
    if session["status"] == "open" and session["amount_total"] == 0:
        raise WrongState("The session costs nothing, so there is nothing to pay later.")
    intent = _begin(sandbox, session, cause, buyer, act="paid")
    session.update(status="complete", url=None, payment_status="unpaid")
    if intent is not None:
        intent.update(status="processing", payment_method=objects.new_id("pm_1"))
        charge = payment_objects.charge(
            intent, session, method="us_bank_account", status="pending", now=cause.now
        )
        intent["latest_charge"] = charge["id"]
        _store(sandbox, "charges", charge)
        _store(sandbox, "payment_intents", intent)
        sandbox.emit("payment_intent.processing", intent, cause)
        sandbox.emit("charge.pending", charge, cause)
    _store(sandbox, "sessions", session)
    sandbox.emit("checkout.session.completed", session, cause)


def settle(sandbox: Sandbox, session: Record, cause: Cause) -> None:
    """The bank settles a delayed payment."""
    intent = _processing(sandbox, session)
    _succeed(sandbox, session, intent, cause, method="us_bank_account")
    _store(sandbox, "sessions", session)
    sandbox.emit("checkout.session.async_payment_succeeded", session, cause)


def fail(sandbox: Sandbox, session: Record, cause: Cause) -> None:
    """The bank refuses a delayed payment: the session stays complete and unpaid, for good."""
    intent = _processing(sandbox, session)
    charge = sandbox.store.all("charges")[intent["latest_charge"]]
    charge.update(
        status="failed", failure_code="insufficient_funds", failure_message="Insufficient funds."
    )
    _store(sandbox, "charges", charge)
    _refuse(sandbox, intent, charge, "insufficient_funds", cause)
    sandbox.emit("checkout.session.async_payment_failed", session, cause)


def decline(sandbox: Sandbox, session: Record, cause: Cause, buyer: Buyer) -> None:
    """The card is declined: the session stays open, the buyer may try another card."""
    if session["status"] == "open" and session["amount_total"] == 0:
        raise WrongState("The session costs nothing, so there is no card to decline.")
    intent = _begin(sandbox, session, cause, buyer, act="declined")
    if intent is None:
        return
    charge = payment_objects.charge(intent, session, method="card", status="failed", now=cause.now)
    intent["latest_charge"] = charge["id"]
    _store(sandbox, "charges", charge)
    _store(sandbox, "sessions", session)
    _refuse(sandbox, intent, charge, "generic_decline", cause)


def dispute(sandbox: Sandbox, session: Record, cause: Cause, *, reason: str) -> Record:
    """The cardholder disputes the whole payment; returns the dispute.

    https://docs.stripe.com/disputes/how-disputes-work
    """
    intent = sandbox.store.get("payment_intents", session["payment_intent"] or "")
    charge = sandbox.store.get("charges", (intent or {}).get("latest_charge") or "")
    if session["payment_status"] != "paid" or charge is None:
        raise WrongState(
            f"The session is {session['status']} and {session['payment_status']}; only a paid "
            "one can be disputed."
        )
    if charge["disputed"]:
        raise WrongState("The payment of this session is disputed already.")
    opened = payment_objects.dispute(
        charge, reason=reason, due_by=cause.now + DISPUTE_SECONDS, now=cause.now
    )
    charge["disputed"] = True
    _store(sandbox, "charges", charge)
    _store(sandbox, "disputes", opened)
    sandbox.emit("charge.dispute.created", opened, cause)
    sandbox.emit("charge.dispute.funds_withdrawn", opened, cause)
    return opened


def close_dispute(sandbox: Sandbox, opened: Record, cause: Cause, *, won: bool) -> None:
    """The bank decides a dispute; the money of a won one comes back."""
    if opened["status"] != "needs_response":
        raise WrongState(f"The dispute is closed: {opened['status']}.")
    opened["status"] = "won" if won else "lost"
    _store(sandbox, "disputes", opened)
    sandbox.emit("charge.dispute.closed", opened, cause)
    if won:
        sandbox.emit("charge.dispute.funds_reinstated", opened, cause)


def _store(sandbox: Sandbox, kind: str, record: Record) -> None:
    sandbox.store.put(kind, record["id"], record)


def _begin(
    sandbox: Sandbox, session: Record, cause: Cause, buyer: Buyer, *, act: str
) -> Record | None:
    """The intent of an open session with the buyer's details on it; None when it costs nothing."""
    if session["status"] != "open":
        raise WrongState(
            f"The session is {session['status']} and {session['payment_status']}; only an open "
            f"one can be {act}."
        )
    ships = session["shipping_address_collection"] is not None
    address = (buyer.address or demo_address(session)) if ships else None
    email = session["customer_email"] or buyer.email
    objects.fill_in_buyer(session, email=email, name=buyer.name, address=address)
    if session["amount_total"] == 0:
        return None
    intent = sandbox.store.get("payment_intents", session["payment_intent"] or "")
    if intent is None:
        given = sandbox.store.all("line_items")[session["id"]]["intent"]
        intent = payment_objects.payment_intent(session, given, now=cause.now)
        session["payment_intent"] = intent["id"]
        sandbox.emit("payment_intent.created", intent, cause)
    intent["amount"] = session["amount_total"]
    if address is not None:
        intent["shipping"] = {
            "address": address, "carrier": None, "name": buyer.name, "phone": None,
            "tracking_number": None,
        }  # fmt: skip
    return intent


def _succeed(
    sandbox: Sandbox, session: Record, intent: Record, cause: Cause, *, method: str
) -> None:
    pending = sandbox.store.get("charges", intent["latest_charge"] or "")
    intent.update(
        status="succeeded",
        amount_received=intent["amount"],
        last_payment_error=None,
        payment_method=intent["payment_method"] or objects.new_id("pm_1"),
    )
    charge = payment_objects.charge(
        intent, session, method=method, status="succeeded", now=cause.now
    )
    if pending is not None and pending["status"] == "pending":
        charge["id"] = pending["id"]
        charge["created"] = pending["created"]
    intent["latest_charge"] = charge["id"]
    session["payment_status"] = "paid"
    _store(sandbox, "charges", charge)
    _store(sandbox, "payment_intents", intent)
    sandbox.emit("payment_intent.succeeded", intent, cause)
    sandbox.emit("charge.succeeded", charge, cause)


def _refuse(
    sandbox: Sandbox, intent: Record, charge: Record, decline_code: str, cause: Cause
) -> None:
    intent.update(
        status="requires_payment_method",
        payment_method=None,
        last_payment_error={
            "type": "card_error",
            "code": "card_declined",
            "decline_code": decline_code,
            "charge": charge["id"],
            "message": charge["failure_message"],
        },
    )
    _store(sandbox, "payment_intents", intent)
    sandbox.emit("payment_intent.payment_failed", intent, cause)
    sandbox.emit("charge.failed", charge, cause)


def _processing(sandbox: Sandbox, session: Record) -> Record:
    intent = sandbox.store.get("payment_intents", session["payment_intent"] or "")
    if intent is None or intent["status"] != "processing":
        raise WrongState(
            f"The session is {session['status']} and {session['payment_status']}, and no delayed "
            "payment of it is under way."
        )
    return intent
