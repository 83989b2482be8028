"""Tell `make run` that its Celery worker takes tasks: `celery worker --include` loads this there.

Not read from the worker's log, whose level and format are settings.
"""

import os
from pathlib import Path

from celery.signals import worker_ready

VARIABLE = "LOCAL_WORKER_READY_FILE"


@worker_ready.connect
def note(**_: object) -> None:
    """Leave the file that `runlocal` waits for."""
    path = os.environ.get(VARIABLE)
    if path:
        Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")
