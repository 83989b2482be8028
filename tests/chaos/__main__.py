"""The command line behind `make chaos`; exit status 1 when anything is wrong."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tests.chaos import report, storm
from tests.chaos.stack import StackFailed


def main() -> int:
    """Run one storm and print its report."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="offers-chaos-"))
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)

    form = storm.QUICK if options.quick else storm.FULL
    keep = True
    try:
        result = storm.run(folder, form, buyers=options.buyers, seed=options.seed, say=say)
        keep = not result.is_good
        print(f"\n{report.written(result)}\n", flush=True)
        return int(keep)
    except StackFailed as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        keep = False
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if options.folder or keep:
            print(f"logs and data: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute instead of seven")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeat a storm"
    )
    parser.add_argument("--buyers", type=int, default=50, choices=range(1, 61), metavar="1-60")
    parser.add_argument("--folder", help="data and logs here, and keep them")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
