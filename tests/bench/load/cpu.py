"""The processor time of groups of processes, as the kernel keeps it in /proc.

A group is some processes and everything that they have started. What a process took that has ended
is in its parent's figures, so nothing is lost when PostgreSQL ends a backend, and nothing counted
twice.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def seconds(roots: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """What each group has taken since it began; ``roots`` are the groups' first processes."""
    took, children = _table()
    return {
        name: sum(took.get(pid, 0) for pid in _tree(first, children)) / TICKS_PER_SECOND
        for name, first in roots.items()
    }


def between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What each group took meanwhile."""
    return {name: after[name] - before[name] for name in before}


def descendants(root: int) -> list[int]:
    """The processes below ``root``."""
    return _tree([root], _table()[1])[1:]


def resident_megabytes(pid: int) -> float:
    """The memory of one process that is in RAM, what it shares with others included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 1e6


def is_helper(pid: int) -> bool:
    """Whether it only watches over resources, as Python's multiprocessing has one."""
    return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _table() -> tuple[dict[int, int], dict[int, list[int]]]:
    """Ticks by process, and children by parent."""
    took: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):  # noqa: PTH208 - hundreds of times in a run: no Path each
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name of the program, which may hold anything, ends with the last parenthesis.
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(name))
            # Own user and system time, then those of children that have ended: proc(5).
            took[int(name)] = sum(map(int, fields[11:15]))
    return took, children


def _tree(roots: Sequence[int], children: dict[int, list[int]]) -> list[int]:
    found = [*roots]
    for pid in found:
        found += children.get(pid, [])
    return found
