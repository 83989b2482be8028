"""What the sandbox says there is, read over HTTP, to be compared with what the service believes."""

from typing import Any

import requests

from tests.sandbox_process import SandboxProcess

PAGE = 100


class StripeView:
    """Stripe's objects as its API lists them, oldest first, and its events as they come."""

    def __init__(self, process: SandboxProcess) -> None:
        self._base = process.base_url
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = "Bearer sk_test_model"
        self._newest_event: str | None = None

    def close(self) -> None:
        self._http.close()

    def sessions(self) -> list[dict[str, Any]]:
        return self._all("checkout/sessions", {"expand[]": "data.payment_intent.latest_charge"})

    def refunds(self) -> list[dict[str, Any]]:
        return self._all("refunds", {})

    def new_events(self) -> list[dict[str, Any]]:
        """The events since the last call, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            cursor = {"ending_before": self._newest_event} if self._newest_event else {}
            page = self._get("events", {"limit": PAGE, **cursor})
            if not page["data"]:
                return found
            self._newest_event = page["data"][0]["id"]
            found += reversed(page["data"])

    def _all(self, kind: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            cursor = {"starting_after": found[-1]["id"]} if found else {}
            page = self._get(kind, {"limit": PAGE, **params, **cursor})
            found += page["data"]
            if not page["has_more"]:
                return found[::-1]

    def _get(self, kind: str, params: dict[str, Any]) -> Any:
        answer = self._http.get(f"{self._base}/v1/{kind}", params=params, timeout=30)
        answer.raise_for_status()
        return answer.json()


def intent_of(session: dict[str, Any]) -> str:
    """The id of the session's payment; "" as long as nobody has tried to pay."""
    return (session["payment_intent"] or {}).get("id", "")


def is_paid(session: dict[str, Any]) -> bool:
    return session["status"] == "complete" and session["payment_status"] == "paid"


def is_processing(session: dict[str, Any]) -> bool:
    """Paid by a delayed method that the bank has not decided on."""
    return (session["payment_intent"] or {}).get("status") == "processing"
