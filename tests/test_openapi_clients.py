"""Clients made from the OpenAPI document, and the commands of docs/api.md, buy in a real shop.

Over HTTP, with the demo data of `make run` and Stripe's sandbox, whose webhooks arrive by
themselves. Without Node.js, curl or jq their tests are skipped, and fail where CI is set.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from offers_project.local import demo_data
from purchases.models import Purchase
from tests.clients import node
from tests.conftest import WEBHOOK_SECRET, counters
from tests.sandbox_process import SandboxProcess, wait_for
from tests.service_processes import http

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()
HOODIE = "Conference hoodie"


class Shop:
    """What `make run` starts, as far as a purchase needs it: the addresses of its parts."""

    def __init__(self, url: str, stripe: SandboxProcess) -> None:
        self.url = url
        self.stripe = stripe

    def write_document(self, path: Path) -> None:
        answer = http("GET", f"{self.url}/api/v1/schema/", params={"format": "json"})
        path.write_text(answer.text)

    def the_purchase(self) -> Purchase:
        """The only one; its counters are right."""
        purchase = Purchase.objects.select_related("offer").get()
        assert counters(purchase.offer) == (0, purchase.quantity)
        return purchase


@pytest.fixture
def shop(live_server: Any, settings: Any) -> Iterator[Shop]:
    demo_data.create_demo(now=timezone.now())
    url = f"{live_server.url}/api/v1/webhooks/stripe/"
    stripe = SandboxProcess().start(webhook_url=url, webhook_secret=WEBHOOK_SECRET)
    settings.STRIPE_API_BASE = stripe.base_url
    yield Shop(live_server.url, stripe)
    # No webhook may arrive in the next test's database.
    wait_for(lambda: all(delivered(webhook) for webhook in stripe.get("webhooks")["data"]))
    stripe.stop()


def delivered(webhook: dict[str, Any]) -> bool:
    return bool(webhook["attempts"]) and webhook["attempts"][-1]["status"] == 200


# -- Python ---------------------------------------------------------------------------------------


@pytest.fixture
def python_client(shop: Shop, tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    """A function that imports a module of the client, which was generated a moment ago."""
    shop.write_document(tmp_path / "openapi.json")
    tools = Path(sys.executable).parent  # where the ruff is that formats the client
    subprocess.run(
        [
            *(tools / "openapi-python-client", "generate", "--meta", "none", "--fail-on-warning"),
            *("--path", tmp_path / "openapi.json", "--output-path", tmp_path / "offers_client"),
        ],
        env={**os.environ, "PATH": os.pathsep.join([str(tools), os.environ["PATH"]])},
        check=True,
        capture_output=True,
        timeout=100,
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"offers_client.{name}".rstrip("."))
    for name in [name for name in sys.modules if name.split(".")[0] == "offers_client"]:
        del sys.modules[name]


def test_generated_python_client_buys(shop: Shop, python_client: Any) -> None:
    client, models = python_client("client"), python_client("models")
    auth, offers, purchases = (
        python_client(f"api.{name}")
        for name in (
            "auth.auth_token_create",
            "offers.offers_list",
            "purchases.purchases_create",
        )
    )
    look = python_client("api.purchases.purchases_retrieve")
    options: Any = {"base_url": shop.url, "httpx_args": {"trust_env": False}}

    who = models.TokenObtainPairRequest(username="attendee1", password="attendee1")
    with client.Client(**options) as anybody:
        refused = auth.sync(
            client=anybody,
            body=models.TokenObtainPairRequest(username="attendee1", password="wrong"),
        )
        token = auth.sync(client=anybody, body=who)
    assert isinstance(refused, models.AuthTokenCreateErrorResponse401)
    assert refused.errors[0].code == "no_active_account"

    with client.AuthenticatedClient(token=token.access, **options) as attendee:
        listed = offers.sync(client=attendee, event="demo-conf")
        offer = next(offer for offer in listed.results if offer.title == HOODIE)
        assert (offer.price, offer.currency, offer.inventory.available) == ("39.00", "USD", 200)

        def buy(quantity: int, key: str) -> Any:
            body = models.PurchaseRequest(offer=offer.id, quantity=quantity)
            return purchases.sync_detailed(client=attendee, body=body, idempotency_key=key)

        key = str(uuid.uuid4())
        first, again, other = buy(2, key), buy(2, key), buy(1, key)
        assert [answer.status_code for answer in (first, again, other)] == [201, 200, 422]
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.parsed.id == first.parsed.id
        assert other.parsed.errors[0].code == "idempotency_key_reused"
        assert first.parsed.status == "awaiting_payment"
        shop.stripe.control(f"sessions/{first.parsed.checkout_session_id}/pay")

        def paid() -> Any:
            purchase = look.sync(id=first.parsed.id, client=attendee)
            return purchase if purchase.status == "paid" else None

        purchase = wait_for(paid)
    assert (purchase.total_price, purchase.checkout_url) == ("78.00", None)
    assert purchase.id == shop.the_purchase().pk
    assert purchase.paid_at == shop.the_purchase().paid_at


# -- TypeScript -----------------------------------------------------------------------------------


@pytest.fixture
def with_node() -> None:
    try:
        node.find()
    except node.NoNode as missing:
        if missing.is_failure:
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    node.install()


@pytest.mark.timeout(240)  # the first time, the packages are installed
def test_generated_typescript_client_compiles_strictly_and_buys(
    with_node: None, shop: Shop, tmp_path: Path
) -> None:
    for name in ("buy.ts", "tsconfig.json", "package.json"):
        shutil.copy(node.HERE / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(node.MODULES)
    shop.write_document(tmp_path / "openapi.json")
    node.run("openapi-typescript", "openapi.json", "--output", "schema.ts", cwd=tmp_path)
    node.run("tsc", "--project", ".", cwd=tmp_path)
    printed = node.run("node", "buy.js", shop.url, shop.stripe.base_url, cwd=tmp_path)
    happened = json.loads(printed)
    assert happened.pop("id") == str(shop.the_purchase().pk)
    assert happened == {
        "price": "78.00 USD",
        "answers": [201, 200, 422],
        "replayed": [False, True],
        "same": True,
        "code": "idempotency_key_reused",
        "status": "paid",
        # No worker runs here that would take it on.
        "parcel": None,
    }


# -- curl -----------------------------------------------------------------------------------------

BLOCK = re.compile(r"```(sh)?\n(.*?)\n```", re.DOTALL)


def walk() -> tuple[str, str]:
    """The commands of docs/api.md that lead through a purchase, and what it says they print."""
    blocks = BLOCK.findall(PAGE.split("\n## A client of your own")[0])
    commands = "\n".join(text for kind, text in blocks if kind)
    return commands, "\n".join(text for kind, text in blocks if not kind)


def test_commands_of_the_page_print_what_it_says(shop: Shop, tmp_path: Path) -> None:
    missing = [program for program in ("curl", "jq") if shutil.which(program) is None]
    if missing:
        says = f"No {' and no '.join(missing)}: install it to try the commands of docs/api.md."
        if os.environ.get("CI"):
            pytest.fail(says, pytrace=False)
        pytest.skip(says)
    commands, printed = walk()
    for name, value in (("API", f"{shop.url}/api/v1"), ("STRIPE", shop.stripe.base_url)):
        commands, found = re.subn(rf"^{name}=.*$", f"{name}={value}", commands, flags=re.MULTILINE)
        assert found == 1
    done = subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "127.0.0.1,localhost"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")
    assert shop.the_purchase().status == "paid"


def test_page_names_the_commands_that_the_tests_run() -> None:
    client = PAGE.split("\n## A client of your own")[1]
    for option in ("openapi-python-client generate", "--meta none", "npx openapi-typescript"):
        assert option in client
    npm = json.loads((node.HERE / "package.json").read_text())
    for package in ("openapi-fetch", "openapi-typescript", "typescript"):
        assert package in client
        assert package in {**npm["dependencies"], **npm["devDependencies"]}


def test_lock_file_names_no_registry() -> None:
    lock = json.loads((node.HERE / "package-lock.json").read_text())
    assert lock["packages"]
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
