"""Checkout Sessions: https://docs.stripe.com/api/checkout/sessions

The functions that take `(sandbox, cause, ids, params)` are endpoints, called by the table in `api`.
"""

from __future__ import annotations

from typing import Any

from . import currencies, objects
from .catalog import PRODUCT_DATA, currencies_checked
from .errors import ApiError, WrongState, missing
from .expansion import line_items_of
from .listing import page
from .parameters import Group, ListOf, Metadata, Moment, Text, Whole, endpoint, listing, merged
from .sandbox import Cause, Sandbox
from .store import Record

SHORTEST_SECONDS = 30 * 60
LONGEST_SECONDS = 24 * 60 * 60
# Languages of Stripe's page; `auto` is the browser's.
LOCALES = (
    "auto", "bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil", "fr",
    "fr-CA", "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "mt", "nb", "nl", "pl", "pt",
    "pt-BR", "ro", "ru", "sk", "sl", "sv", "th", "tr", "vi", "zh", "zh-HK", "zh-TW",
)  # fmt: skip

CREATE_SESSION = endpoint(
    billing_address_collection=Text(choices=("auto", "required")),
    cancel_url=Text(url=True),
    client_reference_id=Text(longest=200),
    customer_creation=Text(choices=("always", "if_required")),
    customer_email=Text(longest=800),
    expires_at=Whole(least=0),
    line_items=ListOf(
        Group(
            {
                "price": Text(),
                "price_data": Group(
                    {
                        "currency": Text(required=True),
                        "product": Text(),
                        "product_data": Group(PRODUCT_DATA),
                        "tax_behavior": Text(choices=("exclusive", "inclusive", "unspecified")),
                        "unit_amount": Whole(
                            required=True, least=0, most=currencies.MAXIMUM_CHARGE
                        ),
                    }
                ),
                "quantity": Whole(least=1, most=999_999),
            }
        ),
        required=True,
    ),
    locale=Text(choices=LOCALES),
    metadata=Metadata(),
    mode=Text(required=True, choices=("payment", "setup", "subscription")),
    payment_intent_data=Group(
        {
            "description": Text(longest=1000),
            "metadata": Metadata(),
            "receipt_email": Text(longest=800),
            "statement_descriptor": Text(longest=22),
            "statement_descriptor_suffix": Text(longest=22),
        }
    ),
    payment_method_types=ListOf(Text(required=True)),
    shipping_address_collection=Group(
        {"allowed_countries": ListOf(Text(required=True, longest=2), required=True, most=300)}
    ),
    submit_type=Text(choices=("auto", "book", "donate", "pay")),
    success_url=Text(url=True, required=True),
    ui_mode=Text(choices=("hosted_page",)),
)
UPDATE_SESSION = endpoint(metadata=Metadata())
EXPIRE_SESSION = endpoint()
LIST_SESSIONS = listing(
    created=Moment(), payment_intent=Text(), status=Text(choices=("open", "complete", "expired"))
)
LIST_LINE_ITEMS = listing()


def create_session(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`POST /v1/checkout/sessions`"""
    if params["mode"] != "payment":
        raise ApiError("The sandbox plays Checkout Sessions in `payment` mode only.", param="mode")
    params["expires_at"] = _checked_expiry(params.get("expires_at"), now=cause.now)
    lines, new_records = _lines(sandbox, params["line_items"], now=cause.now)
    currency = lines[0]["currency"]
    amount = sum(line["amount_total"] for line in lines)
    currencies.check_total(amount, currency)

    for kind, record in new_records:
        sandbox.store.put(kind, record["id"], record)
    session_id = objects.new_id("cs_test", 58)
    session = objects.checkout_session(
        params,
        session_id=session_id,
        url=f"{sandbox.base_url}/c/pay/{session_id}",
        amount=amount,
        currency=currency,
        now=cause.now,
    )
    sandbox.store.put("sessions", session_id, session)
    sandbox.store.put(
        "line_items", session_id, {"data": lines, "intent": params.get("payment_intent_data", {})}
    )
    sandbox.watch_deadline(session)
    return session


def _checked_expiry(expires_at: int | None, *, now: int) -> int:
    if expires_at is None:
        return now + LONGEST_SECONDS
    if expires_at < now + SHORTEST_SECONDS:
        raise ApiError(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session "
            "creation.",
            param="expires_at",
        )
    if expires_at > now + LONGEST_SECONDS:
        raise ApiError(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    return expires_at


def _lines(
    sandbox: Sandbox, wanted: list[dict[str, Any]], *, now: int
) -> tuple[list[Record], list[tuple[str, Record]]]:
    """The lines of a session, and the products and prices that its `price_data` make on the way."""
    if not wanted:
        raise ApiError(
            "Missing required param: line_items.", code="parameter_missing", param="line_items"
        )
    lines: list[Record] = []
    new_records: list[tuple[str, Record]] = []
    for position, item in enumerate(wanted):
        where = f"line_items[{position}]"
        if bool(item.get("price")) == bool(item.get("price_data")):
            raise ApiError(
                f"You must give exactly one of {where}[price] and {where}[price_data].", param=where
            )
        if item.get("quantity") is None:
            raise ApiError(
                f"Missing required param: {where}[quantity].",
                code="parameter_missing",
                param=f"{where}[quantity]",
            )
        if item.get("price"):
            price = _active_price(sandbox, item["price"], param=f"{where}[price]")
            product = sandbox.store.get("products", price["product"]) or {"name": price["product"]}
        else:
            price, product, made = _inline_price(
                sandbox, item["price_data"], where=f"{where}[price_data]", now=now
            )
            new_records += made
        if lines and price["currency"] != lines[0]["currency"]:
            raise ApiError(
                "Each line item of a Checkout Session must have the same currency.",
                param="line_items",
            )
        lines.append(
            objects.line_item(price, description=product["name"], quantity=item["quantity"])
        )
    return lines, new_records


def _active_price(sandbox: Sandbox, price_id: str, *, param: str) -> Record:
    price = sandbox.store.get("prices", price_id)
    if price is None:
        raise missing("price", price_id, param=param, status=400)
    if not price["active"]:
        raise ApiError(
            "The price specified is inactive. This field only accepts active prices.", param=param
        )
    return price


def _inline_price(
    sandbox: Sandbox, given: dict[str, Any], *, where: str, now: int
) -> tuple[Record, Record, list[tuple[str, Record]]]:
    """The price and the product of a `price_data`, and those of them that are new."""
    currencies_checked(given, param=f"{where}[unit_amount]")
    named, described = given.get("product"), given.get("product_data")
    if bool(named) == bool(described):
        raise ApiError(
            f"You must give exactly one of {where}[product] and {where}[product_data].",
            param=f"{where}[product_data]",
        )
    made: list[tuple[str, Record]] = []
    if described:
        # A product made on the way is not offered for sale elsewhere: Stripe keeps it inactive.
        product = objects.product({**described, "active": False}, now=now)
        made.append(("products", product))
    else:
        known = sandbox.store.get("products", named or "")
        if known is None:
            raise missing("product", named or "", param=f"{where}[product]", status=400)
        product = known
    price = objects.price({**given, "active": False}, product_id=product["id"], now=now)
    made.append(("prices", price))
    return price, product, made


def session_by_id(sandbox: Sandbox, session_id: str) -> Record:
    """The session of that id; raises ApiError (404) when there is none."""
    session = sandbox.store.get("sessions", session_id)
    if session is None:
        raise missing("checkout.session", session_id, param="session")
    return session


def get_session(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/checkout/sessions/{id}`"""
    return session_by_id(sandbox, ids[0])


def update_session(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`POST /v1/checkout/sessions/{id}`: its metadata."""
    session = session_by_id(sandbox, ids[0])
    if "metadata" in params:
        session["metadata"] = merged(session["metadata"], params["metadata"])
        sandbox.store.put("sessions", session["id"], session)
    return session


def list_sessions(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/checkout/sessions`"""
    intent, status = params.get("payment_intent"), params.get("status")
    return page(
        sandbox.store.all("sessions"),
        params,
        url="/v1/checkout/sessions",
        kind="checkout.session",
        matches=lambda session: (
            (not intent or session["payment_intent"] == intent)
            and (not status or session["status"] == status)
        ),
    )


def list_line_items(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`GET /v1/checkout/sessions/{id}/line_items`"""
    return line_items_of(sandbox.store, session_by_id(sandbox, ids[0])["id"], params)


def expire_session(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`POST /v1/checkout/sessions/{id}/expire`; raises ApiError (400) unless it is open."""
    session = session_by_id(sandbox, ids[0])
    if session["status"] != "open":
        raise ApiError(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
            f"Session has a status of {session['status']}.",
            executed=True,
        )
    expire(sandbox, session, cause)
    return session


def expire(sandbox: Sandbox, session: Record, cause: Cause) -> None:
    """End a session, on request or in time; raises WrongState unless it is open."""
    if session["status"] != "open":
        raise WrongState(f"The session is {session['status']}; only an open one can expire.")
    session.update(status="expired", url=None)
    sandbox.store.put("sessions", session["id"], session)
    intent = sandbox.store.get("payment_intents", session["payment_intent"] or "")
    if intent is not None:
        # A buyer had tried and was declined. The intent of a dead session can't be paid any more.
        intent.update(status="canceled", canceled_at=cause.now, cancellation_reason="expired")
        sandbox.store.put("payment_intents", intent["id"], intent)
        sandbox.emit("payment_intent.canceled", intent, cause)
    sandbox.emit("checkout.session.expired", session, cause)


def expire_due(sandbox: Sandbox, *, now: int) -> bool:
    """End the sessions whose time has come; True if there were any. The caller commits."""
    due = sandbox.sessions_due(now)
    for session in due:
        expire(sandbox, session, Cause(now=now))
    return bool(due)
