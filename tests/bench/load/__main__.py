"""The command line behind `make bench`; exit status 1 when the service answers what it must not."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from offers_project.local.children import ChildFailed
from tests.bench.load.load_generator import BrokenAnswer, LoadGenerator
from tests.bench.load.stack import Stack, set_up_django


def main() -> int:
    """Start everything, fill the databases, measure, write the report."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    stack = Stack(Path(tempfile.mkdtemp(prefix="offers-bench-")), keep=options.keep)
    clients = LoadGenerator()
    clients.start()
    try:
        stack.start()
        set_up_django(stack)
        from tests.bench.load import running  # its modules need the settings

        try:
            return running.run(stack, clients, options)
        except running.NoSuchRow as error:
            print(error, file=sys.stderr)
            return 2
    except (ChildFailed, BrokenAnswer) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        clients.stop()
        stack.stop()
    return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data, one round, no document")
    parser.add_argument("--only", action="append", metavar="ROW", help="this row; may be repeated")
    parser.add_argument("--rounds", type=int, help="of each row and floor (default: 5, quick: 1)")
    parser.add_argument(
        "--large", action="store_true", help="with --only: on the large database, too"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the report goes")
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
