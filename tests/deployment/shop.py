"""What is for sale in a deployed stack, who buys, and what the database has afterwards."""

import json
import subprocess
import sys
import uuid
from typing import Any

import psycopg
import requests

from offers_project.local.environment import ROOT
from tests.deployment.stack import Stack

PURCHASES = "/api/v1/purchases/"
ANSWER_SECONDS = 30.0

# A process of `web`'s, past HTTP: runs the code of each line, and answers what that calls `result`.
CONSOLE = """
import json, sys, traceback
from django.core.management import call_command
from django.contrib.auth.models import User
from rest_framework_simplejwt.tokens import AccessToken
from tests import factories
from purchases.models import Purchase
for line in sys.stdin:
    names = dict(globals())
    try:
        exec(json.loads(line), names)
    except Exception:
        said = {"error": traceback.format_exc()}
    else:
        said = {"result": names.get("result")}
    print(json.dumps({"said": said}), flush=True)
"""
OFFER = """
offer = factories.OfferFactory(inventory_total={total}, price="{price}")
result = [str(offer.pk), offer.event.slug]
"""
BUYERS = """
# Past the factory, whose passwords take production's hasher half a second each.
users = User.objects.bulk_create(
    User(username="{prefix}-" + str(number), password="!") for number in range({how_many})
)
result = [str(AccessToken.for_user(user)) for user in users]
"""


class Buyer:
    """Somebody with a token, on connections of their own."""

    def __init__(self, stack: Stack, token: str) -> None:
        self._stack = stack
        self.http = stack.client()
        self.http.headers["Authorization"] = f"Bearer {token}"

    def buy(self, offer: str, key: str | None = None) -> requests.Response:
        headers = {"Idempotency-Key": key} if key else {}
        wanted = {"offer": offer, "quantity": 1}
        return self.post(PURCHASES, json=wanted, headers=headers)

    def status_of(self, purchase: str) -> str:
        return str(self.get(f"{PURCHASES}{purchase}/").json()["status"])

    def get(self, path: str) -> requests.Response:
        return self.http.get(self._stack.url + path, timeout=ANSWER_SECONDS, allow_redirects=False)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.http.post(
            self._stack.url + path, timeout=ANSWER_SECONDS, allow_redirects=False, **options
        )


class Shop:
    """Rows are made with the environment of `web`, that is, through the pooler."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._console = subprocess.Popen(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", CONSOLE],
            cwd=ROOT,
            env=stack.environment("web"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def offer(self, *, total: int = 100_000, price: str = "0") -> tuple[str, str]:
        """The id of a new offer, and its event's slug."""
        offer, event = self.run(OFFER.format(total=total, price=price))
        return offer, event

    def buyers(self, how_many: int) -> list[Buyer]:
        code = BUYERS.format(prefix=uuid.uuid4().hex, how_many=how_many)
        return [Buyer(self.stack, token) for token in self.run(code)]

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Asked of PostgreSQL itself."""
        with psycopg.connect(self.stack.postgres.url, autocommit=True) as connection:
            return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]

    def counters(self, offer: str) -> tuple[int, int]:
        """(reserved, sold), compared with the purchases by the command that does that."""
        self.run("call_command('check_inventory', stdout=sys.stderr)")
        ((reserved, sold),) = self.query(
            "SELECT inventory_reserved, inventory_sold FROM offers_offer WHERE id = %s", offer
        )
        return reserved, sold

    def run(self, code: str) -> Any:
        """Run Python with the environment of `web`; returns what it calls `result`."""
        pipes = self._console
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        pipes.stdin.write(json.dumps(code) + "\n")
        pipes.stdin.flush()
        for line in pipes.stdout:
            if line.startswith('{"said":'):  # the others are its log
                said = json.loads(line)["said"]
                assert "error" not in said, said["error"]
                return said["result"]
        raise AssertionError("the console has ended")

    def close(self) -> None:
        for pipe in (self._console.stdin, self._console.stdout):
            assert pipe is not None
            pipe.close()
        self._console.wait(timeout=30)
