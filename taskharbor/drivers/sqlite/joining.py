"""Enqueueing in a caller's own transaction: the jobs come with its commit, or not at all.

The caller's tables and the jobs have to be in the same file. SQLite has no promise over two:
a crash between two commits would leave one without the other.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from taskharbor.drivers.sqlite import faults
from taskharbor.drivers.sqlite.transaction import Store, Tx
from taskharbor.errors import ConfigurationError

T = TypeVar("T")


def join(store: Store, connection: object, step: Callable[[Tx], T], *, new_jobs: int) -> T:
    """Take ``step`` in the transaction that is open on ``connection``: done when that commits. On
    an error the transaction is as it was before the call.

    Raises ConfigurationError for a connection that can't be joined.
    """
    joined = _joined(connection, store.address.path)
    joined.execute("SAVEPOINT taskharbor_enqueue")
    try:
        tx = store.adopt(joined, new_jobs=new_jobs)
        answer = step(tx)
        tx.write_counts()
    except BaseException as error:
        joined.execute("ROLLBACK TO taskharbor_enqueue")
        joined.execute("RELEASE taskharbor_enqueue")
        if isinstance(error, sqlite3.Error):
            raise faults.translate(error, store.address.path) from error
        raise
    joined.execute("RELEASE taskharbor_enqueue")
    # Too early, but who hears it looks again in a moment; nobody tells us of the commit.
    store.ring()
    return answer


class _Joined:
    """The caller's connection, without its row factory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, arguments: Sequence[Any] = (), /) -> sqlite3.Cursor:
        return self._cursor().execute(statement, arguments)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> sqlite3.Cursor:
        return self._cursor().executemany(statement, rows)

    def _cursor(self) -> sqlite3.Cursor:
        cursor = self._connection.cursor()
        cursor.row_factory = None
        return cursor


def _joined(connection: object, path: str) -> _Joined:
    if not isinstance(connection, sqlite3.Connection):
        raise ConfigurationError(
            f"connection= is a {type(connection).__qualname__}; pass the sqlite3.Connection under "
            "it (Django: connection.connection, SQLAlchemy: connection.connection.dbapi_connection)"
        )
    if not connection.in_transaction:
        if connection.isolation_level is None:
            raise ConfigurationError(
                "connection= has no open transaction to join; begin one, or leave out connection="
            )
        # As sqlite3 itself does before the first statement that writes.
        connection.execute("BEGIN IMMEDIATE")
    joined = _Joined(connection)
    for _, name, file in joined.execute("PRAGMA database_list"):
        if name == "main" and file and os.path.exists(path) and os.path.samefile(file, path):
            return joined
    raise ConfigurationError(
        f"connection= is to another database than {path}; a transaction can't span two files: keep "
        "the jobs in the file of your own tables, or leave out connection="
    )
