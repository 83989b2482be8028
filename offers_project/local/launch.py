"""Become another program, tied to the life of the process that asked for it.

Run as a script by `children.Child` (never imported): `python -I -S launch.py OPTIONS -- PROGRAM …`.
It is a script of its own, not a `preexec_fn`, because code between fork and exec is unsafe once the
caller has threads, and a test run has. On Linux the kernel then sends `--signal` to the program as
soon as its parent dies, however that happened.

Only the standard library: each child waits for this.
"""

import argparse
import ctypes  # at the top: after --drop-to, root's Python may be out of reach
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
# Any uid but 0 will do: PostgreSQL only asks whether it runs as root.
UID_INSIDE_NAMESPACE = 1000


def _libc_call(function: str, *arguments: int) -> None:
    """Call into libc; raises OSError with the call's errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _enter_user_namespace() -> None:
    """Look like an ordinary user to ourselves, while files are still read and made as before."""
    uid, gid = os.geteuid(), os.getegid()
    _libc_call("unshare", CLONE_NEWUSER)
    for name, text in (
        ("uid_map", f"{UID_INSIDE_NAMESPACE} {uid} 1"),
        ("setgroups", "deny"),  # the kernel wants this before an unprivileged gid_map
        ("gid_map", f"{UID_INSIDE_NAMESPACE} {gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def _drop_to(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True, help="pid of the caller")
    parser.add_argument("--signal", type=int, required=True, help="what the caller's death sends")
    parser.add_argument("--user-namespace", action="store_true")
    parser.add_argument("--drop-to", type=int, nargs=2, metavar=("UID", "GID"))
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()

    if options.user_namespace:
        _enter_user_namespace()
    if options.drop_to:
        _drop_to(*options.drop_to)
    if sys.platform == "linux":
        # After the lines above, because a change of credentials clears it.
        _libc_call("prctl", PR_SET_PDEATHSIG, options.signal, 0, 0, 0)
    if os.getppid() != options.parent:
        return  # the caller died before the kernel knew that we care
    os.execv(options.program[0], options.program)  # noqa: S606 - what this script is for


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"could not start: {error}")
