"""Fixtures: a browser, the site it looks at, Stripe's sandbox that calls the site back."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from playwright.sync_api import Browser, sync_playwright

from tests.browser.visitor import Visitor
from tests.conftest import WEBHOOK_SECRET, Sandbox
from tests.factories import UserFactory
from tests.sandbox_process import SandboxProcess, wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    # Loopback is all it talks to, whatever proxy the environment names.
    "--no-proxy-server",
]


def program() -> str:
    """The browser: CHROMIUM, or what is installed. Without one, tests are skipped outside CI."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    missing = "No browser: install chromium (Debian: apt-get install chromium), or set CHROMIUM."
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def pytest_runtest_setup() -> None:
    """Skip here, not in the fixture: pytest then says it once, with a count."""
    program()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module.

    Not for longer: Playwright keeps an event loop running in the thread of the tests, in which
    `asyncio.run` of other modules would refuse to start.
    """
    executable = program()
    # Chromium's sandbox needs an ordinary user.
    arguments = [*ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else ARGUMENTS
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Because of that loop Django takes the tests for coroutines and refuses queries to them.
        # No coroutine of ours runs in it, so nothing can share a connection by accident.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()
        # Under a running loop Django keeps connections apart; the pool wants these back.
        connections.close_all()


@pytest.fixture
def visit(browser: Browser, live_server: Any) -> Iterator[Callable[..., Visitor]]:
    """Open a window: ``visit(user, size=PHONE)``. What went wrong in it fails the test."""
    visitors: list[Visitor] = []

    def make(user: User | None = None, **options: Any) -> Visitor:
        visitors.append(Visitor(browser, live_server.url, user=user, **options))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.close()
    problems = [problem for visitor in visitors for problem in visitor.problems]
    assert not problems, "\n".join(dict.fromkeys(problems))


@pytest.fixture
def superuser() -> User:
    user: User = UserFactory(username="superuser", is_staff=True, is_superuser=True)
    return user


@pytest.fixture(scope="module")
def calling_sandbox(live_server: Any) -> Iterator[SandboxProcess]:
    url = f"{live_server.url}/api/v1/webhooks/stripe/"
    process = SandboxProcess().start(webhook_url=url, webhook_secret=WEBHOOK_SECRET)
    yield process
    process.stop()


@pytest.fixture
def stripe(calling_sandbox: SandboxProcess, settings: Any) -> Iterator[Sandbox]:
    """Stripe's sandbox, whose webhooks reach the site by themselves, over HTTP."""
    calling_sandbox.control("reset")
    settings.STRIPE_API_BASE = calling_sandbox.base_url
    settings.FRONTEND_URL = ""  # buyers come back to the site that they left
    yield Sandbox(calling_sandbox)
    # No webhook may arrive in the next test's database.
    wait_for(lambda: all(map(delivered, calling_sandbox.get("webhooks")["data"])))
    calling_sandbox.control("reset")


def delivered(webhook: dict[str, Any]) -> bool:
    return bool(webhook["attempts"]) and webhook["attempts"][-1]["status"] == 200
