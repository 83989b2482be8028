"""What a browser measures of an attendee's page on an emulated network, in rounds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

PATIENCE_MS = 60_000
PHONE: ViewportSize = {"width": 390, "height": 844}
# Noted by the page while it loads. A frame is drawn before an IntersectionObserver is told of it.
WATCH = """{
  const seen = window.seen = {};
  new PerformanceObserver(list => {
    for (const paint of list.getEntries()) seen[paint.name] = paint.startTime;
  }).observe({type: "paint", buffered: true});
  new PerformanceObserver(list => {
    seen.largest = list.getEntries().at(-1).startTime;
  }).observe({type: "largest-contentful-paint", buffered: true});
  const drawn = new IntersectionObserver(entries => {
    if (entries.some(entry => entry.isIntersecting)) seen.card ??= performance.now();
  });
  new MutationObserver((_, observer) => {
    const card = document.querySelector("article[data-offer]");
    if (card) { observer.disconnect(); drawn.observe(card); }
  }).observe(document, {childList: true, subtree: true});
}"""
IS_OVER = (
    "() => seen.card && seen.largest && performance.getEntriesByType('navigation')[0].loadEventEnd"
)
READ = """() => {
  const [page] = performance.getEntriesByType("navigation");
  return {...seen, html_begins: page.responseStart, html_ends: page.responseEnd,
    load: page.loadEventEnd};
}"""


@dataclass(frozen=True)
class Profile:
    """A network and a processor as Chrome's DevTools emulate them; ``latency`` of each request."""

    name: str
    what: str
    is_the_goal: bool = False
    latency: float = 0  # milliseconds
    down: float = -1  # bits a second; -1: as fast as it goes
    up: float = -1
    slower: int = 1  # times, the processor


_SLOW_4G: dict[str, Any] = {"down": 1.6 * 1024 * 1024, "up": 750 * 1024, "slower": 4}
PROFILES = (
    Profile("none", "nothing is slowed down"),
    Profile(
        "slow 4G",
        "1.6 Mbit/s down, 750 kbit/s up, 150 ms for each request, a processor four times slower: "
        "the figures of Lighthouse's preset. The goal is the first card within a second here",
        is_the_goal=True,
        latency=150,
        **_SLOW_4G,
    ),
    Profile(
        "slow 4G, long latency",
        "the same with 562.5 ms for each request, which DevTools uses for the same preset",
        latency=562.5,
        **_SLOW_4G,
    ),
)


@dataclass
class Seen:
    """One opening of the page: milliseconds since it was asked for, requests, bytes."""

    milliseconds: dict[str, float]
    requests: int
    received: int

    def __getitem__(self, name: str) -> float:
        return self.milliseconds[name]


def rounds(
    browser: Browser,
    url: str,
    profile: Profile,
    *,
    times: int,
    again: bool,
    cookies: Sequence[Any] = (),
) -> list[Seen]:
    """Open ``url`` so often, each time in a new browser profile; ``again``: for the second time."""
    found = []
    for _ in range(times):
        context = browser.new_context(viewport=PHONE)
        context.add_cookies(cookies)
        context.set_default_timeout(PATIENCE_MS)
        try:
            if again:
                with _page(context, profile) as first:
                    _open(first, url)
            with _page(context, profile) as page:
                found.append(_open(page, url))
        finally:
            context.close()
    return found


@contextmanager
def _page(context: BrowserContext, profile: Profile) -> Iterator[Page]:
    page = context.new_page()
    page.add_init_script(WATCH)
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": profile.latency,
            "downloadThroughput": profile.down / 8 if profile.down > 0 else -1,
            "uploadThroughput": profile.up / 8 if profile.up > 0 else -1,
        },
    )
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": profile.slower})
    yield page
    page.close()


def _open(page: Page, url: str) -> Seen:
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    sizes: list[int] = []
    devtools.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    page.goto(url, wait_until="load")
    page.wait_for_function(IS_OVER)
    page.wait_for_load_state("networkidle")
    return Seen(page.evaluate(READ), len(sizes), round(sum(sizes)))


def spread(seen: list[Seen], name: str) -> str:
    """Median, and the fastest and slowest round."""
    values = [each[name] for each in seen]
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"
