"""Where a process can die so that it matters: around each commit and each call to Stripe.

Nobody lists the points. Between two effects on the outside world a process may die anywhere and
leave the same behind, so the moments just before and just after each effect are all there is to
try; and each effect passes one of the hooks below: the commit of a transaction, a statement that
commits by itself, a request over HTTP, a message to the mail server.
"""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import urllib3
from django.core.mail import get_connection
from django.db import connection

from offers_project.postgresql.base import DatabaseWrapper

# One that goes with another, in front of it, has the name of that one.
WRITE = re.compile(
    r'\s*(?:WITH \w+ AS \()?(INSERT INTO|UPDATE|DELETE FROM)\s+"?(\w+)', re.IGNORECASE
)
ID_OF_STRIPES = re.compile(r"/(cs_test|price|offer|re|pi)_\w+")


class Points:
    """Counts the points this process passes, tells each to ``report``, and dies at one of them.

    ``die_at`` is the number of a point, from 0, or what it is called; ``None`` survives.
    """

    def __init__(self, report: int, die_at: int | str | None) -> None:
        self._report = report
        self._die_at = die_at
        self._count = 0
        self._written: list[str] = []

    def install(self) -> None:
        """Hook into this process, for good: it is a fork that lives for one step."""
        connection.execute_wrappers.append(self._statement)
        commit, rollback = DatabaseWrapper._commit, DatabaseWrapper._rollback
        send = urllib3.HTTPConnectionPool.urlopen

        def hooked_commit(wrapper: DatabaseWrapper) -> None:
            written, self._written = self._written, []
            with self._around(f"COMMIT of {', '.join(written) or 'nothing'}"):
                commit(wrapper)

        def hooked_rollback(wrapper: DatabaseWrapper) -> None:
            self._written = []
            rollback(wrapper)

        def hooked_send(pool: Any, method: str, url: str, *rest: Any, **options: Any) -> Any:
            path = urlsplit(url).path
            if not path.startswith("/v1/"):
                return send(pool, method, url, *rest, **options)
            with self._around(f"{method} {ID_OF_STRIPES.sub('/{id}', path)}"):
                return send(pool, method, url, *rest, **options)

        server = type(get_connection())
        send_messages = server.send_messages

        def hooked_send_messages(backend: Any, messages: Any) -> Any:
            with self._around("e-mail"):
                return send_messages(backend, messages)

        server.send_messages = hooked_send_messages
        DatabaseWrapper._commit = hooked_commit
        DatabaseWrapper._rollback = hooked_rollback
        urllib3.HTTPConnectionPool.urlopen = hooked_send  # type: ignore[method-assign]  # for good

    def _statement(
        self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if sql.endswith("; COMMIT"):
            return execute(sql, params, many, context)  # sent by the commit that is hooked
        found = WRITE.match(sql)
        what = f"{found[1].split()[0].upper()} {found[2]}" if found else sql.split()[0]
        if context["connection"].in_atomic_block:
            if found:
                self._written.append(what)
            return execute(sql, params, many, context)
        if what.upper() == "SELECT":
            return execute(sql, params, many, context)
        with self._around(f"{what}, committed by itself"):
            return execute(sql, params, many, context)

    @contextmanager
    def _around(self, effect: str) -> Iterator[None]:
        self._reach(f"before {effect}")
        try:
            yield
        finally:  # also when the answer was lost: the effect may have been had
            self._reach(f"after {effect}")

    def _reach(self, point: str) -> None:
        os.write(self._report, f"{point}\n".encode())
        if self._die_at in (self._count, point):
            os.kill(os.getpid(), signal.SIGKILL)
        self._count += 1
