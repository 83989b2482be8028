"""`make run` from the outside: real processes, one after another on one data folder."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from offers_project.local import ports
from offers_project.local.environment import ROOT
from tests.local_processes import (
    Run,
    clean_environment,
    processes_of,
    wait_for,
    wait_for_nothing_left,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.xdist_group("local run"),  # they share a folder
    pytest.mark.timeout(120),
]

STOP_SECONDS = 10.0


def manage(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """`python manage.py …` as from another shell."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=clean_environment(DATA_DIR=str(data_dir)),
        capture_output=True,
        text=True,
    )


def ask(run: Run, expression: str) -> float:
    """The number that another process, with Django set up, says this is."""
    program = (
        "from django.conf import settings; from django.contrib.auth.models import User; "
        f"print('answer', {expression})"
    )
    answer = manage("shell", "--no-imports", "-c", program, data_dir=run.folder)
    assert answer.returncode == 0, answer.stderr
    return float(answer.stdout.split("answer ")[1])


def is_serving(run: Run) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{run.port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A space and letters beyond ASCII: people have such folders.
    return tmp_path_factory.mktemp("local run") / "dät a"


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    """The run that most tests look at; the ones that end it come last."""
    run = Run(folder, RESERVATION_MINUTES="0.2")
    try:
        yield run.wait_until_ready()
    finally:
        run.kill_all()


def test_it_says_where_it_is_ready_and_where_the_sandbox_is(run: Run) -> None:
    assert run.line("ready: ") == f"http://127.0.0.1:{run.port}"
    assert run.line("stripe sandbox: ").startswith("http://127.0.0.1:")
    assert is_serving(run)


def test_it_says_where_the_e_mails_are_and_a_command_prints_them(run: Run) -> None:
    said = run.line("mail: ")
    assert said == f"http://127.0.0.1:{run.port}/mail/"
    with urllib.request.urlopen(said, timeout=5) as page:
        assert "There are none yet" in page.read().decode()
    send = (
        "from django.core.mail import send_mail; send_mail('Hello', 'Bye', None, ['a@b.example'])"
    )
    assert manage("shell", "--no-imports", "-c", send, data_dir=run.folder).returncode == 0
    assert "Subject: Hello\n" in manage("mailbox", data_dir=run.folder).stdout
    with urllib.request.urlopen(said, timeout=5) as page:
        assert "Hello" in page.read().decode()


def test_a_command_in_another_shell_finds_the_run_and_its_settings(run: Run) -> None:
    assert ask(run, "User.objects.count()") > 60
    assert ask(run, "settings.RESERVATION_MINUTES") == 0.2


def test_the_secrets_are_only_their_owners_to_read(run: Run) -> None:
    for name in ("run.json", "kept.json", "postgres.password", "valkey/valkey.conf"):
        assert (run.folder / name).stat().st_mode & 0o077 == 0, name


def test_a_second_run_in_the_same_folder_names_the_first(run: Run) -> None:
    second = Run(run.folder)
    assert second.make.wait(20) != 0
    assert f"A run is up in {run.folder} already (pid {run.supervisor})" in second.text
    assert "PostgreSQL" not in second.text
    assert is_serving(run)


@pytest.mark.parametrize(
    "words", ["granian", "celery", "stripe_sandbox", "valkey-server", "bin/postgres"]
)
def test_a_part_that_is_killed_is_started_again_on_its_port(run: Run, words: str) -> None:
    said = run.text.count("started again")
    killed = run.pid_of(words)
    published = json.loads((run.folder / "run.json").read_text())
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: run.text.count("started again") == said + 1, "the line about it")
    assert "killed by SIGKILL" in run.text
    wait_for(lambda: is_serving(run), "the web server answers")
    assert killed not in processes_of(run.folder)
    assert json.loads((run.folder / "run.json").read_text()) == published
    sandbox = int(published["sandbox_url"].rpartition(":")[2])
    wait_for(lambda: ports.answers(sandbox), "the sandbox answers")


def test_sigterm_ends_every_child_within_ten_seconds(run: Run) -> None:
    begun = time.monotonic()
    os.kill(run.supervisor, signal.SIGTERM)
    assert run.wait_for_end(timeout=STOP_SECONDS) == 0
    wait_for_nothing_left(run.folder, timeout=STOP_SECONDS - (time.monotonic() - begun))
    assert "stopped" in run.text
    assert not (run.folder / "run.json").exists()


def test_without_a_run_a_command_says_so_in_one_sentence(folder: Path) -> None:
    answer = manage("check_inventory", data_dir=folder)
    assert answer.returncode == 1
    assert answer.stderr == (
        f'No local run is up in {folder}: start one with "make run", or set DATABASE_URL.\n'
    )


def test_a_later_run_keeps_the_data_and_its_sigkill_leaves_nothing(folder: Path) -> None:
    killed = Run(folder)
    following = None
    try:
        killed.wait_until_ready()
        assert "demo data" not in killed.text  # loaded by the first
        os.kill(killed.supervisor, signal.SIGKILL)
        assert killed.wait_for_end() != 0
        # At once, while the guard still ends the children of the killed one.
        following = Run(folder)
        following.wait_until_ready()
        assert all(is_after(pid, following.make.pid) for pid in processes_of(folder))
        assert ask(following, "User.objects.count()") > 60
        # To make alone, as `kill -INT` does; a terminal would send it to both.
        os.kill(following.make.pid, signal.SIGINT)
        following.wait_for_end(timeout=STOP_SECONDS)
        wait_for_nothing_left(folder, timeout=1)
        assert "stopped" in following.text
    finally:
        for run in filter(None, (killed, following)):
            run.kill_all()


def is_after(pid: int, other: int) -> bool:
    """Whether the process `pid` was started no earlier than `other`."""

    def started(number: int) -> int:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19])

    return started(pid) >= started(other)
