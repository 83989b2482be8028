"""Products and prices: https://docs.stripe.com/api/products and https://docs.stripe.com/api/prices

The functions that take `(sandbox, cause, ids, params)` are endpoints, called by the table in `api`.
"""

from __future__ import annotations

from typing import Any

from . import currencies, objects
from .errors import ApiError, missing
from .listing import page
from .parameters import (
    Flag,
    Group,
    ListOf,
    Metadata,
    Moment,
    Text,
    Whole,
    endpoint,
    listing,
    merged,
)
from .sandbox import Cause, Sandbox
from .store import Record

_PRODUCT_FIELDS: dict[str, Any] = {
    "active": Flag(),
    "description": Text(longest=40_000),
    "images": ListOf(Text(required=True, url=True), most=8),
    "metadata": Metadata(),
    "shippable": Flag(),
    "statement_descriptor": Text(longest=22),
    "unit_label": Text(longest=12),
    "url": Text(url=True),
}
CREATE_PRODUCT = endpoint(id=Text(longest=255), name=Text(required=True), **_PRODUCT_FIELDS)
UPDATE_PRODUCT = endpoint(name=Text(), default_price=Text(), **_PRODUCT_FIELDS)
LIST_PRODUCTS = listing(active=Flag(), created=Moment(), ids=ListOf(Text(required=True)))

PRODUCT_DATA: dict[str, Any] = {
    "name": Text(required=True),
    "description": Text(longest=40_000),
    "images": ListOf(Text(required=True, url=True), most=8),
    "metadata": Metadata(),
    "unit_label": Text(longest=12),
}
_TAX_BEHAVIOR = Text(choices=("exclusive", "inclusive", "unspecified"))
CREATE_PRICE = endpoint(
    active=Flag(),
    currency=Text(required=True),
    lookup_key=Text(longest=200),
    metadata=Metadata(),
    nickname=Text(),
    product=Text(),
    product_data=Group({**PRODUCT_DATA, "active": Flag(), "id": Text()}),
    tax_behavior=_TAX_BEHAVIOR,
    transfer_lookup_key=Flag(),
    unit_amount=Whole(required=True, least=0, most=currencies.MAXIMUM_CHARGE),
)
UPDATE_PRICE = endpoint(
    active=Flag(),
    lookup_key=Text(longest=200),
    metadata=Metadata(),
    nickname=Text(),
    tax_behavior=_TAX_BEHAVIOR,
    transfer_lookup_key=Flag(),
)
LIST_PRICES = listing(
    active=Flag(),
    created=Moment(),
    currency=Text(),
    lookup_keys=ListOf(Text(required=True), most=10),
    product=Text(),
    type=Text(choices=("one_time", "recurring")),
)


def create_product(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`POST /v1/products`"""
    wanted = params.get("id")
    if wanted and sandbox.store.get("products", wanted) is not None:
        raise ApiError(
            f"Product already exists with id {wanted}.", code="resource_already_exists", param="id"
        )
    product = objects.product(params, now=cause.now)
    sandbox.store.put("products", product["id"], product)
    sandbox.emit("product.created", product, cause)
    return product


def product_by_id(sandbox: Sandbox, product_id: str) -> Record:
    """The product of that id; raises ApiError (404) when there is none."""
    product = sandbox.store.get("products", product_id)
    if product is None:
        raise missing("product", product_id, param="id")
    return product


def get_product(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/products/{id}`"""
    return product_by_id(sandbox, ids[0])


def update_product(
    sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]
) -> Record:
    """`POST /v1/products/{id}`"""
    product = product_by_id(sandbox, ids[0])
    change = {key: value for key, value in params.items() if key != "expand"}
    default_price = change.get("default_price")
    if default_price and sandbox.store.get("prices", default_price) is None:
        raise missing("price", default_price, param="default_price", status=400)
    if change.get("name", "") is None:
        raise ApiError("name cannot be unset.", code="parameter_invalid_empty", param="name")
    if "metadata" in change:
        change["metadata"] = merged(product["metadata"], change["metadata"])
    product.update(change, updated=cause.now)
    sandbox.store.put("products", product["id"], product)
    sandbox.emit("product.updated", product, cause)
    return product


def list_products(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/products`"""
    wanted_ids = set(params.get("ids", ()))
    return page(
        sandbox.store.all("products"),
        params,
        url="/v1/products",
        kind="product",
        matches=lambda product: (
            product["active"] == params.get("active", product["active"])
            and (not wanted_ids or product["id"] in wanted_ids)
        ),
    )


def create_price(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`POST /v1/prices`"""
    currencies_checked(params, param="unit_amount")
    lookup_key = params.get("lookup_key")
    holder = _holder(sandbox, lookup_key)
    if holder is not None and not params.get("transfer_lookup_key"):
        raise _lookup_key_taken(lookup_key, holder)
    product_id = _product_for(sandbox, cause, params)
    if holder is not None:
        holder["lookup_key"] = None
        sandbox.store.put("prices", holder["id"], holder)
    price = objects.price(params, product_id=product_id, now=cause.now)
    sandbox.store.put("prices", price["id"], price)
    sandbox.emit("price.created", price, cause)
    return price


def currencies_checked(params: dict[str, Any], *, param: str) -> None:
    """Make `currency` lower case and raise ApiError unless `unit_amount` can be charged in it."""
    params["currency"] = params["currency"].lower()
    currencies.check_currency(params["currency"], param="currency")
    currencies.check_unit_amount(params["unit_amount"], params["currency"], param=param)


def _product_for(sandbox: Sandbox, cause: Cause, params: dict[str, Any]) -> str:
    named, described = params.get("product"), params.get("product_data")
    if bool(named) == bool(described):
        raise ApiError(
            "You must give exactly one of product and product_data.",
            code=None if named else "parameter_missing",
            param="product",
        )
    if described:
        product = objects.product(described, now=cause.now)
        sandbox.store.put("products", product["id"], product)
        return str(product["id"])
    if sandbox.store.get("products", named or "") is None:
        raise missing("product", named or "", param="product", status=400)
    return str(named)


def _holder(sandbox: Sandbox, lookup_key: str | None) -> Record | None:
    if not lookup_key:
        return None
    prices = sandbox.store.all("prices").values()
    return next((price for price in prices if price["lookup_key"] == lookup_key), None)


def _lookup_key_taken(lookup_key: str | None, holder: Record) -> ApiError:
    return ApiError(
        f"A price (`{holder['id']}`) already uses that lookup key. If you want to reassign the "
        f"lookup key `{lookup_key}`, set `transfer_lookup_key` to true.",
        param="lookup_key",
    )


def price_by_id(sandbox: Sandbox, price_id: str) -> Record:
    """The price of that id; raises ApiError (404) when there is none."""
    price = sandbox.store.get("prices", price_id)
    if price is None:
        raise missing("price", price_id, param="price")
    return price


def get_price(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/prices/{id}`"""
    return price_by_id(sandbox, ids[0])


def update_price(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`POST /v1/prices/{id}`: everything but the amount, which Stripe never changes."""
    price = price_by_id(sandbox, ids[0])
    change = {k: v for k, v in params.items() if k not in {"expand", "transfer_lookup_key"}}
    holder = _holder(sandbox, change.get("lookup_key"))
    if holder is not None and holder is not price:
        if not params.get("transfer_lookup_key"):
            raise _lookup_key_taken(change["lookup_key"], holder)
        holder["lookup_key"] = None
        sandbox.store.put("prices", holder["id"], holder)
    if "metadata" in change:
        change["metadata"] = merged(price["metadata"], change["metadata"])
    price.update(change)
    sandbox.store.put("prices", price["id"], price)
    sandbox.emit("price.updated", price, cause)
    return price


def list_prices(sandbox: Sandbox, cause: Cause, ids: list[str], params: dict[str, Any]) -> Record:
    """`GET /v1/prices`"""
    lookup_keys = set(params.get("lookup_keys", ()))
    return page(
        sandbox.store.all("prices"),
        params,
        url="/v1/prices",
        kind="price",
        matches=lambda price: (
            price["active"] == params.get("active", price["active"])
            and price["product"] == (params.get("product") or price["product"])
            and price["currency"] == (params.get("currency") or price["currency"])
            and price["type"] == (params.get("type") or price["type"])
            and (not lookup_keys or price["lookup_key"] in lookup_keys)
        ),
    )
