"""The schema of a namespace: numbered migrations, applied forward only, under one lock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import psycopg

from taskharbor.errors import SchemaMismatch

_NAME = re.compile(r"(\d{4})_\w+\.sql\Z")
_PLACEHOLDER = re.compile(r"\bth\.")
_LOCK = 0x7468  # "th"
# (CREATE SCHEMA IF NOT EXISTS demands the right to make one also where it is there already: made by
# an administrator for a role that may make none.)
_BOOKKEEPING = """\
DO $$ BEGIN
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS {schema}.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


class Migration(NamedTuple):
    number: int
    name: str
    text: str


@cache
def migrations() -> list[Migration]:
    found = []
    for file in (files(__package__) / "migrations").iterdir():
        match = _NAME.match(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name[:-4], file.read_text()))
    return sorted(found)


def for_schema(text: str, schema: str) -> str:
    """SQL written for the schema ``th``, for ``schema`` (a quoted identifier). In strings as well:
    locks and channels are the schema's own by its name in theirs."""
    return _PLACEHOLDER.sub(f"{schema}.", text)


def version(connection: psycopg.Connection, statements: Mapping[str, bytes]) -> int:
    """The number of the last migration applied; 0 where there is no schema."""
    row = connection.execute(statements["find_migrations"]).fetchone()
    if row is None or row[0] is None:
        return 0
    (last,) = connection.execute(statements["last_migration"]).fetchone() or (0,)
    return int(last)


def migrate(
    connection: psycopg.Connection, schema: str, statements: Mapping[str, bytes]
) -> list[str]:
    """Apply what is missing, all in one transaction: killed half-way, nothing of it is there.

    Whoever comes at the same time waits and finds it done. Raises SchemaMismatch when the schema is
    from a newer TaskHarbor.
    """
    present = version(connection, statements)
    refuse_newer(present)
    if not missing(present):
        return []  # without waiting for anybody, and without the right to create a schema
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, schema))
        # Not only looked for: this session may still believe what it saw before it got the lock.
        connection.execute(_BOOKKEEPING.format(schema=schema).encode())
        present = version(connection, statements)
        refuse_newer(present)
        steps = missing(present)
        connection.execute(script(schema, steps).encode())
    return [step.name for step in steps]


def missing(present: int) -> list[Migration]:
    return [migration for migration in migrations() if migration.number > present]


def script(schema: str, steps: Sequence[Migration]) -> str:
    """The SQL that takes ``steps``, to be run in one transaction."""
    parts = [_BOOKKEEPING.format(schema=schema)]
    for step in steps:
        parts += (f"-- {step.name}", for_schema(step.text, schema))
        parts.append(
            f"INSERT INTO {schema}.migrations (number, name) VALUES ({step.number}, '{step.name}');"
        )
    return "\n".join(parts)


def check(present: int) -> None:
    """Raises SchemaMismatch unless the schema is this code's."""
    refuse_newer(present)
    if missing(present):
        found = f"at version {present}" if present else "not there yet"
        raise SchemaMismatch(
            f"the schema is {found}, this TaskHarbor needs version {migrations()[-1].number}; run: "
            "taskharbor migrate"
        )


def refuse_newer(present: int) -> None:
    known = migrations()[-1].number
    if present > known:
        raise SchemaMismatch(
            f"the schema is at version {present}, this TaskHarbor knows up to {known}; upgrade "
            "TaskHarbor here: an older version can't work with a newer schema"
        )
