"""Statements of the ORM whose SQL is made once a process and prepared once a connection.

For the few that every purchase sends. Django makes a query's SQL anew each time, which takes
several times as long as PostgreSQL needs to answer it, and PostgreSQL plans it anew each time. Here
a query is written with the ORM like any other, with ``Given`` in the places of its values, and the
SQL is kept: columns, joins, row locks and converters stay the ORM's business.

What a connection has prepared is gone with its next rollback, and made again: how psycopg
prepares: https://www.psycopg.org/psycopg3/docs/advanced/prepare.html
"""

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, TypeVar

import orjson
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models import Expression, Field, QuerySet
from django.db.models.query import get_related_populators
from django.db.models.sql import UpdateQuery
from django.db.transaction import TransactionManagementError
from django.db.utils import NotSupportedError
from prometheus_client import Histogram
from psycopg.types.json import Jsonb

M = TypeVar("M", bound=models.Model)
SQL = tuple[str, Sequence[Any]]


class Given(Expression):
    """The place of a value that is given by ``name`` each time the statement is sent."""

    def __init__(self, name: str, output_field: Field) -> None:
        super().__init__(output_field=output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", (self,)


class Among(Expression):
    """Whether a column's value is in the list that is given by ``name``, of the kind ``of``.

    ``= ANY``, so that a list of any length is the same SQL, which PostgreSQL prepares for each size
    of the numbers in it: psycopg sends the smallest kind that they fit in.
    """

    def __init__(self, column: str, name: str, of: Field) -> None:
        super().__init__(output_field=models.BooleanField())
        self._sources: list[Any] = [models.F(column), Given(name, of)]

    def get_source_expressions(self) -> list[Any]:
        return self._sources

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self._sources = list(exprs)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        column, given = self._sources
        sql, parameters = compiler.compile(column)
        of = given.output_field.db_type(connection)
        return f"{sql} = ANY(%s::{of}[])", (*parameters, given)


def _sent(sql: str, values: Sequence[Any]) -> Any:
    cursor = connection.prepared_cursor()  # type: ignore[attr-defined]  # offers_project.postgresql
    cursor.execute(sql, values)
    return cursor


class Statement(ABC):
    """SQL that is made when it is first needed, and sent with other values ever after."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sql: SQL | None = None

    @abstractmethod
    def _made(self) -> SQL:
        """The SQL and its parameters, with each ``Given`` among them still in its place."""

    def send_with_commit(self, *, timer: Histogram | None = None, **given: Any) -> None:
        """Send it in one go with the transaction's COMMIT; ``timer`` is told how long both took.

        Nobody gets its answer. Its errors come out of ``transaction.atomic``.
        """
        sql, values = self._filled(given)
        # The method is that of our own backend, offers_project.postgresql, here and below.
        connection.send_with_commit(sql, values, timer=timer)  # type: ignore[attr-defined]  # our backend's

    def _filled(self, given: dict[str, Any]) -> tuple[str, list[Any]]:
        """The SQL, and all its parameters with those that are ``given``."""
        if self._sql is None:
            with self._guard:
                self._sql = self._sql or self._made()
        sql, parameters = self._sql
        return sql, [given[p.name] if isinstance(p, Given) else p for p in parameters]

    def _send(self, given: dict[str, Any]) -> Any:
        """The cursor with the answer. Raises what any query of Django's raises.

        A migration that changes a column's type makes PostgreSQL refuse what was prepared before
        ("cached plan must not change result type"): that connection is given up, and outside a
        transaction the statement is sent over another.
        """
        sql, values = self._filled(given)
        # As often as there may be connections that have it prepared.
        for _ in range(max(settings.DB_POOL_SIZE, 1)):
            try:
                return _sent(sql, values)
            except NotSupportedError:
                connection.connection.close()
                if connection.in_atomic_block:
                    raise
                connection.close()
        return _sent(sql, values)


class Query(Statement, Generic[M]):
    """A SELECT that answers with instances, as the queryset that ``build`` returns would.

    ``select_related`` and annotations work; ``prefetch_related`` and ``values`` don't. One that
    locks has to be built and sent inside ``transaction.atomic``.
    """

    def __init__(self, build: Callable[[], QuerySet[M]]) -> None:
        super().__init__()
        self._build = build

    def _made(self) -> SQL:
        query = self._build().query
        compiler = query.get_compiler(connection=connection)
        sql: SQL = compiler.as_sql()
        info = compiler.klass_info
        first, last = info["select_fields"][0], info["select_fields"][-1] + 1
        self._model: type[M] = info["model"]
        self._own = slice(first, last)
        self._names = [column[0].target.attname for column in compiler.select[first:last]]
        self._related = get_related_populators(  # type: ignore[call-arg]  # stubs of Django 6
            info, compiler.select, connection.alias
        )
        self._annotations = compiler.annotation_col_map
        self._converters = compiler.get_converters(column[0] for column in compiler.select)
        self._compiler = compiler
        self._locks = query.select_for_update
        return sql

    def first(self, **given: Any) -> M | None:
        """The first row's instance, or ``None``; the query says itself that it wants one."""
        row = self._answer(given).fetchone()
        return None if row is None else self._instance(row)

    def all(self, **given: Any) -> list[M]:
        """The instances of all rows."""
        return [self._instance(row) for row in self._answer(given).fetchall()]

    def _answer(self, given: dict[str, Any]) -> Any:
        if self._sql is not None and self._locks and not connection.in_atomic_block:
            raise TransactionManagementError("select_for_update needs transaction.atomic.")
        return self._send(given)

    def _instance(self, row: Any) -> M:
        if self._converters:
            (row,) = self._compiler.apply_converters([row], self._converters)
        found = self._model.from_db(DEFAULT_DB_ALIAS, self._names, row[self._own])
        for related in self._related:
            related.populate(row, found)
        for name, column in self._annotations.items():
            setattr(found, name, row[column])
        return found


class Row(Statement):
    """A SELECT of plain values, mostly of one row, as ``values_list`` with ``build`` gives."""

    def __init__(self, build: Callable[[], QuerySet[Any, Any]]) -> None:
        super().__init__()
        self._build = build

    def _made(self) -> SQL:
        sql: SQL = self._build().query.get_compiler(connection=connection).as_sql()
        return sql

    def get(self, **given: Any) -> tuple[Any, ...] | None:
        """The first row's values as psycopg reads them, or ``None``."""
        row: tuple[Any, ...] | None = self._send(given).fetchone()
        return row

    def all(self, **given: Any) -> list[tuple[Any, ...]]:
        """Those of all rows."""
        rows: list[tuple[Any, ...]] = self._send(given).fetchall()
        return rows


class Update(Statement):
    """The UPDATE of the queryset's rows to the values, both of which ``build`` returns."""

    def __init__(self, build: Callable[[], tuple[QuerySet[Any], dict[str, Any]]]) -> None:
        super().__init__()
        self._build = build

    def _made(self) -> SQL:
        rows, values = self._build()
        query: Any = rows.query.chain(UpdateQuery)
        query.add_update_values(values)
        sql: SQL = query.get_compiler(connection=connection).as_sql()
        return sql


def _quoted(name: str | None) -> str:
    return str(connection.ops.quote_name(name or ""))


# What a field with nothing to convert or check leaves to psycopg as it is. That is most of a row,
# and Django asks half a dozen methods about each value. Not of whole numbers: by their size psycopg
# would choose among types, and have a statement prepared for each, were it not for Django's.
_PLAIN: dict[type[Field], type] = {
    models.BooleanField: bool,
    models.CharField: str,
    models.TextField: str,
    models.UUIDField: uuid.UUID,
    models.AutoField: int,
    models.BigAutoField: int,
}


class _Column:
    """A field whose values are stored, as the ORM would store them."""

    def __init__(self, field: Any) -> None:
        self.name = field.attname
        self._field = field
        while field.is_relation:
            field = field.target_field
        self._plain = _PLAIN.get(type(field))

    def stored(self, value: Any, database: Any) -> Any:
        """What is sent to the database for ``value``."""
        if value is None or type(value) is self._plain:
            return value
        return self._field.get_db_prep_save(value, database)


class Change(Generic[M]):
    """An UPDATE of some fields of one row of ``model``; one statement for each choice of fields."""

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._statements: dict[tuple[str, ...], tuple[str, list[_Column]]] = {}

    def run(self, row: M, values: dict[str, Any], *, with_commit: bool = False) -> None:
        """Write ``values`` to the row, which is there; the instance is left as it is.

        ``with_commit`` saves whoever waits for the row a trip, where the commit is what comes next.
        """
        database: Any = connections[DEFAULT_DB_ALIAS]
        sql, columns = self._statement(tuple(values))
        stored = [
            column.stored(value, database)
            for column, value in zip(columns, (*values.values(), row.pk), strict=True)
        ]
        send = database.send_with_commit if with_commit else database.prepared_cursor().execute
        send(sql, stored)

    def _statement(self, names: tuple[str, ...]) -> tuple[str, list[_Column]]:
        if names not in self._statements:
            meta, name = self._model._meta, _quoted
            fields: list[Any] = [meta.get_field(field) for field in names]
            changes = ", ".join(f"{name(field.column)} = %s" for field in fields)
            # The names are our own models'.
            sql = f"UPDATE {name(meta.db_table)} SET {changes} WHERE {name(meta.pk.column)} = %s"  # noqa: S608 - as said
            self._statements[names] = (sql, [_Column(field) for field in (*fields, meta.pk)])
        return self._statements[names]


class Insert(Generic[M]):
    """An INSERT of whole rows of ``model``; one statement for each number of rows at once."""

    def __init__(self, model: type[M]) -> None:
        self._model = model

    def run(self, rows: Sequence[M]) -> None:
        """Store ``rows`` and give them their keys. Raises what ``bulk_create`` raises."""
        self._run(self._sql(len(rows)), rows, self._values(rows), may_be_none=False)

    def run_with(self, other: "Insert[Any]", row: models.Model, rows: Sequence[M]) -> None:
        """Store ``row``, of another table and with its key, and ``rows``, which refer to it.

        One statement, and so a trip less than two.
        """
        sql = f"WITH other AS ({other._sql(1)}) {self._sql(len(rows))}"
        values = [*other._values([row]), *self._values(rows)]
        self._run(sql, rows, values, may_be_none=False)
        _is_stored(row, row.pk)

    def run_all_with(
        self, other: "Insert[Any]", parents: Sequence[models.Model], rows: Sequence[M]
    ) -> None:
        """Store several ``parents`` as ``run_with`` stores one, and the ``rows`` of them all.

        However many there are, it is one statement, prepared once, whose values are two texts of
        JSON: with a place for each value, psycopg would read it anew each time.
        """
        sql = f"WITH other AS ({other._many}) {self._many}"
        self._run(sql, rows, [other._json(parents), self._json(rows)], may_be_none=False)
        for row in parents:
            _is_stored(row, row.pk)

    def run_once(self, row: M) -> bool:
        """Store ``row`` unless there is its like already, and return whether it was stored.

        The table's constraints say what its like is. Raises nothing because of them, and so leaves
        the transaction as it is. Another transaction that is storing its like is waited for.
        """
        return self._run(f"{self._sql(1)} ON CONFLICT DO NOTHING", [row], self._values([row]))

    def run_if(self, update: "Update", row: M, **given: Any) -> bool:
        """Send ``update``, store ``row`` if there was one to change, and return whether there was.

        One statement, which is all done or not at all, in no transaction as in one. As every UPDATE
        it waits for whoever has locked the row, and then asks its condition again:
        https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
        """
        change, values = update._filled(given)
        insert = f"{self._into} SELECT {self._places} FROM changed"  # noqa: S608 - our own names
        sql = f"WITH changed AS ({change} RETURNING 1) {insert}"
        return self._run(sql, [row], [*values, *self._values([row])])

    def _run(
        self, sql: str, rows: Sequence[M], values: Sequence[Any], *, may_be_none: bool = True
    ) -> bool:
        """Store ``rows``, and return whether they were: all of them, or none if that may be."""
        keys = _sent(f"{sql} RETURNING {self._key}", values).fetchall()
        if may_be_none and not keys:
            return False
        for row, (key,) in zip(rows, keys, strict=True):
            _is_stored(row, key)
        return True

    def _sql(self, rows: int) -> str:
        return f"{self._into} VALUES {', '.join([f'({self._places})'] * rows)}"

    def _values(self, rows: Sequence[M]) -> list[Any]:
        database: Any = connections[DEFAULT_DB_ALIAS]
        return [
            column.stored(getattr(row, column.name), database)
            for row in rows
            for column in self._columns
        ]

    def _json(self, rows: Sequence[models.Model]) -> str:
        database: Any = connections[DEFAULT_DB_ALIAS]
        stored = [
            {
                field.column: column.stored(getattr(row, column.name), database)
                for field, column in zip(self._fields, self._columns, strict=True)
            }
            for row in rows
        ]
        return orjson.dumps(stored, default=_in_json).decode()

    @cached_property
    def _columns(self) -> Sequence[_Column]:
        return [_Column(field) for field in self._fields]

    @cached_property
    def _fields(self) -> list[Any]:
        fields = self._model._meta.concrete_fields
        return [field for field in fields if not isinstance(field, models.AutoField)]

    @cached_property
    def _names(self) -> str:
        return ", ".join(_quoted(field.column) for field in self._fields)

    @cached_property
    def _into(self) -> str:
        return f"INSERT INTO {_quoted(self._model._meta.db_table)} ({self._names})"

    @cached_property
    def _many(self) -> str:
        rows = f"json_populate_recordset(NULL::{_quoted(self._model._meta.db_table)}, %s::json)"
        return f"{self._into} SELECT {self._names} FROM {rows}"  # noqa: S608 - our own names

    @cached_property
    def _places(self) -> str:
        return ", ".join(["%s"] * len(self._fields))

    @cached_property
    def _key(self) -> str:
        return _quoted(self._model._meta.pk.column)


def _in_json(value: Any) -> Any:
    """What orjson doesn't know: what is JSON already, and numbers that must stay exact."""
    if isinstance(value, Jsonb):
        return value.obj
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"no column of ours has values of {type(value).__name__}")


def _is_stored(row: models.Model, key: Any) -> None:
    row.pk = key
    row._state.adding = False
    row._state.db = DEFAULT_DB_ALIAS
