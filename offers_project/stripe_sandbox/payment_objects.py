"""Stripe's objects around money that moved: intents, charges, refunds and disputes.

Amounts are in minor units, times in seconds since 1970. https://docs.stripe.com/api
"""

from __future__ import annotations

import secrets
from typing import Any

from .objects import new_id
from .store import Record


def payment_intent(session: Record, given: dict[str, Any], *, now: int) -> Record:
    """The intent of a session whose buyer began to pay; `given` is its `payment_intent_data`."""
    intent_id = new_id("pi_3")
    return {
        "id": intent_id,
        "object": "payment_intent",
        "amount": session["amount_total"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": f"{intent_id}_secret_{secrets.token_hex(12)}",
        "confirmation_method": "automatic",
        "created": now,
        "currency": session["currency"],
        "customer": None,
        "description": given.get("description"),
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": given.get("metadata") or {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": session["payment_method_types"],
        "processing": None,
        "receipt_email": given.get("receipt_email"),
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": given.get("statement_descriptor"),
        "statement_descriptor_suffix": given.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }


_PAYMENT_METHODS: dict[str, Record] = {
    "card": {
        "card": {
            "brand": "visa", "country": "US", "exp_month": 12, "exp_year": 2034,
            "funding": "credit", "last4": "4242", "network": "visa", "three_d_secure": None,
            "wallet": None,
        },
        "type": "card",
    },
    "us_bank_account": {
        "type": "us_bank_account",
        "us_bank_account": {
            "account_holder_type": "individual", "account_type": "checking",
            "bank_name": "STRIPE TEST BANK", "last4": "6789", "routing_number": "110000000",
        },
    },
}  # fmt: skip


def charge(intent: Record, session: Record, *, method: str, status: str, now: int) -> Record:
    """A charge of `intent`: `status` is succeeded, pending or failed.

    `method` is card or us_bank_account.
    """
    buyer = session["customer_details"] or {}
    failed = status == "failed"
    captured = intent["amount"] if status == "succeeded" else 0
    return {
        "id": new_id("ch_3"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": captured,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": new_id("txn_3") if captured else None,
        "billing_details": {
            "address": buyer.get("address"),
            "email": buyer.get("email"),
            "name": buyer.get("name"),
            "phone": None,
            "tax_id": None,
        },
        "calculated_statement_descriptor": "SANDBOX",
        "captured": status == "succeeded",
        "created": now,
        "currency": intent["currency"],
        "customer": None,
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": "card_declined" if failed else None,
        "failure_message": "Your card was declined." if failed else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "on_behalf_of": None,
        "outcome": _declined_outcome() if failed else _authorized_outcome(),
        "paid": status == "succeeded",
        "payment_intent": intent["id"],
        "payment_method": intent["payment_method"],
        "payment_method_details": _PAYMENT_METHODS[method],
        "radar_options": {},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": intent["shipping"],
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": status,
        "transfer_data": None,
        "transfer_group": None,
    }


def _authorized_outcome() -> Record:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network",
        "reason": None,
        "risk_level": "normal",
        "risk_score": 12,
        "seller_message": "Payment complete.",
        "type": "authorized",
    }


def _declined_outcome() -> Record:
    return {
        **_authorized_outcome(),
        "network_status": "declined_by_network",
        "reason": "generic_decline",
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }


def refund(
    of: Record, *, amount: int, reason: str | None, metadata: dict[str, str], status: str, now: int
) -> Record:
    """A refund of the charge `of`: `status` is succeeded, as a card's is at once, or pending."""
    made = {
        "id": new_id("re_3"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": new_id("txn_3"),
        "charge": of["id"],
        "created": now,
        "currency": of["currency"],
        "destination_details": {
            "card": {
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": metadata,
        "payment_intent": of["payment_intent"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status,
        "transfer_reversal": None,
    }
    return {**made, "pending_reason": "processing"} if status == "pending" else made


def dispute(of: Record, *, reason: str, due_by: int, now: int) -> Record:
    """A dispute over the whole of the charge `of`, to be answered by `due_by`."""
    return {
        "id": new_id("du_1"),
        "object": "dispute",
        "amount": of["amount"],
        "balance_transactions": [],
        "charge": of["id"],
        "created": now,
        "currency": of["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": due_by,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": of["payment_intent"],
        "reason": reason,
        "status": "needs_response",
    }
