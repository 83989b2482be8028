"""Settings, most of the content's storage: what they make, what they say when they make none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from offers_project.local import environment
from offers_project.local.environment import ROOT

SHOW = (
    "import django; django.setup(); "
    "from fulfillment.digital.storage import content_storage as made; "
    "print(type(made()).__name__, getattr(made(), 'location', ''))"
)


def start(program: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "offers_project.settings", **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"CONTENT_STORAGE_OPTIONS": "{bucket"}, "CONTENT_STORAGE_OPTIONS is no JSON object"),
        ({"CONTENT_STORAGE_OPTIONS": "[1]"}, "CONTENT_STORAGE_OPTIONS is no JSON object"),
        ({"CONTENT_STORAGE": "nowhere.Storage"}, "CONTENT_STORAGE with"),
        ({"CONTENT_STORAGE_OPTIONS": '{"bucket": "x"}'}, "CONTENT_STORAGE with"),
        ({"CONTENT_LINK_HOURS": "soon"}, "CONTENT_LINK_HOURS is 'soon'"),
        ({"CONTENT_LINK_HOURS": "0"}, "CONTENT_LINK_HOURS is '0'"),
        ({"REQUESTS_AT_ONCE": "0.5"}, "REQUESTS_AT_ONCE is 0.5: use a whole number"),
    ],
    ids=["no JSON", "a list", "unknown backend", "unknown option", "no number", "zero", "a part"],
)
def test_setting_that_makes_no_sense_stops_the_start_with_a_sentence(
    env: dict[str, str], said: str
) -> None:
    started = start(["manage.py", "state_diagram"], **env)
    assert started.returncode == 1
    assert started.stderr.startswith(said)
    assert started.stderr.count("\n") == 1


def test_content_lies_where_the_settings_say(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    made = start(["-c", SHOW], CONTENT_DIR=str(folder))
    assert made.stdout.split(" ", 1) == ["FileSystemStorage", f"{folder}\n"], made.stderr
    default = start(["-c", SHOW], CONTENT_DIR="", CONTENT_STORAGE="", CONTENT_STORAGE_OPTIONS="")
    assert default.stdout == f"FileSystemStorage {ROOT / '.content'}\n"
    other = start(
        ["-c", SHOW],
        CONTENT_STORAGE="django.core.files.storage.InMemoryStorage",
        CONTENT_STORAGE_OPTIONS=json.dumps({"location": "/memory"}),
    )
    assert other.stdout.startswith("InMemoryStorage")


def test_local_run_keeps_content_in_its_data_folder(tmp_path: Path) -> None:
    secrets = dict.fromkeys(("SECRET_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS"), "x")
    supplied = environment.supplied(
        folder=tmp_path, host="127.0.0.1", url="http://x", secrets=secrets
    )
    assert supplied["CONTENT_DIR"] == str(tmp_path / "content")
    assert "CONTENT_DIR" in environment.SETTINGS
