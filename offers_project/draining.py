"""A web server that is asked to end first says so, and goes on answering until nobody asks it.

    python -I offers_project/draining.py granian …

A proxy learns that a server is gone from its health check, seconds later, or from a connection
that is refused. In between are the connections that were made and not read yet when the server
stopped listening: those requests would be lost, and a purchase is not the proxy's to repeat. So
on SIGTERM the server keeps listening, ``/livez`` and ``/readyz`` say `draining` (``is_draining``),
and after ``DRAIN_SECONDS``, when the proxy has noticed, the server gets the signal.

The image's command. It knows nothing of the server but its process, and loads nothing of ours: `-I`
keeps the folder's other modules from standing in for Python's own.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

# Three checks of a proxy that asks every second, and one that was on its way.
DRAIN_SECONDS = 5.0
# Exit codes of a program that could not be run, and of one ended by a signal: as shells have them.
NOT_FOUND, SIGNALLED = 127, 128


def run(command: list[str], *, marker: Path, seconds: float) -> int:
    """Run the server until it ends, and return its exit code; called by ``main``.

    ``marker`` is created when it is asked to end. A second SIGTERM, or a SIGINT, waits no longer.
    """
    try:
        server = subprocess.Popen(  # noqa: S603 - what the image, or who starts us, names
            command, env={**os.environ, "DRAINING_FILE": str(marker)}
        )
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return NOT_FOUND
    timer = threading.Timer(seconds, server.terminate)
    timer.daemon = True

    def drain(number: int, frame: FrameType | None) -> None:
        if marker.exists() or seconds <= 0:
            server.terminate()
            return
        marker.touch()
        timer.start()

    signal.signal(signal.SIGTERM, drain)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: server.send_signal(number))
    code = server.wait()
    timer.cancel()
    return code if code >= 0 else SIGNALLED - code


def main(command: list[str]) -> int:
    """The command line. The seconds are those of ``DRAIN_SECONDS`` in the environment."""
    seconds = float(os.environ.get("DRAIN_SECONDS") or DRAIN_SECONDS)
    with tempfile.TemporaryDirectory(prefix="offers-web-") as folder:
        return run(command, marker=Path(folder) / "draining", seconds=seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
