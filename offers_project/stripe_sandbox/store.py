"""The sandbox's memory: dictionaries, and a SQLite file behind them when one is given."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

KINDS = (
    "products",
    "prices",
    "sessions",
    "line_items",
    "payment_intents",
    "charges",
    "refunds",
    "refund_failures",
    "disputes",
    "events",
    "deliveries",
    "idempotency",
    "requests",
    "settings",
)


class Store:
    """Records by kind and id, in the order in which they were first put.

    Reads never touch the file. `put` and `remove` change the memory at once and are written by the
    next `commit`, all in one transaction, so that a killed sandbox comes back with whole steps
    only.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Open `file`, or keep all in memory; raises sqlite3.Error for a file SQLite can't use."""
        self._kinds: dict[str, dict[str, Record]] = {kind: {} for kind in KINDS}
        self._changed: dict[tuple[str, str], Record | None] = {}
        self._file = self._open(file) if file is not None else None

    def _open(self, file: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing this way; only a power cut could, and this is a sandbox.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY AUTOINCREMENT,"
            " kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, id))"
        )
        for kind, key, body in connection.execute(
            "SELECT kind, id, body FROM records ORDER BY seq"
        ):
            if kind in self._kinds:
                self._kinds[kind][key] = json.loads(body)
        return connection

    def get(self, kind: str, key: str) -> Record | None:
        return self._kinds[kind].get(key)

    def put(self, kind: str, key: str, record: Record) -> None:
        """Keep `record`, which stays the caller's object: changed again, it must be put again."""
        self._kinds[kind][key] = record
        self._changed[kind, key] = record

    def remove(self, kind: str, key: str) -> None:
        if self._kinds[kind].pop(key, None) is not None:
            self._changed[kind, key] = None

    def all(self, kind: str) -> dict[str, Record]:
        """The records of a kind, oldest first: a view for reading, not a copy."""
        return self._kinds[kind]

    def commit(self) -> None:
        """Write what changed since the last commit. Called before an answer leaves the sandbox."""
        if self._file is not None and self._changed:
            self._file.execute("BEGIN")
            for (kind, key), record in self._changed.items():
                if record is None:
                    self._file.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, key))
                else:
                    # An update keeps the row's place, which is the order of every list.
                    self._file.execute(
                        "INSERT INTO records (kind, id, body) VALUES (?, ?, ?)"
                        " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                        (kind, key, json.dumps(record)),
                    )
            self._file.execute("COMMIT")
        self._changed.clear()

    def forget(self, *, keep: Iterable[str] = ()) -> None:
        """Drop every record except those of the kinds in `keep`."""
        kept = set(keep)
        for kind in KINDS:
            if kind not in kept:
                for key in list(self._kinds[kind]):
                    self.remove(kind, key)
        self.commit()

    def close(self) -> None:
        self.commit()
        if self._file is not None:
            self._file.close()
            self._file = None
