"""Stripe's objects, built with every field that Stripe always sends.

Amounts are in minor units, times in seconds since 1970. https://docs.stripe.com/api
"""

from __future__ import annotations

import secrets
from typing import Any

from .store import Record

# What the SDK this project pins asks for; events are rendered in the account's version at Stripe.
API_VERSION = "2026-10-28.endive"


def new_id(prefix: str, length: int = 24) -> str:
    """A fresh id like Stripe's: a prefix that names the kind, then letters and digits."""
    text = secrets.token_urlsafe(length).replace("-", "a").replace("_", "b")
    return f"{prefix}_{text[:length]}"


def product(given: dict[str, Any], *, now: int) -> Record:
    """A product from the checked parameters of `POST /v1/products` or of `product_data`."""
    return {
        "id": given.get("id") or new_id("prod", 14),
        "object": "product",
        "active": given.get("active", True),
        "created": now,
        "default_price": None,
        "description": given.get("description"),
        "images": given.get("images", []),
        "livemode": False,
        "marketing_features": [],
        "metadata": given.get("metadata") or {},
        "name": given["name"],
        "package_dimensions": None,
        "shippable": given.get("shippable"),
        "statement_descriptor": given.get("statement_descriptor"),
        "tax_code": None,
        "type": "service",
        "unit_label": given.get("unit_label"),
        "updated": now,
        "url": given.get("url"),
    }


def price(given: dict[str, Any], *, product_id: str, now: int) -> Record:
    """A one-time price from the checked parameters of `POST /v1/prices` or of `price_data`."""
    return {
        "id": new_id("price_1"),
        "object": "price",
        "active": given.get("active", True),
        "billing_scheme": "per_unit",
        "created": now,
        "currency": given["currency"],
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": given.get("lookup_key"),
        "metadata": given.get("metadata") or {},
        "nickname": given.get("nickname"),
        "product": product_id,
        "recurring": None,
        "tax_behavior": given.get("tax_behavior") or "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time",
        "unit_amount": given["unit_amount"],
        "unit_amount_decimal": str(given["unit_amount"]),
    }


def line_item(of: Record, *, description: str, quantity: int) -> Record:
    """One line of a session: `quantity` of the price `of`."""
    amount = of["unit_amount"] * quantity
    return {
        "id": new_id("li_1"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": of["currency"],
        "description": description,
        "metadata": {},
        # As it was when the session was made: a price may be renamed or retired later.
        "price": dict(of),
        "quantity": quantity,
    }


def checkout_session(
    given: dict[str, Any], *, session_id: str, url: str, amount: int, currency: str, now: int
) -> Record:
    """An open session from the checked parameters of `POST /v1/checkout/sessions`."""
    email = given.get("customer_email")
    return {
        "id": session_id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": amount,
        "amount_total": amount,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": given.get("billing_address_collection"),
        "cancel_url": given.get("cancel_url"),
        "client_reference_id": given.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now,
        "currency": currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": None,
        "customer_creation": given.get("customer_creation") or "if_required",
        "customer_details": _customer_details(email=email) if email else None,
        "customer_email": email,
        "discounts": [],
        "expires_at": given["expires_at"],
        "invoice": None,
        "invoice_creation": {
            "enabled": False,
            "invoice_data": {
                "account_tax_ids": None,
                "custom_fields": None,
                "description": None,
                "footer": None,
                "issuer": None,
                "metadata": {},
                "rendering_options": None,
            },
        },
        "livemode": False,
        "locale": given.get("locale"),
        "metadata": given.get("metadata") or {},
        "mode": "payment",
        "origin_context": None,
        # There is none until the buyer starts to pay.
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": given.get("payment_method_types") or ["card"],
        "payment_status": "unpaid" if amount else "no_payment_required",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": given.get("shipping_address_collection"),
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": given.get("submit_type"),
        "subscription": None,
        "success_url": given.get("success_url"),
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": url,
        "wallet_options": None,
    }


def _customer_details(
    *, email: str | None, name: str | None = None, address: Record | None = None
) -> Record:
    return {
        "address": address,
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def fill_in_buyer(session: Record, *, email: str, name: str, address: Record | None) -> None:
    """Put what the buyer typed on the pay page on `session`, where Stripe puts it.

    `address` is where to ship; None for a session that ships nothing.
    """
    billing = address or {
        "city": None, "country": "US", "line1": None, "line2": None, "postal_code": "94107",
        "state": None,
    }  # fmt: skip
    session["customer_details"] = _customer_details(email=email, name=name, address=billing)
    session["collected_information"] = {
        "business_name": None,
        "individual_name": None,
        "shipping_details": {"address": address, "name": name} if address else None,
    }


def event(
    kind: str,
    snapshot: Record,
    *,
    created: int,
    request_id: str | None,
    idempotency_key: str | None,
    pending_webhooks: int,
) -> Record:
    """An event about an object as it was at that moment."""
    return {
        "id": new_id("evt_1"),
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": {"object": snapshot},
        "livemode": False,
        "pending_webhooks": pending_webhooks,
        "request": {"id": request_id, "idempotency_key": idempotency_key},
        "type": kind,
    }
