"""The supervisor with stand-ins for the parts: restarts, the end, and violent ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from offers_project.local.environment import ROOT
from tests.local_processes import processes_of, wait_for, wait_for_nothing_left

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# A part that says when it is up, and maybe a child of its own, both deaf to SIGTERM if asked to.
PART = """
import os, signal, sys, time
name, deaf = sys.argv[1:]
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf == "deaf" else signal.SIG_DFL)
if name == "parent" and os.fork() == 0:
    name = "grandchild"
open(name, "w").close()
if name == "ending":
    sys.exit("no part can stay up like this")
time.sleep(600)
"""

# The supervisor's process: its own arguments are the parts to start, as `name:deaf`.
SUPERVISOR = """
import sys
from pathlib import Path
from offers_project.local.children import Child, ChildFailed, Guard
from offers_project.local.supervisor import Program, StopRequested, Supervisor

folder = Path.cwd()
supervisor = Supervisor(lambda line: print(line, flush=True), end_with_parent=True)
with supervisor.catching_signals():
    guard = Guard()
    try:
        for stage, part in enumerate(sys.argv[1:]):
            name, deaf = part.split(":")
            child = Child(name, [sys.executable, str(folder / "part.py"), name, deaf],
                          log=folder / (name + ".log"), guard=guard, cwd=folder)
            never = name == "never"
            program = Program(child, lambda: not never and (folder / name).exists(),
                              supervisor.pause)
            supervisor.start(program, stop_stage=stage)
            if name != "ending":
                program.wait_until_up(timeout=10)
        print("up", flush=True)
        supervisor.watch()
    except StopRequested:
        print("stopping", flush=True)
    except ChildFailed as failure:
        print(failure, flush=True)
    finally:
        supervisor.stop()
        guard.close()
        print("stopped", flush=True)
"""

# A parent that waits for the supervisor, as make does.
PARENT = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the supervisor above with these parts; what it prints is in `out`."""
    (tmp_path / "part.py").write_text(PART)
    (tmp_path / "supervisor.py").write_text(SUPERVISOR)
    started = []

    def start(*parts: str, below: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *below, tmp_path / "supervisor.py", *parts],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait(10)


def said(folder: Path) -> str:
    return (folder / "out").read_text()


def wait_until_up(folder: Path) -> None:
    wait_for(lambda: "up\n" in said(folder), "every part is up")


def pid_of(folder: Path, name: str) -> int:
    words = f"part.py {name} "
    return min(pid for pid, command in processes_of(folder).items() if words in command)


def test_a_part_that_ends_is_started_again_without_what_it_left(
    start: Start, tmp_path: Path
) -> None:
    start("parent:deaf")
    wait_until_up(tmp_path)
    wait_for((tmp_path / "grandchild").exists, "the part has a child")
    before = {pid for pid, command in processes_of(tmp_path).items() if "part.py" in command}
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    wait_for(lambda: "parent ended (killed by SIGKILL): started again." in said(tmp_path), "line")
    assert not before & set(processes_of(tmp_path)), "the orphan would be in the new one's way"


def test_a_part_that_keeps_ending_stops_the_run_with_its_log(start: Start, tmp_path: Path) -> None:
    process = start("ending:", "other:")
    process.wait(20)
    assert said(tmp_path).count("ending ended (exit code 1): started again.") == 5
    assert (
        f"ending keeps ending (exit code 1). The end of its log {tmp_path / 'ending.log'}:\n"
        f"    no part can stay up like this\n"
    ) in said(tmp_path)
    wait_for_nothing_left(tmp_path, timeout=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_parts(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start("one:", "two:")
    wait_until_up(tmp_path)
    process.send_signal(number)
    assert process.wait(5) == 0
    assert said(tmp_path).endswith("stopping\nstopped\n")
    wait_for_nothing_left(tmp_path, timeout=1)


def test_the_end_of_the_parent_is_the_end_of_the_run(start: Start, tmp_path: Path) -> None:
    parent = start("one:", below=["-c", PARENT])
    wait_until_up(tmp_path)
    parent.kill()
    parent.wait()
    wait_for_nothing_left(tmp_path, timeout=5)
    assert said(tmp_path).endswith("stopping\nstopped\n")


def test_a_signal_during_the_start_ends_it(start: Start, tmp_path: Path) -> None:
    process = start("one:", "never:")
    wait_for(lambda: (tmp_path / "never").exists(), "the second part runs")
    process.send_signal(signal.SIGINT)
    process.wait(5)
    assert said(tmp_path) == "stopping\nstopped\n"
    wait_for_nothing_left(tmp_path, timeout=1)


def test_parts_that_ignore_sigterm_are_gone_within_ten_seconds(
    start: Start, tmp_path: Path
) -> None:
    # One in each of the three stages: the worst that can be.
    process = start("parent:deaf", "two:deaf", "three:deaf")
    wait_until_up(tmp_path)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    wait_for_nothing_left(tmp_path, timeout=1)
    assert time.monotonic() - begun < 9
    assert said(tmp_path).count("did not end by itself: killed.") == 3


def test_sigkill_of_the_supervisor_leaves_nothing_running(start: Start, tmp_path: Path) -> None:
    process = start("one:", "parent:deaf")
    wait_until_up(tmp_path)
    wait_for((tmp_path / "grandchild").exists, "the part has a child")
    process.kill()
    process.wait()
    wait_for_nothing_left(tmp_path, timeout=10)


def test_a_killed_guard_is_replaced_by_one_that_knows_everything(
    start: Start, tmp_path: Path
) -> None:
    process = start("parent:", "one:")
    wait_until_up(tmp_path)
    wait_for((tmp_path / "grandchild").exists, "the part has a child")
    (guard,) = children_that_run(process.pid, "guard.py")
    os.kill(guard, signal.SIGKILL)
    # The next note for the guard finds out: here, about a restart.
    os.kill(pid_of(tmp_path, "one"), signal.SIGKILL)
    wait_for(lambda: "one ended (killed by SIGKILL): started again." in said(tmp_path), "line")
    process.kill()
    process.wait()
    wait_for_nothing_left(tmp_path, timeout=10)


def children_that_run(parent: int, words: str) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(child)
        for child in children
        if words in Path(f"/proc/{child}/cmdline").read_bytes().decode()
    ]
