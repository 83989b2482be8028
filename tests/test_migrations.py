"""A migration that would stop the service, or the version before it, doesn't get in."""

import importlib
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import purchases.migrations
from tests.migration_rules import BASELINE, EXCEPTIONS, Linter

# Indexes are made concurrently outside any transaction, also where only their SQL is asked for.
pytestmark = pytest.mark.django_db(transaction=True)

IMPORTS = """
from django.contrib.postgres.operations import (
    AddConstraintNotValid, AddIndexConcurrently, RemoveIndexConcurrently, ValidateConstraint,
)
from django.db import migrations, models
"""


@pytest.fixture
def faults_of(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[str]]]:
    """What is wrong with a migration of ``purchases`` after all others, given its operations."""
    package = "migrations_of_a_test"
    folder = tmp_path / package
    shutil.copytree(
        Path(purchases.migrations.__file__).parent, folder, ignore=shutil.ignore_patterns("__py*")
    )
    last = max(path.stem for path in folder.glob("0*.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.MIGRATION_MODULES = {"purchases": package}

    def lint(operations: str, *, atomic: bool = True) -> list[str]:
        (folder / "9999_next.py").write_text(
            f"{IMPORTS}\nclass Migration(migrations.Migration):\n    atomic = {atomic}\n"
            f"    dependencies = [('purchases', '{last}')]\n"
            f"    operations = [\n{textwrap.dedent(operations)}\n]\n",
            encoding="utf-8",
        )
        importlib.invalidate_caches()
        return Linter().faults_of("purchases", "9999_next")

    yield lint
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def codes(faults: list[str]) -> set[str]:
    return {fault.partition(":")[0] for fault in faults}


FOREIGN_KEY = "models.ForeignKey('refund', models.PROTECT, null=True, related_name='+', {options})"
DANGEROUS = {
    "NOT_NULL": "migrations.AddField('purchase', 'note', models.TextField(default='')),",
    "RENAME_COLUMN": "migrations.RenameField('purchase', 'quantity', 'units'),",
    "RENAME_TABLE": "migrations.AlterModelTable('purchase', 'orders'),",
    "DROP_COLUMN": "migrations.RemoveField('purchase', 'problem'),",
    "DROP_TABLE": "migrations.DeleteModel('dispute'),",
    "ALTER_COLUMN": "migrations.AlterField('purchase', 'quantity', models.BigIntegerField()),",
    "CREATE_INDEX": (
        "migrations.AddIndex('purchase', models.Index(fields=['currency'], name='by_currency')),"
    ),
    "DROP_INDEX": "migrations.RemoveIndex('purchase', 'purchase_by_buyer'),",
    "ADD_UNIQUE": (
        "migrations.AddConstraint("
        "'refund', models.UniqueConstraint(fields=['reason'], name='one_reason')),"
    ),
    "VALIDATED_CONSTRAINT": (
        "migrations.AddConstraint('purchase', models.CheckConstraint("
        "condition=models.Q(quantity__lt=9), name='few')),"
    ),
}


@pytest.mark.parametrize("code", DANGEROUS)
def test_migration_that_locks_or_breaks_is_caught(
    code: str, faults_of: Callable[..., list[str]]
) -> None:
    assert code in codes(faults_of(DANGEROUS[code]))


@pytest.mark.parametrize(
    ("options", "caught"),
    [("db_index=False", {"VALIDATED_CONSTRAINT"}), ("db_index=False, db_constraint=False", set())],
)
def test_foreign_key_is_caught_without_its_index_too(
    options: str, caught: set[str], faults_of: Callable[..., list[str]]
) -> None:
    field = FOREIGN_KEY.format(options=options)
    assert codes(faults_of(f"migrations.AddField('purchase', 'of', {field}),")) == caught


HARMLESS = {
    "a column that may be empty": (
        "migrations.AddField('purchase', 'note', models.TextField(null=True)),"
    ),
    "a column with a default of the database's": (
        "migrations.AddField('purchase', 'note', models.TextField(default='', db_default='')),"
    ),
    "a new table with all that belongs to it": """
        migrations.CreateModel('note', [
            ('id', models.BigAutoField(primary_key=True)),
            ('text', models.TextField(db_index=True)),
            ('purchase', models.ForeignKey('purchases.purchase', models.PROTECT)),
        ], options={'constraints': [
            models.CheckConstraint(condition=~models.Q(text=''), name='some_text'),
        ]}),
    """,
}


@pytest.mark.parametrize("what", HARMLESS)
def test_migration_that_does_no_harm_passes(what: str, faults_of: Callable[..., list[str]]) -> None:
    assert faults_of(HARMLESS[what]) == []


def test_index_that_is_made_and_dropped_concurrently_passes(
    faults_of: Callable[..., list[str]],
) -> None:
    operations = """
        AddIndexConcurrently('purchase', models.Index(fields=['currency'], name='by_currency')),
        RemoveIndexConcurrently('purchase', 'purchase_by_buyer'),
    """
    assert faults_of(operations, atomic=False) == []


def test_constraint_that_is_validated_apart_passes(faults_of: Callable[..., list[str]]) -> None:
    constraint = "models.CheckConstraint(condition=models.Q(quantity__lt=9), name='few')"
    assert faults_of(f"AddConstraintNotValid('purchase', {constraint}),") == []


def test_no_migration_stops_the_service() -> None:
    linter = Linter()
    assert {app for app, _ in linter.migration_loader.disk_migrations} >= set(BASELINE)
    new = linter.new_migrations()
    assert set(EXCEPTIONS) <= set(new)
    faulty = {
        f"{app}.{name}": faults
        for app, name in new
        if (app, name) not in EXCEPTIONS and (faults := linter.faults_of(app, name))
    }
    assert faulty == {}
