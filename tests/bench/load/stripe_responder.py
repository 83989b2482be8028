"""Stripe, canned: Checkout Sessions as quickly as Python can answer, or as late as it is told to.

It keeps nothing but the sessions' ids: a session's state is in its id's history of calls, of which
the benchmark asks no more than create, expire and retrieve. Run it as a program; it says
``listening on PORT``. How it behaves is set over HTTP too: ``POST /bench`` with ``latency`` in
seconds and ``limit`` in requests a second (0: none; beyond it: 429).
"""

import asyncio
import itertools
import sys
import time
from urllib.parse import parse_qsl

ADDRESS = "127.0.0.1"
SESSION = """{
  "id": "%(id)s",
  "object": "checkout.session",
  "adaptive_pricing": {"enabled": false},
  "after_expiration": null,
  "allow_promotion_codes": null,
  "amount_subtotal": %(amount)s,
  "amount_total": %(amount)s,
  "automatic_tax": {"enabled": false, "liability": null, "provider": null, "status": null},
  "billing_address_collection": null,
  "cancel_url": "%(cancel_url)s",
  "client_reference_id": "%(client_reference_id)s",
  "client_secret": null,
  "collected_information": null,
  "consent": null,
  "consent_collection": null,
  "created": %(created)s,
  "currency": "%(currency)s",
  "currency_conversion": null,
  "custom_fields": [],
  "custom_text": {"after_submit": null, "shipping_address": null, "submit": null,
    "terms_of_service_acceptance": null},
  "customer": null,
  "customer_creation": "if_required",
  "customer_details": null,
  "customer_email": null,
  "discounts": [],
  "expires_at": %(expires_at)s,
  "invoice": null,
  "invoice_creation": null,
  "livemode": false,
  "locale": "%(locale)s",
  "metadata": {"purchase": "%(client_reference_id)s", "offer": "%(offer)s"},
  "mode": "payment",
  "origin_context": null,
  "payment_intent": null,
  "payment_link": null,
  "payment_method_collection": "if_required",
  "payment_method_configuration_details": null,
  "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
  "payment_method_types": ["card"],
  "payment_status": "unpaid",
  "permissions": null,
  "phone_number_collection": {"enabled": false},
  "recovered_from": null,
  "saved_payment_method_options": null,
  "setup_intent": null,
  "shipping_address_collection": null,
  "shipping_cost": null,
  "shipping_options": [],
  "status": "%(status)s",
  "submit_type": null,
  "subscription": null,
  "success_url": "%(success_url)s",
  "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
  "ui_mode": "hosted_page",
  "url": %(url)s,
  "wallet_options": null
}"""
TOO_MANY = (
    b'{"error": {"code": "rate_limit", "message": "Request rate limit exceeded.", '
    b'"type": "invalid_request_error"}}'
)
UNKNOWN = b'{"error": {"message": "Unrecognized request URL.", "type": "invalid_request_error"}}'
REASONS = {200: b"OK", 404: b"Not Found", 429: b"Too Many Requests"}
HEAD = (
    b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nRequest-Id: req_%d\r\n"
    b"Stripe-Version: 2025-09-30.clover\r\nContent-Length: %d\r\n\r\n%b"
)


class State:
    """What all connections share."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.limit = 0.0
        self.requests = 0
        self.refused = 0
        self._numbers = itertools.count(1)
        self._allowance = 0.0
        self._looked_at = time.monotonic()

    def answer(self, method: bytes, path: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and JSON."""
        if path == b"/bench":
            return 200, self._settings(body)
        self.requests += 1
        if self.limit and not self._is_within_the_limit():
            self.refused += 1
            return 429, TOO_MANY
        if path == b"/v1/checkout/sessions" and method == b"POST":
            return 200, self._created(dict(parse_qsl(body.decode(), keep_blank_values=True)))
        if path.startswith(b"/v1/checkout/sessions/cs_"):
            session, _, act = path[22:].partition(b"?")[0].partition(b"/")
            return 200, self._existing(session.decode(), ended=act == b"expire")
        return 404, UNKNOWN

    def _settings(self, body: bytes) -> bytes:
        wanted = dict(parse_qsl(body.decode()))
        self.latency = float(wanted.get("latency", self.latency))
        self.limit = float(wanted.get("limit", self.limit))
        if wanted:
            self.requests = self.refused = 0
        return b'{"requests": %d, "refused": %d}' % (self.requests, self.refused)

    def _is_within_the_limit(self) -> bool:
        """As a bucket that holds a second's requests, which is filled all the time."""
        now = time.monotonic()
        refill = (now - self._looked_at) * self.limit
        self._looked_at = now
        self._allowance = min(self.limit, self._allowance + refill)
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _created(self, asked: dict[str, str]) -> bytes:
        number = next(self._numbers)
        session = f"cs_test_{time.time_ns():x}{number:042d}"
        quantity = int(asked.get("line_items[0][quantity]", "1"))
        amount = int(asked.get("line_items[0][price_data][unit_amount]", "0"))
        text = SESSION % {
            "id": session,
            "amount": amount * quantity,
            "currency": asked.get("line_items[0][price_data][currency]", "usd"),
            "cancel_url": asked.get("cancel_url", ""),
            "success_url": asked.get("success_url", ""),
            "client_reference_id": asked.get("client_reference_id", ""),
            "offer": asked.get("metadata[offer]", ""),
            "locale": asked.get("locale", "auto"),
            "created": int(time.time()),
            "expires_at": asked.get("expires_at", "0"),
            "status": "open",
            "url": f'"https://checkout.stripe.com/c/pay/{session}"',
        }
        return text.encode()

    def _existing(self, session: str, *, ended: bool) -> bytes:
        now = int(time.time())
        return (
            SESSION
            % {
                **dict.fromkeys(("cancel_url", "success_url", "client_reference_id", "offer"), ""),
                "id": session,
                "amount": 0,
                "currency": "usd",
                "locale": "en",
                "created": now,
                "expires_at": now,
                "status": "expired" if ended else "open",
                "url": "null",
            }
        ).encode()


class Responder(asyncio.Protocol):
    """One connection; a request on it begins when the last one was answered."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._received = data
            return
        head = data[:end].lower()
        place = head.find(b"\r\ncontent-length:")
        length = int(head[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(data) < end + 4 + length:
            self._received = data
            return
        self._received = b""
        method, path, _ = data[: data.find(b"\r\n")].split(b" ")
        status, text = self._state.answer(method, path, data[end + 4 :])
        answer = HEAD % (status, REASONS[status], self._state.requests, len(text), text)
        if self._state.latency and path != b"/bench":
            self._loop.call_later(self._state.latency, self._transport.write, answer)
        else:
            self._transport.write(answer)


async def main() -> None:
    """Serve until the process is ended."""
    state = State()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Responder(state), ADDRESS, 0, backlog=512)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
