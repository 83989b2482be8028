"""What a migration may do while the service goes on: django-migration-linter, and what it misses.

The rules and the ways around them are in docs/migrations.md. Wants PostgreSQL, whose SQL is read,
and so is a part of the tests and not of `make lint`.
"""

import re

from django_migration_linter.migration_linter import MigrationLinter
from django_migration_linter.sql_analyser import PostgresqlAnalyser
from django_migration_linter.sql_analyser.base import Check, CheckMode, CheckType

# The last ones that were there before anybody ran the service: they meet no row and no traffic.
BASELINE = {"offers": 7, "purchases": 12, "fulfillment": 6, "accounts": 1}
# Migrations after those that break a rule, and why they may: (app, name) -> reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}


VALIDATED = "ADD CONSTRAINT .* (?:CHECK|FOREIGN KEY) |ADD COLUMN .* REFERENCES "


def _validates_a_constraint(statements: list[str], **_: object) -> bool:
    """A CHECK or a foreign key that is added to a table reads all of it, and nobody writes then."""
    made = {found[1] for each in statements if (found := re.match(r'CREATE TABLE ("\w+")', each))}
    for each in statements:
        found = re.match(rf'ALTER TABLE ("\w+") (?:{VALIDATED})', each)
        if found and found[1] not in made and "NOT VALID" not in each:
            return True
    return False


class Analyser(PostgresqlAnalyser):
    """The linter's checks, and one more."""

    migration_checks = [  # noqa: RUF012 - as in the class above it
        *PostgresqlAnalyser.migration_checks,
        Check(
            code="VALIDATED_CONSTRAINT",
            fn=_validates_a_constraint,
            message="A constraint that isn't NOT VALID reads the whole table under a lock",
            mode=CheckMode.TRANSACTION,
            type=CheckType.ERROR,
        ),
    ]


class Linter(MigrationLinter):
    """Lints one migration at a time and returns what is wrong with it."""

    def __init__(self) -> None:
        super().__init__(no_cache=True, no_output=True, all_warnings_as_errors=True)
        self.sql_analyser_class = Analyser
        self._said: list[str] = []

    def print_errors(self, errors: list) -> None:
        self._said += [f"{error.code}: {error.message}" for error in errors]

    def faults_of(self, app: str, name: str) -> list[str]:
        self._said = []
        self.lint_migration(self.migration_loader.get_migration(app, name))
        return self._said

    def new_migrations(self) -> list[tuple[str, str]]:
        """Those of our apps that came after the baseline."""
        return sorted(
            (app, name)
            for app, name in self.migration_loader.disk_migrations
            if app in BASELINE and int(name[:4]) > BASELINE[app]
        )
