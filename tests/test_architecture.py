"""The house keeps its shape: which module may import which, what is on one page with what."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command

import offers.errors
import purchases.errors
from fulfillment.states import state_diagram as fulfillment_diagram
from offers.errors import DomainError, InventoryError, OfferUnavailable
from offers_project.http_errors import HTTP_STATUS
from purchases.states import state_diagram

ROOT = Path(__file__).resolve().parent.parent
APPS = ("offers", "purchases", "fulfillment")
OURS = (*APPS, "offers_project", "tests")
SANDBOX = "offers_project.stripe_sandbox"
LOCAL = "offers_project.local"
GATEWAY = "purchases.stripe_gateway"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    paths = [ROOT / "manage.py"]
    for package in (*APPS, "offers_project"):
        paths += sorted((ROOT / package).rglob("*.py"))
    return paths


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, anywhere in it; relative ones resolved."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*start, *filter(None, [node.module])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {ast.literal_eval(a) for a in node.args if isinstance(a, ast.Constant)}
    return found


IMPORTS = {module_name(path): imports_of(path) for path in sources()}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def arrows(importers: str, *forbidden: str) -> list[str]:
    """The imports that lead from ``importers`` to where they must not."""
    return sorted(
        f"{module} imports {imported}"
        for module, found in IMPORTS.items()
        if within(module, importers)
        for imported in found
        if within(imported, *forbidden)
    )


@pytest.mark.parametrize(
    ("importer", "forbidden"),
    [
        ("offers", ("purchases", "fulfillment", "offers_project", "tests")),
        ("purchases", ("fulfillment", "offers_project", "tests")),
        ("fulfillment", ("offers_project", "tests")),
        ("offers_project", ("tests",)),
    ],
)
def test_no_import_goes_against_the_arrows(importer: str, forbidden: tuple[str, ...]) -> None:
    assert arrows(importer, *forbidden) == []


def test_imports_are_really_read() -> None:
    """The test above would pass as well if nothing were found."""
    assert within("offers.models", "offers")
    assert "offers.inventory" in IMPORTS["purchases.transitions"]
    assert "purchases.errors" in IMPORTS["offers_project.http_errors"]
    assert f"{SANDBOX}.app" in IMPORTS[f"{SANDBOX}.server"]  # a relative one
    assert arrows("purchases", "offers") != []


def test_only_the_gateway_imports_stripe() -> None:
    importers = {m for m, found in IMPORTS.items() if any(within(i, "stripe") for i in found)}
    assert {module for module in importers if within(module, *APPS)} == {GATEWAY}


def test_nobody_writes_the_counters_but_inventory() -> None:
    """Counters are assigned or updated in one module; everybody else only reads them."""
    counters = {"inventory_reserved", "inventory_sold"}
    writers = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            targets = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AugAssign):
                targets = [node.target]
            elif (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith(".update")
                and counters & {keyword.arg for keyword in node.keywords}
            ):
                writers.add(module_name(path))
            writers |= {
                module_name(path)
                for target in targets
                if isinstance(target, ast.Attribute) and target.attr in counters
            }
    assert writers == {"offers.inventory"}


def test_stripe_sandbox_knows_nothing_of_us() -> None:
    foreign = [
        arrow
        for arrow in arrows(SANDBOX, *OURS, "django", "rest_framework", "celery")
        if not within(arrow.split(" imports ")[1], SANDBOX)
    ]
    assert foreign == []


def test_only_the_command_line_and_the_settings_know_the_local_run() -> None:
    importers = {
        module
        for module, found in IMPORTS.items()
        if not within(module, LOCAL) and any(within(imported, LOCAL) for imported in found)
    }
    assert importers <= {"manage", "offers_project.settings"}


def test_settings_import_the_local_run_only_without_a_database_url() -> None:
    """At the top level of settings, the import stands inside an `if` about DATABASE_URL."""
    tree = ast.parse((ROOT / "offers_project" / "settings.py").read_text())
    outside = [
        statement
        for statement in tree.body
        if LOCAL in ast.unparse(statement)
        and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(statement))
        and not (isinstance(statement, ast.If) and "DATABASE_URL" in ast.unparse(statement.test))
    ]
    assert [ast.unparse(statement) for statement in outside] == []


def test_a_web_process_loads_what_few_pages_need_with_the_first_of_them() -> None:
    """Megabytes of each process, for files and calendar entries that most never make."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, offers_project.wsgi; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert "offers_project.urls" in loaded
    assert "import_export.admin" in loaded
    assert not {"openpyxl", "icalendar"} & set(loaded)


def test_no_module_is_named_after_nothing() -> None:
    forbidden = {"signals", "utils", "helpers", "services", "common", "misc"}
    modules = [module for module in IMPORTS if set(module.split(".")) & forbidden]
    assert modules == []
    uses = [m for m, found in IMPORTS.items() for i in found if "django.db.models.signals" in i]
    assert uses == []


# -- Errors ---------------------------------------------------------------------------------------

ABSTRACT = {DomainError, OfferUnavailable, InventoryError}


def subclasses(error: type[DomainError]) -> Iterator[type[DomainError]]:
    for child in error.__subclasses__():
        yield child
        yield from subclasses(child)


def every_error() -> set[type[DomainError]]:
    """Every domain error of our apps, wherever it is defined."""
    for app in APPS:
        package = importlib.import_module(app)
        for module in pkgutil.walk_packages(package.__path__, f"{app}."):
            if ".migrations" not in module.name and ".management" not in module.name:
                importlib.import_module(module.name)
    return set(subclasses(DomainError)) - ABSTRACT


def test_every_domain_error_has_a_status() -> None:
    found = every_error()
    assert offers.errors.SoldOut in found
    assert purchases.errors.ProviderUnreachable in found
    missing = sorted(error.__name__ for error in found if error not in HTTP_STATUS)
    assert missing == []
    assert set(HTTP_STATUS) <= found


def test_base_classes_of_errors_are_never_raised() -> None:
    names = {error.__name__ for error in ABSTRACT}
    raised = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if ast.unparse(what).split(".")[-1] in names:
                    raised.append(f"{module_name(path)}:{node.lineno}")
    assert raised == []


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (403, {"not_eligible", "not_registered"}),
        (404, {"not_found"}),
        (
            409,
            {
                "insufficient_inventory", "sold_out", "offer_inactive", "offer_archived",
                "offer_not_started", "offer_expired", "purchase_limit_reached",
                "too_many_open_holds", "idempotency_key_in_use", "not_cancellable",
            },
        ),
        (422, {"idempotency_key_reused"}),
        (503, {"payment_provider_unavailable", "purchases_disabled", "busy"}),
    ],
)  # fmt: skip
def test_contracts_codes_answer_with_the_contracts_status(status: int, codes: set[str]) -> None:
    assert codes <= {error.code for error, mapped in HTTP_STATUS.items() if mapped == status}


def test_every_503_says_when_to_come_back() -> None:
    silent = [
        e.__name__ for e, status in HTTP_STATUS.items() if status == 503 and not e.retry_after
    ]
    assert silent == []


def test_every_error_tells_a_person_something() -> None:
    """Either the class has a message of its own or its constructor makes one."""
    mute = [
        error.__name__
        for error in every_error()
        if error.message == DomainError.message
        and error.__init__ is DomainError.__init__
        # Raised with a message of the moment.
        and error.__name__
        not in (
            "PaymentMismatch",
            "InvalidRefundAmount",
            "CannotDeliver",
            "InvalidTime",
            "InvalidSeries",
        )
    ]
    assert mute == []


# -- Files that must agree with the code ----------------------------------------------------------


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_readme_shows_the_state_diagram_of_the_code() -> None:
    blocks = re.findall(
        r"^```mermaid\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert state_diagram() in blocks
    assert fulfillment_diagram() in blocks


SETTINGS = (
    "SECRET_KEY DEBUG ALLOWED_HOSTS DATABASE_URL REDIS_URL STRIPE_SECRET_KEY "
    "STRIPE_WEBHOOK_SECRETS STRIPE_API_BASE FRONTEND_URL RESERVATION_MINUTES PURCHASE_RATE_LIMIT "
    "PURCHASE_RATE_LIMIT_IP MAX_QUANTITY_PER_PURCHASE MAX_OPEN_HOLDS_PER_USER LOGIN_RATE_LIMIT "
    "LOGIN_RATE_LIMIT_IP ACCESS_TOKEN_MINUTES EMAIL_URL LOG_LEVEL LOG_FORMAT"
).split()


@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_of_the_contract_is_read_and_listed(setting: str) -> None:
    settings = (ROOT / "offers_project" / "settings.py").read_text()
    assert f'"{setting}"' in settings
    example = (ROOT / ".env.example").read_text()
    assert re.search(rf"^#?\s*{setting}=", example, re.MULTILINE)


def test_every_setting_that_is_read_is_listed() -> None:
    settings = (ROOT / "offers_project" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|required_in_production)\(\s*"([A-Z_]+)"', settings))
    # Set by our own tools, never by a person.
    internal = {"LOCAL_RUN", "OFFERS_OFFLINE", "DRAINING_FILE"}
    listed = set(re.findall(r"^#?\s*([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert sorted(read - internal - listed) == []
