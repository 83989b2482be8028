"""What a probe, a monitor and a reader of the docs get; and what production refuses."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import OperationalError, connection
from django.test import Client

from offers.breaker import redis_breaker
from purchases import stripe_gateway, stripe_probe
from tests.conftest import buy, code
from tests.factories import OfferFactory, UserFactory
from tests.ports import own_port
from tests.sandbox_process import wait_for

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.django_db
def test_probes_are_green_when_all_is_well(sandbox: Any, client: Client) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ok",
        "postgresql": "ok",
        "redis": "ok",
        "stripe": "ok",
    }


@pytest.mark.django_db
def test_redis_away_is_degraded_and_still_ready(client: Client) -> None:
    redis_breaker.failed(OSError("away"))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["redis"]) == (200, "degraded")


def stripe_is(client: Client) -> str:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    said: str = answer.json()["stripe"]
    return said


@pytest.mark.django_db
def test_stripe_that_nobody_can_connect_to_is_degraded_before_anybody_buys(
    sandbox: Any, client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_probe, "PATIENCE", 30)  # to be sure of what is found
    assert stripe_is(client) == "ok"
    settings.STRIPE_API_BASE = f"http://127.0.0.1:{own_port()}"
    assert stripe_is(client) == "degraded"


@pytest.mark.django_db
def test_stripe_is_looked_at_again_after_a_while(
    sandbox: Any, client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_probe, "PATIENCE", 30)
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.STRIPE_API_BASE = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert stripe_is(client) == "ok"
    assert stripe_is(client) == "ok"  # not looked at each time
    monkeypatch.setattr(stripe_probe, "AGAIN", 0)
    assert stripe_is(client) == "degraded"


@pytest.mark.django_db
def test_look_that_hangs_is_not_waited_for(
    sandbox: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe_probe._address.cache_clear()
    go_on = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> None:
        go_on.wait(30)
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", hang)
    assert stripe_is(client) == "ok"  # it isn't known yet
    go_on.set()
    wait_for(lambda: stripe_is(client) == "degraded")
    stripe_probe._address.cache_clear()


@pytest.mark.django_db
def test_failure_of_a_call_is_forgotten_after_a_while(
    sandbox: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe_gateway._note(away=True)
    assert stripe_is(client) == "degraded"
    monkeypatch.setattr(stripe_gateway, "MEMORY", 0)
    assert stripe_is(client) == "ok"


def lost_connection(*args: Any) -> None:
    raise OperationalError("connection refused")


@pytest.mark.django_db
def test_database_away_is_not_ready_but_alive(client: Client) -> None:
    with connection.execute_wrapper(lost_connection):
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


@pytest.mark.django_db
def test_database_away_makes_the_api_busy_not_broken(client_of: Any) -> None:
    offer = OfferFactory(price=0)
    client = client_of(UserFactory())
    with connection.execute_wrapper(lost_connection):
        answer = buy(client, offer)
    assert (answer.status_code, code(answer)) == (503, "busy")
    assert "Retry-After" in answer.headers


@pytest.mark.django_db(transaction=True)
def test_lock_that_is_not_had_in_time_is_busy(client_of: Any) -> None:
    import threading

    from django.db import transaction

    from offers import inventory

    offer = OfferFactory(price=0)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            inventory.lock(offer.pk)
            held.set()
            done.wait(timeout=30)
        connection.close()

    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 50")
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(timeout=30)
    answer = buy(client_of(UserFactory()), offer)
    done.set()
    holder.join()
    with connection.cursor() as cursor:
        cursor.execute("RESET lock_timeout")
    assert (answer.status_code, code(answer)) == (503, "busy")
    assert "Retry-After" in answer.headers
    offer.refresh_from_db()
    assert (offer.inventory_reserved, offer.inventory_sold) == (0, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/v1/purchases/not-a-uuid/", "/api/v2/"])
def test_addresses_of_the_api_that_lead_nowhere_are_answered_in_json(
    client_of: Any, path: str
) -> None:
    answer = client_of(UserFactory()).get(path)
    assert (answer.status_code, code(answer)) == (404, "not_found")


@pytest.mark.django_db
def test_request_that_is_too_large_is_refused(client_of: Any) -> None:
    answer = client_of(UserFactory()).post(
        "/api/v1/purchases/", "x" * 3_000_000, content_type="application/json"
    )
    assert (answer.status_code, code(answer)) == (413, "request_too_large")


@pytest.mark.django_db
@pytest.mark.parametrize("token", ["", "x", "x.y.z"])
def test_token_of_no_use_is_one_error(client_of: Any, token: str) -> None:
    client = client_of()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}".strip())
    answer = client.get("/api/v1/purchases/")
    assert answer.status_code == 401
    assert [error["code"] for error in answer.json()["errors"]] == ["not_authenticated"]


@pytest.mark.django_db
def test_metrics_and_docs_are_served(client: Client) -> None:
    client.get("/livez")
    assert b"django_http_requests_total" in client.get("/metrics").content
    assert b"swagger-ui" in client.get("/api/v1/docs/").content
    schema = client.get("/api/v1/schema/").json()
    assert schema["openapi"].startswith("3.1")
    assert yaml.safe_load(client.get("/api/v1/schema/?format=yaml").content) == schema
    assert "/api/v1/purchases/{id}/cancel/" in schema["paths"]


PRODUCTION = {
    "LOCAL_RUN": "0",
    "WEBHOOK_ALLOW_LOOPBACK": "False",
    "DEBUG": "0",
    "SECRET_KEY": "0123456789abcdef" * 4,
    "STRIPE_SECRET_KEY": "rk_live_x",
    "STRIPE_WEBHOOK_SECRETS": "whsec_x",
    "ALLOWED_HOSTS": "shop.example.com",
}


def manage(*command: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *command],
        cwd=ROOT,
        env={**os.environ, **PRODUCTION, **changed},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["SECRET_KEY", "STRIPE_SECRET_KEY"])
def test_production_refuses_to_start_without_a_secret_and_names_it(name: str) -> None:
    refused = manage("check", **{name: ""})
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{name} is not set: ")
    assert refused.stderr.count("\n") == 1


def test_web_server_is_refused_the_same_sentence() -> None:
    refused = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import offers_project.wsgi"],
        cwd=ROOT,
        env={**os.environ, **PRODUCTION, "SECRET_KEY": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("SECRET_KEY is not set: ")
    assert refused.stderr.count("\n") == 1


def test_production_settings_pass_djangos_deployment_check() -> None:
    checked = manage("check", "--deploy", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"PURCHASE_RATE_LIMIT": "abc"},
        {"PURCHASE_RATE_LIMIT": "0/m"},
        {"LOGIN_RATE_LIMIT": "10/0m"},
        {"LOCK_TIMEOUT_MS": "0"},
        {"LOCK_TIMEOUT_MS": "4s"},
        {"DB_POOL_SIZE": "-1"},
        {"DATABASE_REPLICA_MAX_LAG": "1"},
        {"STRIPE_CONCURRENT_CALLS": "8", "GRANIAN_BLOCKING_THREADS": "8"},
        {"RESERVATION_MINUTES": "-1"},
        {"RESERVATION_MINUTES": "abc"},
        {"RESERVATION_MINUTES": "1e400"},
        {"MAX_QUANTITY_PER_PURCHASE": "0"},
        {"ACCESS_TOKEN_MINUTES": "0"},
        {"LOG_LEVEL": "loud"},
        {"LOG_FORMAT": "xml"},
        {"WEBHOOK_ALLOW_LOOPBACK": "True"},
    ],
    ids=str,
)
def test_setting_that_makes_no_sense_stops_the_start_and_is_named(wrong: dict[str, str]) -> None:
    refused = manage("check", **wrong)
    assert refused.returncode == 1
    assert refused.stderr.startswith(next(iter(wrong)))
    assert refused.stderr.count("\n") == 1


def test_database_of_another_kind_is_refused_with_a_sentence() -> None:
    refused = manage("check", DATABASE_URL="sqlite:///db.sqlite3")
    assert refused.returncode == 1
    assert "must name a PostgreSQL database" in refused.stderr


def test_blank_beside_a_comma_belongs_to_no_value() -> None:
    """Otherwise the second secret would be refused while the first one is replaced."""
    show = "from django.conf import settings as s; print(s.STRIPE_WEBHOOK_SECRETS, s.ALLOWED_HOSTS)"
    said = manage(
        "shell", "-v0", "-c", show,
        STRIPE_WEBHOOK_SECRETS="whsec_a, whsec_b ,", ALLOWED_HOSTS=" a.example, b.example",
    )  # fmt: skip
    assert said.stdout.strip() == "['whsec_a', 'whsec_b'] ['a.example', 'b.example']", said.stderr


def test_deployment_check_misses_the_webhook_secret() -> None:
    checked = manage("check", "--deploy", STRIPE_WEBHOOK_SECRETS="")
    assert "STRIPE_WEBHOOK_SECRETS is not set" in checked.stderr
