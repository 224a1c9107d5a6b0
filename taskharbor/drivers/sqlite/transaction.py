"""One transaction: the store's time, the statements, and what has to be known when it ends."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from taskharbor.clock import Clock, SystemClock
from taskharbor.drivers.sqlite import faults, schema
from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.connections import Connections, Slot
from taskharbor.drivers.sqlite.patience import Patience
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.wake import ring
from taskharbor.errors import StoreError
from taskharbor.states import State

_SQL = load("transaction")
_BEGIN_WRITE = _SQL["begin_write"]
_BEGIN_READ = _SQL["begin_read"]
_COUNT = _SQL["count"]
_ERRANDS = _SQL["errands"]

Row = tuple[Any, ...]
_T = TypeVar("_T")


class Executes(Protocol):
    """A connection, as far as a step uses it."""

    def execute(self, statement: str, arguments: Sequence[Any] = (), /) -> sqlite3.Cursor: ...

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> sqlite3.Cursor: ...


class Tx:
    """What a step works with. ``now`` is the store's time, ``last_seq`` the last number given to a
    job, with those that this transaction asked for.

    ``errands``: how much is left to be walked in flows. ``noted``: the members of flows that
    entered or left a terminal state, as seq, old state, new state; see ``flow_moves``.
    """

    __slots__ = (
        "_errands_before",
        "counts",
        "errands",
        "execute",
        "executemany",
        "last_seq",
        "noted",
        "now",
        "wakes",
    )

    def __init__(self, connection: Executes, now: float, last_seq: int, errands: int) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.now = now
        self.last_seq = last_seq
        self.errands = self._errands_before = errands
        self.noted: list[tuple[int, State | None, State | None]] = []
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

    def write_counts(self) -> None:
        """The last thing a step does."""
        changes = [(*key, jobs) for key, jobs in self.counts.items() if jobs]
        if changes:
            self.executemany(_COUNT, changes)
        if self.errands != self._errands_before:
            self.execute(_ERRANDS, (self.errands,))

    def wake(self) -> None:
        """Something happened that others wait for: tell them, once it is committed."""
        self.wakes = True


class Store:
    """Opens transactions. ``clock`` replaces the machine's."""

    def __init__(self, address: Address, clock: Clock | None) -> None:
        self.address = address
        self.connections = Connections(address)
        self.wall: Callable[[], float] = (clock or SystemClock()).now

    def adopt(self, connection: Executes, *, new_jobs: int) -> Tx:
        """The beginning of a step in a transaction that somebody else opened and will end."""
        row = connection.execute(_BEGIN_WRITE, (self.wall(), new_jobs)).fetchone()
        now, found, last_seq, errands = row
        schema.require(found, self.address.path)
        return Tx(connection, now, last_seq, errands)

    def ring(self) -> None:
        """Wake all who wait on the file."""
        ring(self.address.path)

    def writing(self, *, new_jobs: int = 0) -> Writing:
        return Writing(self, new_jobs)

    def reading(self) -> Reading:
        return Reading(self)

    def write_alone(self, statement: str, arguments: Sequence[Any]) -> None:
        """Run one statement that is a transaction of its own. Give it what returns no rows: then
        SQLite takes the write lock, commits and lets go within one call, for which Python needs no
        GIL. In all other transactions the lock is held while the thread waits for its turn."""
        with _Alone(self) as run:
            run(statement, arguments)

    def version(self) -> int:
        """The schema version in the file."""
        with self.reading() as tx:
            row = tx.one(_SQL["schema"])
            assert row is not None
            found: int = row[0]
            return found

    def close(self) -> None:
        self.connections.close()


class _Transaction(Generic[_T]):
    """A context manager of its own class: a generator's costs twice as much on the hot path."""

    __slots__ = ("_connection", "_open", "_slot", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._slot: Slot = store.connections.slot()
        self._open = False

    def __enter__(self) -> _T:
        slot, store = self._slot, self._store
        slot.lock.acquire()
        if slot.active:
            slot.lock.release()
            raise StoreError(
                "the SQLite driver was called in the midst of another call by the same thread, "
                "from a signal handler or a finalizer; do that work in another thread"
            )
        slot.active = self._open = True
        try:
            self._connection = store.connections.ready(slot)
            return self._begin(self._connection)
        except BaseException as error:
            self._give_up()
            if isinstance(error, sqlite3.Error):
                raise faults.translate(error, store.address.path) from error
            raise

    def _begin(self, connection: sqlite3.Connection) -> _T:
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
            self._release()
            return
        self._give_up()
        if isinstance(error, sqlite3.Error):
            raise faults.translate(error, self._store.address.path) from error

    def _give_up(self) -> None:
        """Leave nothing of the transaction, and the connection usable."""
        slot = self._slot
        try:
            if slot.connection is not None and slot.connection.in_transaction:
                slot.connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The file is in trouble (the error on its way says which): start afresh next time.
            slot.close()
        finally:
            self._release()

    def _release(self) -> None:
        self._slot.active = self._open = False
        self._slot.lock.release()

    def __del__(self) -> None:
        # A signal handler raised just before the block could begin or end properly. Without this
        # the write lock of the whole store would stay taken.
        if getattr(self, "_open", False) and not self._slot.is_inherited():
            self._give_up()


class Writing(_Transaction[Tx]):
    """``with store.writing() as tx``: all of the block, or nothing of it."""

    __slots__ = ("_new_jobs", "_tx")

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
        self._tx = self._store.adopt(connection, new_jobs=self._new_jobs)
        return self._tx

    def _finish(self) -> None:
        tx = self._tx
        tx.write_counts()
        self._connection.execute("COMMIT")
        if tx.wakes:
            self._store.ring()


class Reading(_Transaction[Tx]):
    """``with store.reading() as tx``: one snapshot. Waits for nobody but a recovery."""

    __slots__ = ()

    def _begin(self, connection: sqlite3.Connection) -> Tx:
        connection.execute("BEGIN")
        wall = self._store.wall()
        patience = Patience(self._store.address.busy_timeout)
        row = patience.retry(lambda: connection.execute(_BEGIN_READ, (wall,)).fetchone())
        now, found, errands = row
        schema.require(found, self._store.address.path)
        return Tx(connection, now, 0, errands)

    def _finish(self) -> None:
        self._connection.execute("COMMIT")


class _Alone(_Transaction[Callable[[str, Sequence[Any]], object]]):
    """What statements that are transactions of their own are run with."""

    __slots__ = ()

    def _begin(self, connection: sqlite3.Connection) -> Callable[[str, Sequence[Any]], object]:
        patience = Patience(self._store.address.busy_timeout)
        return lambda text, values: patience.retry(lambda: connection.execute(text, values))

    def _finish(self) -> None:
        """Each has committed itself."""


def as_numbers(values: Iterable[int]) -> str:
    """For ``json_each``: one bound value, however many numbers it holds."""
    return str(list(values))


def as_texts(values: Iterable[str]) -> str:
    """For ``json_each``. What comes back from the store is to be compared with what was asked for:
    SQLite's JSON ends a text at a NUL."""
    return json.dumps(list(values))
