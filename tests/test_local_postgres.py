"""The embedded PostgreSQL: each way to start it, and what may be in its way."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from offers_project.local import postgres as module
from offers_project.local.children import ChildFailed, Guard
from offers_project.local.environment import ROOT
from offers_project.local.ports import free_port
from offers_project.local.postgres import FORCE_VARIABLE, THROWAWAY, Postgres
from tests.local_processes import processes_of, wait_for, wait_for_nothing_left

IS_ROOT = os.geteuid() == 0
NOBODY = 65534
MODES = ["namespace", "nobody"] if IS_ROOT else ["ordinary"]

# What a process of another user, or one that is going to be killed, does.
PROGRAM = """
import sys, time
from pathlib import Path
from offers_project.local.children import Guard
from offers_project.local.postgres import THROWAWAY, Postgres
folder = Path(sys.argv[1])
server = Postgres(folder / "postgres", log=folder / "log", guard=Guard(), settings=THROWAWAY)
server.start()
print(server.child.pid, flush=True)
if sys.argv[2] == "wait":
    time.sleep(600)
server.stop()
"""


def use(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start servers in this mode from now on; skips where the system allows no user namespace."""
    monkeypatch.setenv(FORCE_VARIABLE, mode)
    if mode == "namespace" and not module._privileges().user_namespace:
        pytest.skip("this system allows no user namespaces")


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def pid_of(server: Postgres) -> int:
    assert server.child is not None
    assert server.child.pid is not None
    return server.child.pid


def query(server: Postgres, sql: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="offers-postgres-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard()
    yield guard
    guard.close()


@pytest.fixture
def new_server(folder: Path, guard: Guard) -> Iterator[Postgres]:
    """A server that has no cluster yet."""
    server = Postgres(folder / "postgres", log=folder / "log", guard=guard, settings=THROWAWAY)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster to copy: creating one takes the better part of a second."""
    folder = tmp_path_factory.mktemp("cluster")
    guard = Guard()
    server = Postgres(folder / "postgres", log=folder / "log", guard=guard, settings=THROWAWAY)
    server.start()
    server.stop()
    guard.close()
    return folder


@pytest.fixture
def server(new_server: Postgres, cluster: Path) -> Postgres:
    """A server whose cluster is there."""
    shutil.copytree(cluster, new_server.folder.parent, dirs_exist_ok=True)
    new_server.folder.parent.chmod(0o755)  # was copied, too
    return new_server


@pytest.mark.parametrize("mode", MODES)
def test_it_starts_without_being_root_and_keeps_data(
    mode: str, new_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(mode, monkeypatch)
    new_server.start()
    if mode == "nobody":
        assert uid_of(pid_of(new_server)) == NOBODY
    query(new_server, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert new_server.stop(), "a fast shutdown needs no SIGKILL"
    new_server.start()
    assert query(new_server, "SELECT answer FROM kept") == 42
    assert query(new_server, "SHOW server_version") == new_server.version


@pytest.mark.skipif(not IS_ROOT, reason="only root has two modes")
def test_a_folder_made_in_one_mode_works_in_the_other(
    new_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode in ("namespace", "nobody", "namespace"):
        use(mode, monkeypatch)
        new_server.start()
        assert query(new_server, "SELECT 1") == 1
        new_server.stop()


@pytest.mark.skipif(not IS_ROOT, reason="only root runs it as nobody")
def test_the_fallback_names_the_folder_that_nobody_may_enter(
    folder: Path, new_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("nobody", monkeypatch)
    private = folder / "private"
    private.mkdir(mode=0o700)
    (private / "data").mkdir()
    new_server.folder = private / "data" / "postgres"
    with pytest.raises(ChildFailed, match=f"may not enter {private}: choose another DATA_DIR"):
        new_server.start()


@pytest.mark.skipif(not IS_ROOT, reason="the tests run as an ordinary user anyway")
def test_an_ordinary_user_starts_it_directly(folder: Path) -> None:
    site_packages = Path(pytest.__file__).parents[1]
    # Root's own Python may be out of others' reach; the system's is not.
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    as_nobody = [
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *("env", f"PYTHONPATH={ROOT}:{site_packages}", python),
    ]
    try:
        usable = subprocess.run([*as_nobody, "-c", "import psycopg"], capture_output=True, cwd="/")
    except FileNotFoundError:
        pytest.skip("no setpriv")
    if usable.returncode != 0:
        pytest.skip(f"{python} or the installed packages can't be read by other users")
    os.chown(folder, NOBODY, NOBODY)
    answer = subprocess.run(
        [*as_nobody, "-c", PROGRAM, folder, "stop"], capture_output=True, text=True, cwd="/"
    )
    assert answer.returncode == 0, answer.stderr
    assert (folder / "postgres" / "PG_VERSION").stat().st_uid == NOBODY
    wait_for_nothing_left(folder, timeout=5)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("mode", MODES)
def test_the_kernel_ends_it_with_its_starter_even_without_the_guard(
    mode: str, server: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(mode, monkeypatch)
    starter = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder, "wait"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        started = int(starter.stdout.readline())
    # The guard is a child of the starter, like the server.
    children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
    for guard in {int(child) for child in children} - {started}:
        os.kill(guard, signal.SIGKILL)
    starter.kill()
    starter.wait()
    wait_for_nothing_left(folder, timeout=5)


def test_a_killed_server_starts_again_in_place(server: Postgres) -> None:
    server.start()
    port, killed = server.port, pid_of(server)
    os.kill(killed, signal.SIGKILL)
    assert server.child is not None
    server.child.kill()
    server.start()
    assert server.port == port
    assert pid_of(server) != killed
    assert query(server, "SELECT 1") == 1


def test_a_server_that_a_killed_run_left_behind_gives_way(server: Postgres, guard: Guard) -> None:
    server.start()
    left = pid_of(server)
    following = Postgres(server.folder, log=server.log, guard=guard, settings=THROWAWAY)
    following.start()
    try:
        assert query(following, "SELECT 1") == 1
        assert left not in processes_of(server.folder)
    finally:
        following.stop()


def test_a_pid_file_whose_number_is_another_programs_now_is_no_obstacle(server: Postgres) -> None:
    server.start()
    server.stop()
    (server.folder / "postmaster.pid").write_text(f"{os.getppid()}\n{server.folder}\n")
    server.start()
    assert query(server, "SELECT 1") == 1


def test_a_port_that_was_just_taken_is_tried_again_with_another(
    server: Postgres, folder: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    offered = iter([server.port, free_port()])
    monkeypatch.setattr(module, "free_port", lambda: next(offered))
    other = Postgres(folder / "other", log=folder / "other.log", guard=guard, settings=THROWAWAY)
    other.start()
    try:
        assert other.port != server.port
        assert query(other, "SELECT 1") == 1
    finally:
        other.stop()


def test_a_wrong_password_gets_nobody_in(server: Postgres) -> None:
    server.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url, password="guessed")


def test_the_data_of_another_major_version_is_named(new_server: Postgres) -> None:
    new_server.folder.mkdir()
    (new_server.folder / "PG_VERSION").write_text("17\n")
    with pytest.raises(ChildFailed, match=r"made by PostgreSQL 17, and this is 18\.\d+: choose"):
        new_server.start()


def test_a_server_that_does_not_start_shows_the_end_of_its_log(folder: Path, guard: Guard) -> None:
    server = Postgres(
        folder / "postgres", log=folder / "log", guard=guard, settings={"work_mem": "plenty"}
    )
    with pytest.raises(ChildFailed) as failure:
        server.start()
    assert f"PostgreSQL did not start (exit code 1). The end of its log {folder / 'log'}" in str(
        failure.value
    )
    assert 'invalid value for parameter "work_mem"' in str(failure.value)


def test_an_interrupted_creation_is_done_again(new_server: Postgres) -> None:
    half = new_server.folder.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    new_server.start()
    assert query(new_server, "SELECT 1") == 1
    assert not half.exists()


def test_a_stopped_server_leaves_no_process(server: Postgres, folder: Path) -> None:
    server.start()
    pid = pid_of(server)
    wait_for(lambda: pid in processes_of(folder), "the server is seen")
    server.stop()
    assert not Path(f"/proc/{pid}").exists()
    wait_for_nothing_left(folder, timeout=5)
