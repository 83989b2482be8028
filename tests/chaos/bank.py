"""Stripe's side of the storm: what buyers and banks do there, and what it has on record."""

from collections.abc import Iterator
from typing import Any

import requests

TIMEOUT_SECONDS = 60.0
CONTROL_PROBLEMS = (404, 409)


class Bank:
    """The sandbox's control calls, and its API as an auditor would read it. One for each thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = "Bearer sk_test_auditor"

    def act(self, session_id: str, act: str) -> bool:
        """`pay`, `decline`, `pay_async` … at a session; false if it is too late for that."""
        answer = self._http.post(
            f"{self.url}/sandbox/sessions/{session_id}/{act}", timeout=TIMEOUT_SECONDS
        )
        if answer.status_code in CONTROL_PROBLEMS:
            return False
        answer.raise_for_status()
        return True

    def set_faults(self, **faults: Any) -> None:
        """These faults and no others from now on."""
        self._http.post(
            f"{self.url}/sandbox/faults", json=faults, timeout=TIMEOUT_SECONDS
        ).raise_for_status()

    def sessions(self) -> list[dict[str, Any]]:
        """Every Checkout Session."""
        return list(self._listed("checkout/sessions"))

    def refunds(self) -> list[dict[str, Any]]:
        """Every refund."""
        return list(self._listed("refunds"))

    def intent(self, intent_id: str) -> dict[str, Any]:
        """One PaymentIntent."""
        return self._get(f"/v1/payment_intents/{intent_id}")

    def deliveries(self) -> list[dict[str, Any]]:
        """Every webhook, with the answers it got."""
        found: list[dict[str, Any]] = self._get("/sandbox/webhooks")["data"]
        return found

    def _listed(self, kind: str) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self._get(f"/v1/{kind}?limit=100{after}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&starting_after={page['data'][-1]['id']}"

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._http.get(self.url + path, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
