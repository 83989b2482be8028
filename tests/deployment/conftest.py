"""One stack for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.deployment import stack as stacks
from tests.deployment.shop import Shop
from tests.deployment.stack import Stack

# Limits that a crowd of tests from one address doesn't reach, and short times.
ENVIRONMENT = {
    "PURCHASE_RATE_LIMIT": "100000/m",
    "PURCHASE_RATE_LIMIT_IP": "100000/m",
    "LOGIN_RATE_LIMIT_IP": "3/h",
    "LOCK_TIMEOUT_MS": "1500",
    "RESERVATION_MINUTES": "0.15",
}


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    stacks.need_programs()
    folder = tmp_path_factory.mktemp("deployed")
    folder.chmod(0o755)
    stack = Stack(folder, **ENVIRONMENT)
    try:
        yield stack.start(with_pages=getattr(request.module, "WITH_PAGES", False))
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Iterator[Shop]:
    shop = Shop(stack)
    yield shop
    shop.close()
