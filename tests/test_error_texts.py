"""Errors in words, and their tracebacks: what went wrong, and nothing of anybody's row."""

from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from offers.error_texts import in_words, traceback_of, without_quotes
from tests.refused_rows import SECRETS, refused_row

pytestmark = pytest.mark.django_db

REFUSED = (
    'null value in column "due_at" of relation "accounts_accountletter" violates not-null '
    "constraint"
)


def test_refused_row_is_told_without_what_was_in_it() -> None:
    error = refused_row()
    assert all(secret in str(error) for secret in SECRETS)
    assert in_words(error) == f"IntegrityError: {REFUSED}"
    assert in_words(error.__cause__) == f"NotNullViolation: {REFUSED}"  # type: ignore[arg-type]


def test_statement_with_its_values_is_not_told() -> None:
    with pytest.raises(DatabaseError) as wrong, transaction.atomic():
        connection.cursor().execute("SELECT no_function(%s)", ["Anna Secret"])
    assert "Anna Secret" in str(wrong.value)
    assert in_words(wrong.value) == "ProgrammingError: function no_function(unknown) does not exist"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("odd"), "ValueError: odd"),
        (ZeroDivisionError(), "ZeroDivisionError: "),
        (psycopg.OperationalError("connection failed"), "OperationalError: connection failed"),
        (ValueError("not stored: x\nDETAIL:  Anna\nSecret"), "ValueError: not stored: x"),
    ],
    ids=repr,
)
def test_other_errors_are_told_as_they_are(error: Exception, told: str) -> None:
    assert in_words(error) == told


def test_our_own_words_for_an_error_of_the_database_are_kept() -> None:
    error = DatabaseError("the letter can't be stored")
    error.__cause__ = refused_row().__cause__
    assert in_words(error) == "DatabaseError: the letter can't be stored"


def test_text_that_ends_with_an_error_ends_before_the_row_is_quoted() -> None:
    error = refused_row()
    for text in (f"Task x failed: {error!r}", f"It could not be done: {error}"):
        left = without_quotes(text)
        assert REFUSED in left
        assert not [secret for secret in SECRETS if secret in left]


def test_traceback_has_all_of_a_chain_but_the_row() -> None:
    def fail(row: Any) -> None:
        try:
            raise row
        except DatabaseError as error:
            raise RuntimeError(f"not stored: {error}") from error

    with pytest.raises(RuntimeError) as failed:
        fail(refused_row())
    told = traceback_of(failed.value)
    assert not [secret for secret in SECRETS if secret in told]
    assert told.count("Traceback (most recent call last):") == 3
    assert f"psycopg.errors.NotNullViolation: {REFUSED}\n\nThe above exception was" in told
    assert f"django.db.utils.IntegrityError: {REFUSED}\n\nThe above exception was" in told
    assert told.endswith(f"\nRuntimeError: not stored: {REFUSED}\n")
