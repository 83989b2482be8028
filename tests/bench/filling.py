"""INSERT … SELECT, with what the statement leaves out filled from the model.

A year of sales through the domain's functions would take hours; written in bulk it takes a minute.
A column that a model gets later needs no word here: it gets its field's default.
"""

from typing import Any

from django.db import connection, models


def fill(model: type[models.Model], columns: dict[str, str], *, source: str, **numbers: Any) -> int:
    """Insert a row for each row of ``source``; return how many.

    ``columns`` is from attribute names to SQL expressions over ``source``, in which ``numbers`` are
    named parameters.
    """
    statement, parameters = insertion(model, columns, source=source, **numbers)
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def insertion(
    model: type[models.Model], columns: dict[str, str], *, source: str, **numbers: Any
) -> tuple[str, dict[str, Any]]:
    """The statement of ``fill`` and its parameters."""
    values = dict(columns)
    parameters = dict(numbers)
    for field in model._meta.concrete_fields:
        if field.attname in values or field.has_db_default() or field.generated:
            continue
        if isinstance(field, models.AutoField):
            continue
        default = None if field.null and not field.has_default() else field.get_default()
        parameters[f"default_{field.attname}"] = field.get_db_prep_save(default, connection)
        values[field.attname] = f"%(default_{field.attname})s"
    names = {field.attname: field.column for field in model._meta.concrete_fields}
    quote = connection.ops.quote_name
    into = ", ".join(quote(names[name]) for name in values)
    selected = ", ".join(values.values())
    table = quote(model._meta.db_table)
    # Names of our own models and expressions of this package.
    statement = f"INSERT INTO {table} ({into}) SELECT {selected} FROM {source}"  # noqa: S608
    return statement, parameters


def run(statement: str, **numbers: Any) -> None:
    """Send a statement, with named parameters."""
    with connection.cursor() as cursor:
        cursor.execute(statement, numbers)
