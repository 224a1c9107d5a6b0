"""One call: a connection, a statement, its rows. Sent again when another transaction won."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import inf
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row

from taskharbor.clock import Clock
from taskharbor.drivers.postgres import faults, queries, schema
from taskharbor.drivers.postgres.address import Address
from taskharbor.drivers.postgres.connections import Connection, Connections
from taskharbor.drivers.postgres.statements import Rows, Statement

T = TypeVar("T")

CONFLICTS = 6
"""Times that a call is sent in all. Locks are taken in one order, so conflicts are rare; the pauses
add up to a third of a second."""
_FIRST_PAUSE = 0.005


class Store:
    """The statements of one namespace, and who to send them to."""

    def __init__(self, address: Address, clock: Clock | None) -> None:
        self.address = address
        self.connections = Connections(address)
        self._clock = clock
        self._statements = {
            name: schema.for_schema(text, address.schema).encode()
            for name, text in queries.load().items()
        }
        self.parsed = {name: Statement(text) for name, text in self._statements.items()}
        self._checked = False

    @property
    def now(self) -> float | None:
        """The injected clock's time; None = the server shall look at its own."""
        return None if self._clock is None else self._clock.now()

    def rows(self, name: str, /, **arguments: Any) -> Rows:
        """Run the statement in a transaction of its own. Raises StoreErrors."""
        statement = self.parsed[name]
        return self.call(lambda connection: connection.run(statement, arguments))

    def rows_over(self, connection: Connection, name: str, /, **arguments: Any) -> Rows:
        """As ``rows``, over a connection of the caller's, and sent once. Raises psycopg's errors as
        well."""
        self.connections.check()
        self._check(connection)
        return connection.run(self.parsed[name], arguments)

    def fetch(self, connection: psycopg.Connection[Any], name: str, /, **arguments: Any) -> Rows:
        """Run the statement, one with rows, on ``connection``, in its transaction. Raises psycopg's
        errors."""
        with _cursor(connection) as cursor:
            cursor.execute(self._statements[name], arguments, binary=True)
            return cursor.fetchall()  # which waits for them in a caller's pipeline

    def send(self, connection: psycopg.Connection[Any], name: str) -> None:
        """Run several statements at once, which take nothing and return nothing."""
        connection.execute(self._statements[name])

    def call(
        self,
        step: Callable[[Connection], T],
        *,
        check: bool = True,
        patience: float | None = None,
    ) -> T:
        """``step`` on a connection, again after a conflict. ``check`` the schema first.
        ``patience``: seconds for each statement, if not the URL's."""
        pause = _FIRST_PAUSE
        for left in reversed(range(CONFLICTS)):
            try:
                connection = self.connections.take()
                try:
                    connection.patience = patience or self.address.answer_seconds
                    if check:
                        self._check(connection)
                    return step(connection)
                finally:
                    self.connections.give_back(connection)
            except psycopg.Error as error:
                if left == 0 or not faults.is_conflict(error):
                    raise self.connections.translate(error) from error
            time.sleep(pause * random.random())
            pause *= 2
        raise AssertionError("the last turn returns or raises")

    def _check(self, connection: Connection) -> None:
        if not self._checked:
            schema.check(schema.version(connection, self._statements))
            self._checked = True

    def version(self) -> int:
        return self.call(lambda one: schema.version(one, self._statements), check=False)

    def pending(self) -> list[schema.Migration]:
        present = self.version()
        schema.refuse_newer(present)
        return schema.missing(present)

    def script(self) -> str:
        steps = self.pending()
        return schema.script(self.address.schema, steps) if steps else ""

    def migrate(self) -> list[str]:
        steps = self.call(
            lambda one: schema.migrate(one, self.address.schema, self._statements),
            check=False,
            patience=inf,
        )
        self._checked = False
        return steps

    def close(self) -> None:
        self.connections.close()


def _cursor(
    connection: psycopg.Connection[Any],
) -> AbstractContextManager[psycopg.Cursor[tuple[Any, ...]]]:
    """Rows as tuples, whatever a caller's own connection prefers."""
    if isinstance(connection, Connection):
        return connection.cursor_of_tuples()
    return psycopg.Cursor(connection, row_factory=tuple_row)
