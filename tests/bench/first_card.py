"""The command line behind `make bench-pages`: how soon a phone shows the first offer.

The service runs as in production (granian's processes, files compressed and named by their
contents), but for TLS. Exit status 1 when the first card takes a second or longer on slow 4G.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
from datetime import datetime
from itertools import product
from pathlib import Path
from statistics import median
from textwrap import fill
from types import FrameType
from typing import Any

from offers_project.local.children import ChildFailed
from tests.servers import ENVIRONMENT, Services

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "pages.md"
ROUNDS = 5
CARDS = 20
GOAL = 1000.0  # milliseconds until the first card, on slow 4G
COLUMNS = ("html_begins", "first-contentful-paint", "card", "largest", "load")
HEAVIEST = 100_000  # bytes of the page and all that it needs, without pictures


def main() -> int:
    """Start servers, fill an event, open its page over and over."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.first_card", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round each, and no document")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.update(ENVIRONMENT)
    os.environ["LOG_LEVEL"] = "ERROR"
    os.environ["DJANGO_SETTINGS_MODULE"] = "offers_project.settings"
    # Playwright's event loop runs in this thread; no coroutine of ours does.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    services = Services()
    try:
        services.start()
        return _run(quick=options.quick)
    except ChildFailed as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        services.stop()
    return 1


def _run(*, quick: bool) -> int:
    import django

    django.setup()
    # These need the settings.
    from django.core.management import call_command
    from django.test import Client
    from django.utils import timezone
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import ARGUMENTS, program
    from tests.service_processes import Processes

    call_command("migrate", verbosity=0)
    page, attendee = _fill()
    client = Client()
    client.force_login(attendee, backend="offers_project.login.ByMembership")
    with tempfile.TemporaryDirectory(prefix="offers-bench-") as folder:
        web = Processes(Path(folder), **_production())
        try:
            web.manage("collectstatic", "--noinput", "-v", "0")
            web.start_web(workers=2)
            web.wait_until_up()
            with sync_playwright() as playwright:
                arguments = [*ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else ARGUMENTS
                chromium = playwright.chromium.launch(executable_path=program(), args=arguments)
                text, wrong = _measure(
                    chromium,
                    web.url,
                    page,
                    session=client.cookies["sessionid"].value,
                    times=1 if quick else ROUNDS,
                    now=timezone.now(),
                )
                chromium.close()
        finally:
            web.stop()
    print(text)
    if not quick:
        DOCUMENT.write_text(text, encoding="utf-8")
    print("\n".join(wrong))
    return int(bool(wrong))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _production() -> dict[str, str]:
    """The environment of the web server: everything as in production, but for TLS."""
    return {
        "LOCAL_RUN": "0",
        "ALLOWED_HOSTS": "127.0.0.1",
        "SECURE_SSL_REDIRECT": "False",
        "WEBHOOK_ALLOW_LOOPBACK": "False",
        "FRONTEND_URL": "",
        "EMAIL_URL": "smtp://127.0.0.1:9",
        "DB_POOL_SIZE": "8",
    }


def _fill() -> tuple[str, Any]:
    """An event with offers of every kind, and an attendee who holds one of them."""
    from tests.factories import (
        EventFactory,
        OfferFactory,
        PurchaseFactory,
        RegistrationFactory,
        UserFactory,
    )

    event = EventFactory(title="Harbour Days", slug="harbour-days")
    attendee = UserFactory(username="lena.fischer")
    RegistrationFactory(event=event, user=attendee)
    kinds = ("MERCHANDISE", "SERVICE", "EXCLUSIVE_CONTENT", "MERCHANDISE")
    for number in range(CARDS):
        offer = OfferFactory(
            event=event,
            title=f"Lantern workshop by the old quay, part {number + 1}",
            description="Organic cotton, in two colours, printed by hand at the harbour. " * 3,
            offer_type=kinds[number % len(kinds)],
            original_price=60,
            inventory_total=5 if number % 5 == 0 else 200,
            allows_collection=True,
            shipping_countries=["DE", "DK"],
        )
    PurchaseFactory(offer=offer, user=attendee)
    return f"/events/{event.slug}/offers", attendee


def _measure(
    browser: Any, site: str, page: str, *, session: str, times: int, now: datetime
) -> tuple[str, list[str]]:
    """The document, and what is beyond the limits."""
    from tests.bench.pages_seen import PROFILES, rounds, spread

    cookie = {"name": "sessionid", "value": session, "url": site, "secure": True}
    people: dict[str, list[Any]] = {"anybody": [], "an attendee": [cookie]}
    busy = os.getloadavg()[0]
    # The server loads its templates, once in each of its processes.
    rounds(browser, site + page, PROFILES[0], times=4, again=False)
    wrong: list[str] = []
    rows, weights = "", {}
    for profile, who, again in product(PROFILES, people, (False, True)):
        visit = f"{who}, {'later' if again else 'first'} visit"
        seen = rounds(browser, site + page, profile, times=times, again=again, cookies=people[who])
        told = " | ".join(spread(seen, name) for name in COLUMNS)
        rows += f"| {profile.name} | {visit} | {told} |\n"
        if profile.is_the_goal and median(each["card"] for each in seen) >= GOAL:
            wrong.append(f"{profile.name}, {visit}: the first card comes too late")
        weights[visit] = f"| {visit} | {seen[0].requests} | {seen[0].received / 1000:.1f} |\n"
        if seen[0].received >= HEAVIEST:
            wrong.append(f"{visit}: {seen[0].received:,} bytes")
    text = HEAD.format(
        day=f"{now:%d %B %Y}", cores=os.cpu_count(), python=platform.python_version(),
        browser=browser.version, rounds=times, cards=CARDS, busy=busy,
        profiles="\n".join(
            fill(f"- **{each.name}**: {each.what}.", 100, subsequent_indent="  ")
            for each in PROFILES
        ),
    )  # fmt: skip
    return text + rows + BETWEEN + "".join(weights.values()), wrong


HEAD = """# How soon a phone shows the first offer

An event's page with {cards} cards and no pictures, in a window of 390 x 844. Written by
`make bench-pages` on {day}: {cores} cores, Python {python},
Chromium {browser}. The browser, granian with two processes, PostgreSQL and Valkey share these
cores, maybe with others: the load average was {busy:.1f} at the start. The settings are
production's, but for TLS.

Each figure is the median of {rounds} rounds in a new browser profile, with the fastest and the
slowest in brackets, in milliseconds since the page was asked for, as the browser's own
PerformanceObserver and IntersectionObserver tell them: the first card counts once a frame with it
has been drawn. A later visit finds style sheet and scripts in the browser's cache.

{profiles}

The browser delays each request, not each packet: what setting up a connection with TLS costs once
(two to three round trips, 300 to 450 ms at 150 ms each) is in none of these figures but those of
the long latency, which was made to stand for it.

| network | who | HTML begins | first paint | first card | largest paint | loaded |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
"""
BETWEEN = """
The pages themselves are sent as they are: they hold what only their reader may know and repeat what
is in the address, and compressed together the one can be guessed by the other (BREACH). Style sheet
and scripts are compressed, and kept by the browser for as long as they are named as they are.

| who | requests | kB received |
| --- | ---: | ---: |
"""


if __name__ == "__main__":
    sys.exit(main())
