"""A PostgreSQL that streams to another: a primary and its replica, as processes of a test's own."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from offers_project.local.children import Guard, Privileges, launch_command
from offers_project.local.postgres import Postgres

FAST = {"fsync": "off", "synchronous_commit": "off", "autovacuum": "off"}


class Primary(Postgres):
    """One that replicas may follow."""

    def __init__(self, folder: Path, *, guard: Guard) -> None:
        super().__init__(folder, log=folder.with_suffix(".log"), guard=guard, settings=FAST)


class Replica(Postgres):
    """A hot standby of ``primary``, copied from it at the first start."""

    def __init__(self, folder: Path, *, of: Primary, guard: Guard) -> None:
        super().__init__(folder, log=folder.with_suffix(".log"), guard=guard, settings=FAST)
        self._primary = of

    def _create_cluster(self, programs: Path, privileges: Privileges) -> None:
        source = urlsplit(self._primary.url)
        password = str(source.password)
        # Its users are the primary's.
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password, encoding="ascii")
        if privileges.drop_to:
            self.folder.mkdir(mode=0o700)
            for path in (self.folder, self._password_file):
                os.chown(path, *privileges.drop_to)
        command = [
            str(programs / "bin" / "pg_basebackup"),
            *("--pgdata", str(self.folder), "--write-recovery-conf", "--wal-method=stream"),
            *("--checkpoint=fast", "--no-sync"),
            *("--host=127.0.0.1", f"--port={source.port}", f"--username={source.username}"),
        ]
        subprocess.run(
            launch_command(command, privileges=privileges),
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PGPASSWORD": password},
            cwd="/",
            check=True,
            timeout=60,
        )
