"""Tell `make run` that its Celery worker is up: `celery worker --include` loads this there.

Up is a worker that takes tasks or, since a Redis that isn't ours may be away for hours, one whose
beat runs: beat then does the sweeps itself. Not read from the worker's log, whose level and format
are settings.
"""

import os
from pathlib import Path

from celery.signals import beat_embedded_init, worker_ready

VARIABLE = "LOCAL_WORKER_READY_FILE"


@worker_ready.connect
@beat_embedded_init.connect
def note(**_: object) -> None:
    """Leave the file that `runlocal` waits for."""
    path = os.environ.get(VARIABLE)
    if path:
        Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")
