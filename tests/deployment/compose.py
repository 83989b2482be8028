"""docker-compose.yml and Dockerfile as data: what each container runs, with which environment."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from offers_project.local.environment import ROOT

FILE = ROOT / "docker-compose.yml"
DEPLOY = ROOT / "docs" / "deploy"
# ${NAME} and ${NAME:-default}; a default may have variables of its own.
VARIABLE = re.compile(r"\$\{(\w+)(?::-((?:[^${}]|\$\{[^{}]*\})*))?\}")


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """What compose makes of a string: https://docs.docker.com/reference/compose-file/interpolation/."""
    before, text = "", text.replace("$$", "\0")
    while text != before:
        before = text
        text = VARIABLE.sub(lambda found: values.get(found[1]) or found[2] or "", text)
    return text.replace("\0", "$")


def _throughout(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return interpolated(value, values)
    if isinstance(value, list):
        return [_throughout(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _throughout(item, values) for key, item in value.items()}
    return value


def services(values: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services, with ``values`` as the .env file."""
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return dict(_throughout(document["services"], values or {}))


def image() -> tuple[list[str], list[str]]:
    """The command and the health check of the image that the Dockerfile makes."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    command = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    check = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    assert command is not None
    assert check is not None
    return json.loads(command[1]), json.loads(check[1])


def image_environment() -> dict[str, str]:
    """What the Dockerfile sets."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    line = re.search(r"^ENV (.*)$", text, re.MULTILINE)
    assert line is not None
    return dict(word.split("=", 1) for word in line[1].split())


def command_of(service: dict[str, Any]) -> list[str]:
    """Entry point and command; the image's where the service has none."""
    if "command" not in service:
        return image()[0]
    return [*service.get("entrypoint", []), *service["command"]]


def check_of(service: dict[str, Any]) -> list[str]:
    """The health check's command, as it is run."""
    if "healthcheck" not in service:
        return image()[1]
    how, *command = service["healthcheck"]["test"]
    return command if how == "CMD" else ["sh", "-c", *command]
