"""The file's schema: numbered steps in ``migrations/``, forward only, all in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.patience import Patience
from taskharbor.drivers.sqlite.queries import load
from taskharbor.errors import SchemaMismatch, StoreError

_SQL = load("transaction")
_STEPS = sorted((Path(__file__).parent / "migrations").glob("[0-9]*.sql"))
VERSION = len(_STEPS)
OLDEST_SQLITE = (3, 35, 0)


def version(connection: sqlite3.Connection) -> int:
    """The schema version in the file; 0 = none yet."""
    if connection.execute(_SQL["has_schema"]).fetchone() is None:
        return 0
    found: int = connection.execute(_SQL["schema"]).fetchone()[0]
    return found


def migrate(connection: sqlite3.Connection, address: Address) -> list[str]:
    """Take the steps that are missing; their names. Safe from many processes at once: the write
    lock lets one through, the others find nothing left to do. A crash leaves the old schema.

    Raises SchemaMismatch for a newer file.
    """
    check_library()
    patience = Patience(address.busy_timeout)
    if check(patience.retry(lambda: version(connection)), address.path) == VERSION:
        return []
    patience.retry(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        missing = _STEPS[check(version(connection), address.path) :]
        for step in missing:
            for statement in _statements(step.read_text(encoding="utf-8")):
                connection.execute(statement)
        connection.execute(_SQL["set_schema"], (VERSION,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [step.stem for step in missing]


def check(found: int, path: str) -> int:
    """``found``, unless it is newer than this code."""
    if found > VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {found}, written by a newer TaskHarbor; this one knows "
            f"up to {VERSION}. Upgrade with: pip install --upgrade taskharbor, or name another "
            "file in the URL"
        )
    return found


def require(found: int, path: str) -> None:
    """For a file that was migrated when it was opened: others may have migrated it since."""
    if check(found, path) != VERSION:
        raise SchemaMismatch(
            f"{path} went back to schema version {found}, this TaskHarbor needs {VERSION}; start "
            "this process anew"
        )


def check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}; TaskHarbor needs 3.35 or newer. "
            "Use a newer Python, or another store"
        )


def _statements(script: str) -> Iterator[str]:
    """Not ``executescript``: that commits first, and a crash would leave half a schema."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
