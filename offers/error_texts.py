"""Errors in words, for the log and for staff: without what PostgreSQL quotes in its own.

It quotes the row that it refuses, with whatever is in it: a name, an address. And it quotes the
statement, which has the values in it, as Django's cursors send it.
"""

import re
import traceback
from collections.abc import Iterator

import psycopg
from django.db.utils import Error

# The parts of PostgreSQL's message after its first, each on lines of its own, the values in them on
# as many as they have: https://www.postgresql.org/docs/current/protocol-error-fields.html
# After a line break, or what ``repr`` makes of one.
QUOTED = re.compile(r"(?:\n|\\n)(?:LINE \d+|DETAIL|QUERY|CONTEXT): .*", re.DOTALL)


def in_words(error: BaseException) -> str:
    """The error's type and what it says, to be logged and shown to staff."""
    return f"{type(error).__name__}: {_said(error)}"


def traceback_of(error: BaseException | None) -> str:
    """The traceback, without local variables, secrets among them, and without such quotes."""
    text = "".join(traceback.format_exception(error))
    for each in _with_causes(error):
        text = text.replace(str(each), _said(each))
    return text


def without_quotes(text: str) -> str:
    """A text that ends with what an error said, up to where PostgreSQL begins to quote."""
    return QUOTED.sub("", text)


def _said(error: BaseException) -> str:
    text = str(error)
    of_driver = error.__cause__ if isinstance(error, Error) else error
    if isinstance(of_driver, psycopg.Error):
        primary = of_driver.diag.message_primary
        if primary and text.startswith(primary):
            return primary
    return without_quotes(text)


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and all that a traceback tells with it."""
    found, waiting = set(), [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in found:
            found.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]
