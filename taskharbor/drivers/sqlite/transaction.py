"""One transaction: the store's time, the statements, and what has to be known when it ends."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from taskharbor.clock import Clock, SystemClock
from taskharbor.drivers.sqlite import faults, schema
from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.connections import Connections, Slot
from taskharbor.drivers.sqlite.patience import Patience
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.wake import ring
from taskharbor.errors import SchemaMismatch
from taskharbor.states import State

_SQL = load("transaction")
_BEGIN_WRITE = _SQL["begin_write"]
_BEGIN_READ = _SQL["begin_read"]
_COUNT = _SQL["count"]

Row = tuple[Any, ...]


class Tx:
    """What a step works with. ``now`` is the store's time, ``last_seq`` the last number given to a
    job, with those that this transaction asked for."""

    __slots__ = ("counts", "execute", "executemany", "last_seq", "now", "wakes")

    def __init__(self, connection: sqlite3.Connection, now: float, last_seq: int) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.now = now
        self.last_seq = last_seq
        self.counts: dict[tuple[int, str], int] = {}
        self.wakes = False

    def all(self, statement: str, arguments: Sequence[Any] = ()) -> list[Row]:
        return self.execute(statement, arguments).fetchall()

    def one(self, statement: str, arguments: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self.execute(statement, arguments).fetchone()
        return row

    def count(self, queue: int, state: State, difference: int) -> None:
        key = (queue, str(state))
        self.counts[key] = self.counts.get(key, 0) + difference

    def wake(self) -> None:
        """Something happened that others wait for: tell them, once it is committed."""
        self.wakes = True


class Store:
    """Opens transactions. ``clock`` replaces the machine's."""

    def __init__(self, address: Address, clock: Clock | None) -> None:
        self.address = address
        self.connections = Connections(address)
        self.wall: Callable[[], float] = (clock or SystemClock()).now

    def writing(self, *, new_jobs: int = 0) -> Writing:
        return Writing(self, new_jobs)

    def reading(self) -> Reading:
        return Reading(self)

    def version(self) -> int:
        """The schema version in the file."""
        with self.reading() as tx:
            row = tx.one(_SQL["schema"])
            assert row is not None
            found: int = row[0]
            return found

    def close(self) -> None:
        self.connections.close()


class _Transaction:
    """A context manager of its own class: a generator's costs twice as much on the hot path."""

    __slots__ = ("_connection", "_slot", "_store", "_tx")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._slot: Slot = store.connections.slot()

    def __enter__(self) -> Tx:
        self._slot.lock.acquire()
        try:
            self._connection = self._store.connections.ready(self._slot)
            self._tx = self._begin(self._connection)
        except BaseException as error:
            self._give_up()
            if isinstance(error, sqlite3.Error):
                raise faults.translate(error, self._store.address.path) from error
            raise
        return self._tx

    def _begin(self, connection: sqlite3.Connection) -> Tx:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._give_up()
                if isinstance(failure, sqlite3.Error):
                    raise faults.translate(failure, self._store.address.path) from failure
                raise
            self._slot.lock.release()
            return
        self._give_up()
        if isinstance(error, sqlite3.Error):
            raise faults.translate(error, self._store.address.path) from error

    def _give_up(self) -> None:
        """Leave nothing of the transaction, and the connection usable."""
        try:
            connection = self._slot.connection
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The file is in trouble (the error on its way says which): start afresh next time.
            self._slot.close()
        finally:
            self._slot.lock.release()

    def _checked(self, found: int) -> None:
        if found != schema.VERSION:
            schema.check(found, self._store.address.path)
            raise SchemaMismatch(
                f"{self._store.address.path} has schema version {found}, this TaskHarbor needs "
                f"{schema.VERSION}; run: taskharbor migrate"
            )


class Writing(_Transaction):
    """``with store.writing() as tx``: all of the block, or nothing of it."""

    __slots__ = ("_new_jobs",)

    def __init__(self, store: Store, new_jobs: int) -> None:
        super().__init__(store)
        self._new_jobs = new_jobs

    def _begin(self, connection: sqlite3.Connection) -> Tx:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not faults.is_busy(error):
                raise
            patience = Patience(self._store.address.busy_timeout)
            patience.retry(lambda: connection.execute("BEGIN IMMEDIATE"))
        row = connection.execute(_BEGIN_WRITE, (self._store.wall(), self._new_jobs)).fetchone()
        now, found, last_seq = row
        self._checked(found)
        return Tx(connection, now, last_seq)

    def _finish(self) -> None:
        tx = self._tx
        if tx.counts:
            changes = [(*key, jobs) for key, jobs in tx.counts.items() if jobs]
            tx.executemany(_COUNT, changes)
        self._connection.execute("COMMIT")
        if tx.wakes:
            ring(self._store.address.path)


class Reading(_Transaction):
    """``with store.reading() as tx``: one snapshot. Waits for nobody but a recovery."""

    __slots__ = ()

    def _begin(self, connection: sqlite3.Connection) -> Tx:
        connection.execute("BEGIN")
        wall = self._store.wall()
        patience = Patience(self._store.address.busy_timeout)
        row = patience.retry(lambda: connection.execute(_BEGIN_READ, (wall,)).fetchone())
        now, found = row
        self._checked(found)
        return Tx(connection, now, 0)

    def _finish(self) -> None:
        self._connection.execute("COMMIT")


def as_numbers(values: Iterable[int]) -> str:
    """For ``json_each``: one bound value, however many numbers it holds."""
    return str(list(values))


def as_texts(values: Iterable[str]) -> str:
    """For ``json_each``. What comes back from the store is to be compared with what was asked for:
    SQLite's JSON ends a text at a NUL."""
    return json.dumps(list(values))
