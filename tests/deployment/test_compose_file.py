"""What docker-compose.yml promises, read from it."""

import re
import subprocess
import sys
from typing import Any

import pytest

from offers_project.local.environment import ROOT
from tests.deployment import compose

SERVICES = compose.services()
DATA = {"postgres", "pgbouncer", "valkey"}
APPLICATION = {"web", "worker", "bulk-worker", "beat", "migrate"}


def test_compose_file_is_what_the_specification_allows() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(compose.FILE)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    if name == "migrate":
        assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})
        return
    assert service["restart"] == "unless-stopped"
    assert compose.check_of(service)


def test_nobody_is_root() -> None:
    assert {name for name in SERVICES if "user" not in SERVICES[name]} == APPLICATION
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["offers"]
    assert not {"root", "0", "0:0"} & {service.get("user") for service in SERVICES.values()}


def test_only_the_proxy_is_published_and_data_has_no_way_out() -> None:
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["proxy"]
    networks = {name: set(SERVICES[name]["networks"]) for name in SERVICES}
    assert {name for name in networks if networks[name] == {"inside"}} == DATA
    assert {name for name in networks if "inside" in networks[name]} == DATA | APPLICATION
    published = [address.rpartition(":")[0] for address in SERVICES["proxy"]["ports"]]
    assert published == ["127.0.0.1:8000", "127.0.0.1:8443", "127.0.0.1:8025"]


def test_every_variable_is_among_the_settings() -> None:
    named = set(re.findall(r"(?<!\$)\$\{(\w+)", compose.FILE.read_text(encoding="utf-8")))
    listed = set(
        re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    )
    assert named - listed == {"COMPOSE_PROJECT_NAME"}  # compose's own


@pytest.mark.parametrize(
    ("values", "web", "migrate"),
    [
        ({}, "postgres://offers:offers@pgbouncer:6432/offers", "@postgres:5432/offers"),
        ({"POSTGRES_PASSWORD": "pw"}, "postgres://offers:pw@pgbouncer", "offers:pw@postgres:5432"),
        ({"DATABASE_URL": "postgres://elsewhere/x"}, "postgres://elsewhere/x", "elsewhere/x"),
        (
            {"DATABASE_URL": "postgres://pooler/x", "DIRECT_DATABASE_URL": "postgres://direct/x"},
            "postgres://pooler/x",
            "postgres://direct/x",
        ),
    ],
)
def test_requests_go_through_the_pooler_and_migrations_do_not(
    values: dict[str, str], web: str, migrate: str
) -> None:
    def environment(name: str) -> dict[str, Any]:
        return dict(compose.services(values)[name]["environment"])

    assert web in environment("web")["DATABASE_URL"]
    assert environment("worker")["DATABASE_URL"] == environment("web")["DATABASE_URL"]
    assert environment("web")["DATABASE_POOLER"] == "transaction"
    assert migrate in environment("migrate")["DATABASE_URL"]
    assert environment("migrate")["DATABASE_POOLER"] == "none"


def test_containers_have_time_to_end_what_they_are_at() -> None:
    command, _ = compose.image()
    kill_after = int(command[command.index("--workers-kill-timeout") + 1])
    grace = {name: SERVICES[name].get("stop_grace_period", "") for name in SERVICES}
    assert int(grace["web"].removesuffix("s")) > kill_after + 5  # DRAIN_SECONDS
    assert grace["worker"] == "1m"
