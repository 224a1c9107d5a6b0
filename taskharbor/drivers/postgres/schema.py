"""The schema of a namespace: numbered migrations, applied forward only, under one lock."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple

import psycopg

from taskharbor.errors import SchemaMismatch

_NAME = re.compile(r"(\d{4})_\w+\.sql\Z")
_PLACEHOLDER = re.compile(r"\bth\.")
_LOCK = 0x7468  # "th"


class Migration(NamedTuple):
    number: int
    name: str
    text: str


def migrations() -> list[Migration]:
    found = []
    for file in (files(__package__) / "migrations").iterdir():
        match = _NAME.match(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name[:-4], file.read_text()))
    return sorted(found)


def for_schema(text: str, schema: str) -> str:
    """SQL written for the schema ``th``, for ``schema`` (a quoted identifier)."""
    return _PLACEHOLDER.sub(lambda _: f"{schema}.", text)


def version(connection: psycopg.Connection, schema: str) -> int:
    """The number of the last migration applied; 0 where there is no schema."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{schema}.migrations",)).fetchone()
    if row is None or row[0] is None:
        return 0
    found = connection.execute(f"SELECT coalesce(max(number), 0) FROM {schema}.migrations")
    return int((found.fetchone() or (0,))[0])


def migrate(connection: psycopg.Connection, schema: str) -> list[str]:
    """Apply what is missing, all in one transaction: killed half-way, nothing of it is there.

    Raises SchemaMismatch when the schema is from a newer TaskHarbor.
    """
    applied = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, schema))
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {schema}.migrations (number integer PRIMARY KEY, "
            "name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        present = version(connection, schema)
        check(present)
        for migration in migrations():
            if migration.number > present:
                connection.execute(for_schema(migration.text, schema).encode())
                connection.execute(
                    f"INSERT INTO {schema}.migrations (number, name) VALUES (%s, %s)",
                    (migration.number, migration.name),
                )
                applied.append(migration.name)
    return applied


def check(present: int) -> None:
    """Raises SchemaMismatch for a schema newer than this code."""
    known = migrations()[-1].number
    if present > known:
        raise SchemaMismatch(
            f"the schema is at version {present}, this TaskHarbor knows up to {known}; "
            "upgrade TaskHarbor here: an older version can't work with a newer schema"
        )
