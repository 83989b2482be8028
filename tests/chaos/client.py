"""One person's HTTP client: every answer is held against the contract and written down."""

import threading
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import requests

from tests.chaos.journal import Journal

# Longer than a purchase may take while Stripe hangs: whoever waits longer has got no answer.
TIMEOUT_SECONDS = 30.0
LONGEST_PAUSE = 3.0
TRIES = 8


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    codes: list[str]
    replayed: bool
    retry_after: float


class Client:
    """Requests of one user, one at a time; `twin` is for a second one beside it."""

    def __init__(self, url: str, name: str, journal: Journal, over: threading.Event) -> None:
        self.name = name
        self.journal = journal
        self._url = url
        self._over = over
        self._token = ""
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy has no business between this and loopback

    def twin(self) -> "Client":
        """The same user on another connection."""
        twin = Client(self._url, self.name, self.journal, self._over)
        twin._token = self._token
        return twin

    def log_in(self, rng: Random) -> bool:
        """Get a token; false if the storm was over before there was one."""
        credentials = {"username": self.name, "password": self.name}
        while not self._over.is_set():
            answer = self.call("log in", "POST", "auth/token/", json=credentials)
            if answer is not None and answer.status == 200:
                self._token = answer.body["access"]
                return True
            self.pause(answer, rng)
        return False

    def call(
        self, call: str, method: str, path: str, *, json: Any = None, key: str = ""
    ) -> Answer | None:
        """Send one request; None if there was no answer. `call` is its name in the contract."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if key:
            headers["Idempotency-Key"] = key
        begun = time.monotonic()
        try:
            response = self._http.request(
                method,
                f"{self._url}/api/v1/{path}",
                json=json,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
            )
        except requests.Timeout:
            self.journal.note_silence(call, "time-out")
            return None
        except requests.RequestException:
            self.journal.note_silence(call, "connection")
            return None
        self.journal.note_seconds(call, time.monotonic() - begun)
        return self._read(call, response)

    def call_patiently(
        self, call: str, method: str, path: str, rng: Random, *, json: Any = None, key: str = ""
    ) -> Answer | None:
        """Send it again while the answer is "not now", or none; the last answer."""
        answer = None
        for _ in range(TRIES):
            answer = self.call(call, method, path, json=json, key=key)
            if answer is not None and not _is_passing(answer):
                break
            if self.pause(answer, rng):
                break
        return answer

    def pause(self, answer: Answer | None, rng: Random) -> bool:
        """Wait as the answer asks, but not for ever; true if the storm is over."""
        wanted = answer.retry_after if answer is not None else 0.5
        return self._over.wait(min(wanted, LONGEST_PAUSE) + rng.uniform(0, 0.5))

    def _read(self, call: str, response: requests.Response) -> Answer:
        try:
            body = response.json() if response.content else None
        except ValueError:
            body = None
        codes = []
        if response.status_code >= 400:
            errors = body.get("errors") if isinstance(body, dict) else None
            codes = [error["code"] for error in errors] if errors else ["not the errors' shape"]
        if not (call == "refund" and response.status_code in (404, 405)):
            self.journal.note_answer(
                call,
                response.status_code,
                sorted(set(codes)),
                response.text,
                retry_after="Retry-After" in response.headers,
            )
        return Answer(
            response.status_code,
            body,
            codes,
            response.headers.get("Idempotent-Replayed") == "true",
            float(response.headers.get("Retry-After", 1)),
        )


def _is_passing(answer: Answer) -> bool:
    return answer.status in (429, 503) or "idempotency_key_in_use" in answer.codes
