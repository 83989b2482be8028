"""A person in front of a browser, and everything that went wrong there while they looked."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, ConsoleMessage, Locator, Request, Response, expect

ROOT = Path(__file__).resolve().parents[2]
# Where the pictures go; each run overwrites those of the one before.
SHOTS = Path(os.environ.get("SCREENSHOTS") or ROOT / ".screenshots")

DESKTOP = (1280, 900)
PHONE = (390, 844)
HIGHEST = 4000
# More than a slow machine needs for a page; less than pytest's own patience.
PATIENCE_MS = 20_000
# What keeps somebody from using a page. The rest of axe's findings is advice.
GRAVE = ("serious", "critical")
OUR_HOSTS = ("127.0.0.1", "localhost")

# Elements that reach beyond the window and are not in a box that scrolls by itself.
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  const boxed = e => {
    for (let up = e.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== 'visible') return true;
    return false;
  };
  return [...document.body.querySelectorAll('*')]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !boxed(e))
    .slice(0, 3)
    .map(e => e.outerHTML.split('>')[0].replace(/\\s+/g, ' ').slice(0, 160) + '>');
}"""
# Cells of lists that are lower or narrower than what they say.
CUT_OFF = """() => [...document.querySelectorAll('#result_list :is(td, th)')]
  .filter(e => e.clientHeight
    && (e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1))
  .slice(0, 3)
  .map(e => e.textContent.trim().replace(/\\s+/g, ' ').slice(0, 80))"""
# What of axe's answer is shown; all of it would be megabytes for each page. `preload` fetches every
# stylesheet again for one experimental rule that is off by default.
BARRIERS = """grave => axe.run({resultTypes: ['violations'], preload: false}).then(result =>
  result.violations.filter(found => grave.includes(found.impact)).map(found => ({
    id: found.id, impact: found.impact, help: found.help, times: found.nodes.length,
    where: found.nodes.slice(0, 4).map(node => node.target.join(' ')),
    why: found.nodes[0].failureSummary || '',
  })))"""
# Alpine.js takes the cloak off when it has done its part.
SETTLED = """() => document.readyState === 'complete'
  && document.fonts.status === 'loaded'
  && !document.documentElement.hasAttribute('x-cloak')"""


class Visitor:
    """One person's browser window. ``problems`` must be empty in the end."""

    def __init__(
        self,
        browser: Browser,
        base_url: str,
        *,
        user: User | None = None,
        size: tuple[int, int] = DESKTOP,
        dark: bool = False,
        scripts: bool = True,
        locale: str = "en-US",
        zone: str | None = None,
    ) -> None:
        self.base_url = base_url
        self.problems: list[str] = []
        self._expected: set[str] = set()
        self.context = browser.new_context(
            base_url=base_url,
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            accept_downloads=True,
            java_script_enabled=scripts,
            locale=locale,
            timezone_id=zone,
        )
        self.context.set_default_timeout(PATIENCE_MS)
        if user is not None:
            self._enter_as(user)
        self.page = self.context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._note(f"script failed: {error}"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.page.on("requestfailed", self._failed)

    def _enter_as(self, user: User) -> None:
        """Be logged in; one test goes through the login page, the others needn't."""
        client = Client()
        client.force_login(user, backend="offers_project.login.ByMembership")
        self.context.add_cookies(
            [
                {
                    "name": "sessionid",
                    "value": client.cookies["sessionid"].value,
                    "url": self.base_url,
                }
            ]
        )

    # -- What goes wrong meanwhile ----------------------------------------------------------------

    def _note(self, problem: str) -> None:
        self.problems.append(f"{urlsplit(self.page.url).path}: {problem}")

    def _heard(self, message: ConsoleMessage) -> None:
        known = message.location.get("url") in self._expected
        if message.type == "error" and not known:
            self._note(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https") and address.hostname not in OUR_HOSTS:
            self._note(f"asks somebody else: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.url not in self._expected:
            self._note(f"{response.status} from {response.request.method} {response.url}")

    def _failed(self, request: Request) -> None:
        # Aborted is what a new page or a download does to what was still under way.
        if request.failure != "net::ERR_ABORTED":
            self._note(f"{request.failure} at {request.url}")

    # -- What they do -----------------------------------------------------------------------------

    def open(self, path: str, *, status: int = 200) -> None:
        """Go to ``path``, which answers with ``status``, and wait until the page is at rest."""
        if status >= 400:
            self._expected.add(urljoin(self.base_url, path))
        answer = self.page.goto(path)
        assert answer is not None
        if answer.status != status:
            self._note(f"{path} answered {answer.status}, not {status}")
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_function(SETTLED)

    def resize(self, size: tuple[int, int]) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})

    def field(self, label: str) -> Locator:
        """The field whose label begins with ``label``; a required one's ends with a star."""
        pattern = re.compile(rf"^{re.escape(label)}\s*[*:]*$", re.IGNORECASE)
        return self.page.locator("#content").get_by_label(pattern).first

    def box(self, label: str) -> Locator:
        """The box of a field with autocompletion."""
        named = self.page.get_by_role("combobox", name=re.compile(rf"^{re.escape(label)}\b"))
        return self.page.locator("#content .select2-selection").and_(named)

    def choices(self, label: str, sought: str) -> list[str]:
        """What the field ``label`` offers for the text ``sought``."""
        self.box(label).click()
        with self.page.expect_response(re.compile("/autocomplete/.*term=[^&]")):
            self.page.locator(".select2-search__field:focus").press_sequentially(sought)
        results = self.page.locator(".select2-results__option:not(.loading-results)")
        expect(self.page.locator(".loading-results")).to_have_count(0)
        found = [text for text in results.all_inner_texts() if text != "No results found"]
        self.page.keyboard.press("Escape")
        return found

    def choose(self, label: str, option: str) -> None:
        """Pick ``option`` in a field with autocompletion, by typing it."""
        self.box(label).click()
        self.page.locator(".select2-search__field:focus").press_sequentially(option)
        self.page.get_by_role("option", name=option, exact=True).click()

    def press(self, button: str) -> None:
        """Press a button that leads to another page, and wait for it to be at rest."""
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=button, exact=True).click()
        self.settle()

    def focused(self) -> Locator:
        return self.page.locator(":focus")

    def tab_to(self, target: Locator, *, most: int = 120) -> int:
        """Press Tab until ``target`` has the focus; how often it took."""
        for presses in range(1, most + 1):
            self.page.keyboard.press("Tab")
            if target.evaluate("e => e === document.activeElement"):
                assert self.shows_focus(), f"No ring around {target}"
                return presses
        raise AssertionError(f"{most} times Tab did not lead to {target}")

    def shows_focus(self) -> bool:
        """Whether the focused element, or what is around it, has an outline or a ring."""
        return bool(
            self.page.evaluate(
                """() => {
                  let e = document.activeElement;
                  for (let i = 0; e && i < 3; i++, e = e.parentElement) {
                    const s = getComputedStyle(e);
                    if (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0) return true;
                  }
                  return false;
                }"""
            )
        )

    # -- What a page has to be --------------------------------------------------------------------

    def look(self, name: str) -> None:
        """Judge the page as it is now, and take its picture under ``name``."""
        self._note_width()
        if cut := self.page.evaluate(CUT_OFF):
            self._note(f"cuts off: {cut}")
        self._note_barriers()
        self.shoot(name)

    def _note_width(self) -> None:
        page = self.page
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            width = page.viewport_size["width"] if page.viewport_size else 0
            self._note(f"scrolls sideways at {width} px: {page.evaluate(TOO_WIDE)}")

    def _note_barriers(self) -> None:
        """axe-core's serious and critical findings; there is no list of exceptions."""
        if self.page.evaluate("typeof axe === 'undefined'"):
            self.page.evaluate(AXE_SCRIPT)
        for found in self.page.evaluate(BARRIERS, list(GRAVE)):
            why = re.sub(r"\s+", " ", found["why"])
            self._note(
                f"axe {found['id']} ({found['impact']}), {found['times']} times: "
                f"{'; '.join(found['where'])} | {found['help']} | {why[:300]}"
            )

    def shoot(self, name: str) -> None:
        """A picture of the whole page, ``NAME-WIDTH.png`` in the folder of pictures."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        page = self.page
        size = page.viewport_size or {"width": 0, "height": 0}
        # As high as the page, for what sticks to the window's edges.
        height = page.evaluate("document.documentElement.scrollHeight")
        self.resize((size["width"], max(size["height"], min(height, HIGHEST))))
        page.screenshot(
            path=SHOTS / f"{name}-{size['width']}.png", full_page=True, animations="disabled"
        )
        self.resize((size["width"], size["height"]))

    def see(self, text: str | re.Pattern[str], **options: Any) -> None:
        """Wait until ``text`` can be seen in the page's content."""
        expect(self.page.locator("#content").get_by_text(text, **options).first).to_be_visible()

    def close(self) -> None:
        self.context.close()
