"""`python -m tests.clients.lint`: is the OpenAPI document valid, and as `redocly.yaml` wants it?

`make lint` runs it. Without Node.js the second half is left out, and where CI is set it fails.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients import node

ROOT = node.HERE.parents[1]


def write_document(path: Path) -> None:
    """Generate the document, as JSON; fails on any of drf-spectacular's warnings."""
    subprocess.run(
        [
            *(sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn"),
            *("--format", "openapi-json", "--file", str(path)),
        ],
        cwd=ROOT,
        # Only the settings are loaded: there is no database.
        env={**os.environ, "OFFERS_OFFLINE": "1"},
        check=True,
    )


def main() -> int:
    """Print what is wrong; 0 if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "openapi.json"
        write_document(document)
        validator = [sys.executable, "-m", "openapi_spec_validator", str(document)]
        subprocess.run(validator, check=True, stdout=subprocess.DEVNULL)
        try:
            node.find()
        except node.NoNode as missing:
            print(f"The OpenAPI document is valid, but its style wasn't looked at. {missing}")
            return int(missing.is_failure)
        node.install()
        config = str(node.HERE / "redocly.yaml")
        try:
            node.run("redocly", "lint", str(document), "--config", config, "--format", "stylish")
        except RuntimeError as found:
            print(found)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
