"""End what a dead supervisor left behind.

Run as a script by `children.Guard` (never imported). It reads lines from its standard input, whose
other end only the supervisor holds, so that end of file means: the supervisor is gone, also by
SIGKILL. The kernel's PR_SET_PDEATHSIG tells each child directly, but not the children's own
children (web workers, Celery's beat), nor anybody on macOS. So here every process group still known
ends: its leader is asked to, and what is left after that, or after GRACE_SECONDS, is killed.

    watch PGID SIGNAL    a process group, and the signal that asks its leader to end
    forget PGID          it ended under the supervisor's eyes (its number may be used again)
    remove FOLDER        delete this folder once the groups are gone
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

GRACE_SECONDS = 4.0
POLL_SECONDS = 0.05


def _is_running(pid: int) -> bool:
    """Whether it still does anything. An orphan that ended is a zombie until process 1 reaps it,
    which in a container may be seconds later or never."""
    try:
        # pid (name, which may contain anything) state …
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
    except OSError:
        return False  # it went while we read
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(groups: dict[int, int], *, ask: bool) -> None:
    """End every group of {pgid: signal}: its leader has GRACE_SECONDS, the others until then."""
    for leader, number in groups.items() if ask else ():
        with contextlib.suppress(OSError):
            os.kill(leader, number)
    deadline = time.monotonic() + GRACE_SECONDS
    left = set(groups)
    while left:
        for group in list(left):
            if time.monotonic() > deadline or not _is_running(group):
                with contextlib.suppress(OSError):
                    os.killpg(group, signal.SIGKILL)
                left.remove(group)
        if left:
            time.sleep(POLL_SECONDS)


def main() -> None:
    # A terminal's Ctrl-C is for the supervisor, which tells us by closing the pipe.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb == "watch":
            group, number = rest.split()
            groups[int(group)] = int(number)
        elif verb == "forget":
            groups.pop(int(rest), None)
        elif verb == "remove":
            folders.append(rest)
    # On Linux the kernel has asked already, and some programs take a second request for "at once".
    end(groups, ask=sys.platform != "linux")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
