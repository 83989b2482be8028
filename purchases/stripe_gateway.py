"""Everything said to Stripe, and the only importer of its SDK.

Each call first gives the database connection back, because Stripe takes as long as it takes, and
refuses to run inside a transaction, because a row would be locked as long. What goes wrong is
raised as an error that tells what may have happened at Stripe: ``ProviderRefused`` (nothing),
``ProviderFailed`` (most likely nothing), ``ProviderUnreachable`` (anything), and their subclasses
in ``purchases.errors``. Amounts are in minor units here, times are aware datetimes.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import quote

import requests
import stripe
import structlog
from django.conf import settings
from django.db import connection

from offers import metrics
from offers.turns import let_others
from purchases.errors import (
    InvalidWebhook,
    PaymentProviderUnavailable,
    ProviderFailed,
    ProviderNotConfigured,
    ProviderNotReached,
    ProviderRefused,
    ProviderStillRunning,
    ProviderTurnedAway,
    ProviderUnreachable,
    is_stripe_away,
)
from purchases.stripe_connections import DirectConnections, Tries, counted
from purchases.stripe_objects import CheckoutSession, Refund, parsed_event
from purchases.stripe_traffic import backoff, bulkhead

logger = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

# How often one call is made when Stripe answers 429, which the SDK doesn't repeat.
TRIES = 3
# Seconds for which a failure counts that no call came after: who sells little asks seldom.
MEMORY = 60.0
# What tells when a session was paid: the session itself doesn't.
WITH_CHARGE = "payment_intent.latest_charge"
SESSIONS = "/v1/checkout/sessions"


@lru_cache(maxsize=4)
def _client(key: str, base: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        key,
        base_addresses={"api": base},
        max_network_retries=settings.STRIPE_NETWORK_RETRIES,
        http_client=stripe.RequestsClient(
            timeout=(settings.STRIPE_CONNECT_TIMEOUT, settings.STRIPE_READ_TIMEOUT),
            session=_connections(base),
        ),
    )


def _connections(base: str) -> Any:
    """Connections for all threads; the environment is searched for a proxy once, not each time."""
    proxies = requests.utils.get_environ_proxies(base)
    if not requests.utils.select_proxy(base, proxies):
        return DirectConnections(
            number=settings.STRIPE_CONCURRENT_CALLS, ca_bundle=stripe.ca_bundle_path
        )
    session = requests.Session()
    session.proxies.update(proxies)
    session.trust_env = False
    # Threads share it: a cookie, which Stripe has none of, would be written while another reads.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # A connection for each call that may be under way: more would be opened, and thrown away.
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=settings.STRIPE_CONCURRENT_CALLS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _ask(what: str, call: Callable[[stripe.StripeClient], Answer]) -> Answer:
    """Make one call, translating Stripe's errors; see the module for what is raised."""
    if connection.in_atomic_block:
        raise RuntimeError(f"{what}: Stripe must not be called inside a transaction.")
    if not settings.STRIPE_SECRET_KEY:
        logger.error("stripe not configured", hint="set STRIPE_SECRET_KEY")
        raise ProviderNotConfigured
    connection.close()
    with let_others():
        return _answer(what, call)


def _answer(what: str, call: Callable[[stripe.StripeClient], Answer]) -> Answer:
    client = _client(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE)
    for last_try in (*[False] * (TRIES - 1), True):
        backoff.wait()
        try:
            with counted() as tries, bulkhead.call():
                answer = call(client)
        except stripe.StripeError as error:
            _log(what, error)
            failure = _translated(error, tries)
            _note(away=is_stripe_away(failure))
            limited = isinstance(error, stripe.RateLimitError)
            if limited:
                backoff.turned_away()
            elif error.http_status is not None:
                backoff.answered()
            if last_try or not limited:
                raise failure from error
        else:
            backoff.answered()
            _note(away=False)
            return answer
    raise AssertionError("unreachable: the last try returns or raises")


def conversation() -> AbstractContextManager[None]:
    """Room for several calls in a row, taken before the first; see ``purchases.stripe_traffic``.

    Whoever holds stock before it asks Stripe takes the room first: without any, nothing is held,
    nor during a long pause after a 429. Raises ``ProviderSaturated`` and ``ProviderTurnedAway``.
    """
    backoff.refuse_in_a_long_pause()
    return bulkhead.conversation()


def has_room() -> bool:
    """Whether ``conversation`` would most likely not wait; it may refuse all the same."""
    return bulkhead.has_room()


def _translated(error: stripe.StripeError, tries: Tries) -> PaymentProviderUnavailable:
    status = error.http_status
    if isinstance(error, stripe.APIConnectionError) or status is None:
        return ProviderNotReached() if tries.reached_nobody else ProviderUnreachable()
    if status == 409:
        return ProviderStillRunning()
    if status in (401, 403, 429):
        return ProviderTurnedAway()
    # A key that was used for another request tells nothing about what that one did.
    if status >= 500 or isinstance(error, stripe.IdempotencyError):
        return ProviderFailed()
    return ProviderRefused(param=getattr(error, "param", None), code=error.code)


class _Seen:
    """What this process has seen of Stripe last."""

    away = False
    at = 0.0


def _note(*, away: bool) -> None:
    if away:
        metrics.stripe_failures.inc()
    if _Seen.away != away:
        metrics.service_away.labels("stripe").set(away)
    _Seen.away, _Seen.at = away, time.monotonic()


def is_available() -> bool:
    """Whether Stripe is configured and did not fail this process just now. Asks nobody."""
    is_away = _Seen.away and time.monotonic() - _Seen.at < MEMORY
    return bool(settings.STRIPE_SECRET_KEY) and not is_away


def _log(what: str, error: stripe.StripeError) -> None:
    # The message may quote what we sent, which holds no secret; the headers, which do, stay out.
    logger.warning(
        "stripe call failed",
        call=what,
        kind=type(error).__name__,
        status=error.http_status,
        error=error.user_message or str(error)[:300],
        stripe_request_id=error.request_id,
    )


def is_live() -> bool:
    """Whether our key moves real money; events of the other mode are none of our business."""
    return "_live_" in settings.STRIPE_SECRET_KEY


# -- Checkout Sessions ----------------------------------------------------------------------------


def create_session(request: dict[str, Any], *, idempotency_key: str) -> CheckoutSession:
    """Open a Checkout Session, or get the one that the same key opened before.

    As plain JSON: the SDK's objects, of which we want a dictionary again, take a millisecond.
    """
    answer = _ask(
        "create session",
        lambda client: client.raw_request(
            "post", SESSIONS, **request, idempotency_key=idempotency_key
        ),
    )
    return CheckoutSession.parse(answer.data)


def retrieve_session(session_id: str) -> CheckoutSession:
    session = _ask(
        "retrieve session",
        lambda c: c.v1.checkout.sessions.retrieve(session_id, {"expand": [WITH_CHARGE]}),
    )
    return CheckoutSession.parse(session.to_dict())


def expire_session(session_id: str) -> CheckoutSession:
    """Make sure the session can't be paid any more, and return it as it then is.

    `expired` if it was open or expired already, `complete` if the buyer was faster: Stripe refuses
    to expire anything but an open session (https://docs.stripe.com/api/checkout/sessions/expire).
    """
    try:
        answer = _ask(
            "expire session",
            lambda client: client.raw_request("post", f"{SESSIONS}/{quote(session_id)}/expire"),
        )
    except ProviderRefused:
        current = retrieve_session(session_id)
        if current.is_open:
            # Refused for another reason: it can still be paid, whoever asked must not go on.
            raise
        return current
    return CheckoutSession.parse(answer.data)


def sessions_of(
    references: set[str], *, since: datetime, until: datetime
) -> dict[str, list[CheckoutSession]]:
    """The sessions Stripe opened in that time, by those of their ``client_reference_id``.

    Stripe can't search by reference, so it is a walk over all sessions of that time: for the rare
    case in which an answer was lost, with times no more than minutes apart.
    """
    created: Any = {"gte": int(since.timestamp()), "lte": int(until.timestamp())}
    found: dict[str, list[CheckoutSession]] = {reference: [] for reference in references}

    def walk(client: stripe.StripeClient) -> None:
        listed = client.v1.checkout.sessions.list(
            {"created": created, "limit": 100, "expand": [f"data.{WITH_CHARGE}"]}
        )
        for session in listed.auto_paging_iter():
            if session.client_reference_id in found:
                found[session.client_reference_id].append(CheckoutSession.parse(session.to_dict()))

    _ask("list sessions", walk)
    return found


def session_of_payment(payment_intent_id: str) -> CheckoutSession | None:
    """The session through which a payment came, if it came through one."""
    listed = _ask(
        "list sessions of a payment",
        lambda client: client.v1.checkout.sessions.list(
            {"payment_intent": payment_intent_id, "expand": [f"data.{WITH_CHARGE}"]}
        ),
    )
    return CheckoutSession.parse(listed.data[0].to_dict()) if listed.data else None


def sessions_since(since: datetime) -> Iterator[CheckoutSession]:
    """Every session opened since then, newest first, a page of 100 at a time."""
    params: Any = {
        "created": {"gte": int(since.timestamp())},
        "limit": 100,
        "expand": [f"data.{WITH_CHARGE}"],
    }
    listing = "list all sessions"
    for page in _pages(listing, params, lambda client, p: client.v1.checkout.sessions.list(p)):
        for session in page:
            yield CheckoutSession.parse(session)


def _pages(
    what: str, params: dict[str, Any], ask: Callable[[stripe.StripeClient, Any], Any]
) -> Iterator[list[dict[str, Any]]]:
    """The pages of a list, each asked for only when it is wanted; the caller may work between."""
    cursor: dict[str, Any] = {}
    while True:
        wanted = params | cursor
        page = _ask(what, lambda client, wanted=wanted: ask(client, wanted))  # type: ignore[misc]  # mypy infers no default's type
        found = [item.to_dict() for item in page.data]
        yield found
        if not page.has_more or not found:
            return
        cursor = {"starting_after": found[-1]["id"]}


# -- Products and prices --------------------------------------------------------------------------


def create_product(fields: dict[str, Any]) -> None:
    """Make a Product with the id in ``fields``; refused, with a code, if it exists."""
    _ask(
        "create product",
        lambda client: client.v1.products.create(fields),  # type: ignore[arg-type]  # the SDK's TypedDict
    )


def update_product(product_id: str, fields: dict[str, Any]) -> None:
    _ask(
        "update product",
        lambda client: client.v1.products.update(product_id, fields),  # type: ignore[arg-type]  # the SDK's TypedDict
    )


def create_price(fields: dict[str, Any], *, idempotency_key: str) -> str:
    """Make a Price and return its id. A Price's amount can't be changed later."""
    options = {"idempotency_key": idempotency_key}
    return _ask(
        "create price",
        lambda client: client.v1.prices.create(fields, options).id,  # type: ignore[arg-type]  # the SDK's TypedDict
    )


def keep_only_price(product_id: str, keep: str | None) -> None:
    """Leave ``keep`` as the product's only Price that can be used."""

    def switch(client: stripe.StripeClient) -> None:
        listed = client.v1.prices.list({"product": product_id, "active": True, "limit": 100})
        active = {price.id for price in listed.auto_paging_iter()}
        if keep is not None and keep not in active:
            client.v1.prices.update(keep, {"active": True})
        for price_id in active - {keep}:
            client.v1.prices.update(price_id, {"active": False})

    _ask("switch prices", switch)


# -- Refunds --------------------------------------------------------------------------------------


def create_refund(
    *, payment_intent_id: str, amount: int, metadata: dict[str, str], idempotency_key: str
) -> Refund:
    """Send ``amount`` (minor units) back; `succeeded` or `pending` (its webhook tells the rest)."""
    refund = _ask(
        "create refund",
        lambda client: client.v1.refunds.create(
            {"payment_intent": payment_intent_id, "amount": amount, "metadata": metadata},
            {"idempotency_key": idempotency_key},
        ),
    )
    return Refund.parse(refund.to_dict())


def retrieve_refund(refund_id: str) -> Refund:
    refund = _ask("retrieve refund", lambda client: client.v1.refunds.retrieve(refund_id))
    return Refund.parse(refund.to_dict())


def refunds_of(payment_intent_id: str) -> list[Refund]:
    """Every refund of one payment, whoever made it."""
    params: Any = {"payment_intent": payment_intent_id, "limit": 100}
    return _refunds("list refunds of a payment", params)


def refunds_since(since: datetime) -> list[Refund]:
    """Every refund made since then, whoever made it."""
    params: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100}
    return _refunds("list all refunds", params)


def _refunds(what: str, params: dict[str, Any]) -> list[Refund]:
    pages = _pages(what, params, lambda client, p: client.v1.refunds.list(p))
    return [Refund.parse(refund) for page in pages for refund in page]


# -- Events ---------------------------------------------------------------------------------------


def events_since(
    since: datetime, *, types: list[str], undelivered_only: bool
) -> Iterator[dict[str, Any]]:
    """Events of the ``types`` (at most 20), newest first, as their webhooks would have come.

    Stripe keeps them for 30 days: https://docs.stripe.com/api/events/list
    """
    params: Any = {"created": {"gte": int(since.timestamp())}, "types": types, "limit": 100}
    if undelivered_only:
        params["delivery_success"] = False
    for page in _pages("list events", params, lambda client, p: client.v1.events.list(p)):
        for event in page:
            # The SDK makes decimals of some numbers; on the wire they are strings.
            yield json.loads(json.dumps(event, default=str))


# -- Webhooks -------------------------------------------------------------------------------------


def verify_webhook(payload: bytes, signature: str) -> dict[str, Any]:
    """Return the event in ``payload`` if one of our secrets signed it, else ``InvalidWebhook``.

    Several secrets are valid while one is rotated; the SDK checks one at a time, and that the
    signature is no older than 300 s (https://docs.stripe.com/webhooks#verify-official-libraries).
    The JSON is returned as it came: the SDK's own objects hold decimals, which can't be stored.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise InvalidWebhook from None
    for secret in settings.STRIPE_WEBHOOK_SECRETS:
        try:
            stripe.WebhookSignature.verify_header(
                text, signature, secret, stripe.Webhook.DEFAULT_TOLERANCE
            )
        except stripe.SignatureVerificationError:
            continue
        except (ValueError, TypeError):
            raise InvalidWebhook from None
        return parsed_event(text)
    raise InvalidWebhook
