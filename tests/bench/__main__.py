"""The command line behind `make bench-admin`; exit status 1 when a page asks too much."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from offers_project.local.children import ChildFailed
from tests.servers import ENVIRONMENT, Services

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "admin.md"


def main() -> int:
    """Start servers, fill the database, open every page."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.update(ENVIRONMENT)
    # One connection is used for everything: what is recorded is what it was asked.
    os.environ |= {"DB_POOL_SIZE": "0", "LOG_LEVEL": "ERROR"}
    os.environ["DJANGO_SETTINGS_MODULE"] = "offers_project.settings"
    services = Services()
    try:
        services.start()
        return _run(options)
    except ChildFailed as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        services.stop()
    return 1


def _run(options: argparse.Namespace) -> int:
    import django

    django.setup()
    # These need the settings.
    from django.core.management import call_command
    from django.utils import timezone

    from purchases import reconciliation
    from tests.bench import data, report
    from tests.bench.walk import Visitor
    from tests.bench.watching import Explainer

    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)

    now = timezone.now()
    size = data.QUICK if options.quick else data.FULL
    call_command("migrate", verbosity=0)
    if not options.filled:
        data.make(size, now=now, say=say)
        data.settle()
    wrong = [str(difference) for difference in reconciliation.counter_differences()]
    print("\n".join(wrong))
    say(f"{size.offers:,} offers and {size.purchases:,} purchases")

    explainer = Explainer(slow=report.SLOW)
    pages: list[report.Page] = []
    told: set[str] = set()
    for who in options.who or (data.SUPERUSER, data.MANAGER, data.NEWCOMER):
        visitor = Visitor(who)
        visitor.visit("site", "index", "/admin/")  # what a process loads once isn't the page's
        for visit in visitor.everything(only=options.only.lower()):
            for query in visit.queries:
                explainer.explain(query)
            page = report.measured(visit)
            pages.append(page)
            for problem in report.problems(page):
                wrong.append(problem)
                # A query that several pages send is shown with its plan once.
                where, _, what = problem.partition("\n")
                print(f"\n{where if what in told else problem}\n", flush=True)
                told.add(what)
        say(f"{who}: {len(pages):,} pages so far")

    text = report.document(pages, size=size, now=now)
    if not (options.quick or options.only or options.who):
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(text, encoding="utf-8")
        say(f"written to docs/benchmarks/{DOCUMENT.name}")
    elif options.only:
        print(text)
    say(f"{len(wrong)} problems on {len(pages):,} pages")
    return int(bool(wrong))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data, and no document")
    parser.add_argument(
        "--filled", action="store_true", help="an earlier run has filled what DATABASE_URL names"
    )
    parser.add_argument("--only", default="", help="models whose label contains this, or `index`")
    parser.add_argument("--who", action="append", help="superuser, manager or newcomer")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
