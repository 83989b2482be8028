"""What a local run supplies, what it says when it can't start, and the Makefile before it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environ
import pytest

from offers_project.local import environment, ports
from offers_project.local.data_folder import DataFolder
from offers_project.local.environment import ROOT, NoLocalRun
from tests.local_processes import clean_environment
from tests.ports import own_port

SECRETS = dict.fromkeys(("SECRET_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS"), "x")


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell without our settings, and a repository without a `.env`."""
    for name in environment.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


def publish(folder: Path, **env: str) -> DataFolder:
    """A folder whose run, this process, is up with these settings."""
    data = DataFolder(folder)
    data.lock()
    data.publish_run({"pid": os.getpid(), "env": env})
    return data


def release(data: DataFolder) -> None:
    assert data.lock_file is not None
    data.lock_file.close()


@pytest.mark.usefixtures("nothing_set")
def test_without_a_run_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NoLocalRun) as said:
        environment.adopt()
    assert str(said.value) == (
        'No local run is up in data: start one with "make run", or set DATABASE_URL.'
    )


@pytest.mark.usefixtures("nothing_set")
def test_a_run_is_adopted_while_it_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    data = publish(tmp_path / "data", DATABASE_URL="postgres://run", LOG_LEVEL="INFO", DEBUG="1")
    environment.adopt()
    assert os.environ["DATABASE_URL"] == "postgres://run"
    assert os.environ["LOG_LEVEL"] == "DEBUG", "what is set stays"
    for name in ("DATABASE_URL", "DEBUG"):
        monkeypatch.delenv(name)
    release(data)  # as its death does; run.json is still there
    with pytest.raises(NoLocalRun):
        environment.adopt()


@pytest.mark.usefixtures("nothing_set")
def test_a_database_of_ones_own_needs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=postgres://from-file\n")
    environment.adopt()
    assert "DATABASE_URL" not in os.environ, "the settings read the file themselves"
    (tmp_path / ".env").unlink()
    monkeypatch.setenv("DATABASE_URL", "postgres://from-shell")
    environment.adopt()
    assert os.environ["DATABASE_URL"] == "postgres://from-shell"


@pytest.mark.usefixtures("nothing_set")
def test_run_on_a_database_of_ones_own_lends_its_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = publish(tmp_path / "data", DATABASE_URL="postgres://own", REDIS_URL="redis://run")
    monkeypatch.setenv("DATABASE_URL", "postgres://another")
    environment.adopt()
    assert "REDIS_URL" not in os.environ
    monkeypatch.setenv("DATABASE_URL", "postgres://own")
    environment.adopt()
    assert os.environ["REDIS_URL"] == "redis://run"
    monkeypatch.delenv("REDIS_URL")
    release(data)


def test_environment_needs_no_django() -> None:
    program = (
        "import sys; from offers_project.local.environment import adopt; "
        "sys.exit('django.db' in sys.modules or 'offers_project.settings' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("name", ["plain", "with a space", "ünïcode", "per%cent+plus?&#"])
def test_mail_goes_to_the_data_folder_whatever_its_name(name: str) -> None:
    folder = Path("/tmp") / name  # noqa: S108 - nothing is written
    supplied = environment.supplied(
        folder=folder, host="127.0.0.1", url="http://x", secrets=SECRETS
    )
    read = environ.Env.email_url_config(supplied["EMAIL_URL"])
    assert read["EMAIL_FILE_PATH"] == str(folder / "mail")
    assert read["EMAIL_BACKEND"].endswith("filebased.EmailBackend")


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("127.0.0.1", "127.0.0.1,localhost,[::1]"),
        ("0.0.0.0", "127.0.0.1,localhost,[::1],*"),  # noqa: S104
        ("192.0.2.7", "127.0.0.1,localhost,[::1],192.0.2.7"),
    ],
)
def test_only_a_server_for_everybody_answers_to_every_name(host: str, hosts: str) -> None:
    supplied = environment.supplied(folder=Path("/x"), host=host, url="http://x", secrets=SECRETS)
    assert supplied["ALLOWED_HOSTS"] == hosts


def test_a_folder_keeps_its_secrets_and_the_log_of_the_run_before(tmp_path: Path) -> None:
    first = publish(tmp_path / "data")
    first.log("web").write_text("before")
    secrets = dict(first.kept)
    release(first)
    second = publish(tmp_path / "data")
    assert second.kept == secrets
    assert second.log("web").with_suffix(".log.1").read_text() == "before"
    assert len(set(secrets.values())) == len(secrets)
    release(second)


def runlocal(**values: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail before it starts anything."""
    return subprocess.run(
        [sys.executable, "manage.py", "runlocal"],
        cwd=ROOT,
        env=clean_environment(**values),
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("data_dir", "sentence"),
    [
        ("{tmp}/file", "DATA_DIR {tmp}/file is not a folder: choose another."),
        ("/proc/offers", "DATA_DIR /proc/offers can't be used (No such file or directory): "),
        ("{tmp}/file/below", "DATA_DIR {tmp}/file/below can't be used (Not a directory): "),
        ("{tmp}/a\nb", "has characters that can't be printed: choose another."),
    ],
)
def test_a_folder_that_can_not_be_used_is_one_sentence(
    tmp_path: Path, data_dir: str, sentence: str
) -> None:
    (tmp_path / "file").touch()
    answer = runlocal(DATA_DIR=data_dir.format(tmp=tmp_path), PORT=str(own_port()))
    assert answer.returncode == 1
    assert sentence.format(tmp=tmp_path) in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not answer.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    answer = runlocal(DATA_DIR=str(tmp_path), PORT=str(own_port()))
    assert f"DATA_DIR {tmp_path} can't be used (Permission denied): choose another" in answer.stderr
    tmp_path.chmod(0o700)


def test_a_taken_port_is_one_sentence_and_starts_nothing(tmp_path: Path) -> None:
    with ports._listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        answer = runlocal(DATA_DIR=str(tmp_path), PORT=str(port))
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"Port {port} of 127.0.0.1 can't be used (Address already in")
    assert 'choose another, such as "make run PORT=' in answer.stderr
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_one_sentence(tmp_path: Path, port: str) -> None:
    answer = runlocal(DATA_DIR=str(tmp_path), PORT=port)
    assert answer.returncode == 1
    assert answer.stderr == f"PORT must be a number from 1 to 65535, not {port!r}.\n"


# The Makefile, with a stand-in for Python that notes what it is asked to do.
PYTHON = """#!/bin/sh
case "$*" in
  *sys.version_info*) [ -z "$TOO_OLD" ] ;;
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"-m pip install"*) echo installed >>pip.log; [ -z "$INTERRUPTED" ] ;;
  *"-m pytest"*) echo "tests: $*" ;;
esac
"""


@pytest.fixture
def makefile(tmp_path: Path) -> Path:
    """A folder with our Makefile, requirements, and the stand-in as the only python3."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "offers_project" / "local").mkdir(parents=True)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "offers_project" / "local" / "requirements.txt").touch()
    (tmp_path / "programs").mkdir()
    python = tmp_path / "programs" / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    for name in ("sh", "mkdir", "cp", "rm", "touch", "cat"):
        program = shutil.which(name)
        assert program
        (tmp_path / "programs" / name).symlink_to(program)
    return tmp_path


def make(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    if program is None:
        pytest.skip("no make")
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        env={"PATH": str(folder / "programs"), **env},
        capture_output=True,
        text=True,
    )


def installations(folder: Path) -> int:
    log = folder / "pip.log"
    return log.read_text().count("installed") if log.exists() else 0


def test_make_installs_once_and_again_when_a_requirement_changed(makefile: Path) -> None:
    for _ in range(2):
        assert make(makefile, "test", "PYTEST_ARGS=-k name").stdout.endswith(
            "tests: -m pytest -k name\n"
        )
        assert installations(makefile) == 1
    changed = makefile / "requirements.txt"
    stamp = (makefile / ".venv" / "installed").stat()
    os.utime(changed, ns=(stamp.st_mtime_ns + 10**9, stamp.st_mtime_ns + 10**9))
    assert make(makefile, "test").returncode == 0
    assert installations(makefile) == 2


def test_make_repeats_an_interrupted_installation(makefile: Path) -> None:
    assert make(makefile, "test", INTERRUPTED="1").returncode != 0
    assert make(makefile, "test").returncode == 0
    assert installations(makefile) == 2


def test_make_without_a_python_that_is_new_enough_says_so(makefile: Path) -> None:
    answer = make(makefile, "run", TOO_OLD="1")
    assert answer.returncode != 0
    assert answer.stderr.startswith(
        "Python 3.11 or newer is needed: install it, or name it with make PYTHON=/path/to/python3."
    )
