"""Run by Python as it starts: hides what production doesn't install, which libraries load if they
find it, and which would count as the web server's memory.

``tests.bench.load.stack`` has put this folder before all others, and says what to hide.
"""

import os
import sys


class _Hidden:
    names = frozenset(os.environ.get("OFFERS_BENCH_HIDDEN", "").split())

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Called by ``import``, before anybody looks for the module."""
        if name.partition(".")[0] in cls.names:
            raise ModuleNotFoundError(f"{name} is not in requirements.txt", name=name)


sys.meta_path.insert(0, _Hidden)  # type: ignore[arg-type] # a loader that never finds anything
