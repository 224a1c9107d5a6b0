"""A connection for every thread, and none that crosses a fork.

SQLite's locks belong to a process: a child that inherits an open connection believes that it
holds its parent's locks and may delete the log under the parent's feet (sqlite.org,
"How To Corrupt An SQLite Database File", 2.6), even when it opens a connection of its own. So
every idle connection is closed just before a fork; both sides open new ones when they need them.
A child that still inherits one (it was in use, or the fork came from C code that runs no hooks)
refuses the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from typing import NamedTuple

from taskharbor.drivers.sqlite import faults, schema
from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.patience import Patience
from taskharbor.drivers.sqlite.wake import Watch
from taskharbor.errors import ConfigurationError, StoreUnavailable

PAGE_CACHE_KIB = 8 * 1024
CHECKPOINT_PAGES = 4000
"""The log is moved into the database when it is about 16 MB: less often than SQLite's 1000
pages, because a checkpoint writes each changed page once, however often it changed."""
LOG_LIMIT_BYTES = 64 << 20
"""What is left of the log's file after a rush."""
FORK_PATIENCE_SECONDS = 2.0

_live: weakref.WeakSet[Connections] = weakref.WeakSet()
_refused: set[str] = set()
_parked: list[Slot] = []


class _FileId(NamedTuple):
    """Which file a path named when it was opened."""

    device: int
    inode: int


class Slot:
    """What one thread has: a connection and an ear for rings, while it needs them. ``lock`` is
    held during every use of the connection. ``seen`` is the last change counter it looked at."""

    __slots__ = ("__weakref__", "connection", "file", "lock", "seen", "watch")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.file: _FileId | None = None
        self.watch: Watch | None = None
        self.seen = 0

    def close(self) -> None:
        with self.lock:
            if self.connection is not None:
                self.connection.close()
                self.connection = None
                self.seen = 0

    def __del__(self) -> None:
        # The thread has ended, and with it its thread-local values.
        self.close()


class Connections:
    """All connections of one driver."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._mine = threading.local()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._guard = threading.Lock()
        self._closed = False
        _live.add(self)

    @property
    def closed(self) -> bool:
        return self._closed

    def slot(self) -> Slot:
        """This thread's slot."""
        slot: Slot | None = getattr(self._mine, "slot", None)
        if slot is None:
            slot = self._mine.slot = Slot()
            with self._guard:
                self._slots.add(slot)
        return slot

    def ready(self, slot: Slot) -> sqlite3.Connection:
        """The slot's connection, opened if there is none, or if the file has been replaced.

        Call it with the slot's lock held. Raises sqlite3.Error, and what ``driver`` promises.
        """
        if slot.connection is not None and not slot.connection.in_transaction:
            if slot.file == _identify(self.address.path):
                return slot.connection
            slot.close()
            slot.watch = None
        elif slot.connection is not None:
            # An exception from a signal handler hit between our BEGIN and our cleaning up.
            slot.connection.execute("ROLLBACK")
            return slot.connection
        return self._open(slot)

    def _open(self, slot: Slot) -> sqlite3.Connection:
        path = self.address.path
        if self._closed:
            raise StoreUnavailable(f"this driver of {path} is closed; connect again")
        if path in _refused:
            raise ConfigurationError(
                f"this process was forked while a connection to {path} was in use, and SQLite's "
                "locks don't survive that; close the app before forking, or start the process anew"
            )
        connection = open_connection(self.address)
        slot.connection, slot.file = connection, _identify(path)
        return connection

    def watch(self) -> Watch:
        """This thread's ear for rings on the file; made before a look, so that no ring falls
        between the two."""
        slot = self.slot()
        if slot.watch is None:
            with slot.lock:
                self.ready(slot)
            slot.watch = Watch(self.address.path)
        return slot.watch

    def changed(self) -> bool:
        """Whether another connection has committed since this thread's last look."""
        slot = self.slot()
        with slot.lock:
            counter = self.ready(slot).execute("PRAGMA data_version").fetchone()[0]
        before, slot.seen = slot.seen, counter
        return bool(counter != before)

    def close(self) -> None:
        """Waits for calls that other threads are in."""
        self._closed = True
        for slot in self._all():
            slot.close()

    def _all(self) -> list[Slot]:
        with self._guard:
            return list(self._slots)

    def before_fork(self) -> None:
        for slot in self._all():
            if slot.lock.acquire(timeout=FORK_PATIENCE_SECONDS):
                try:
                    if slot.connection is not None and not slot.connection.in_transaction:
                        slot.close()
                finally:
                    slot.lock.release()

    def after_fork_in_child(self) -> None:
        self._guard = threading.Lock()
        for slot in self._all():
            if slot.connection is not None:
                _refused.add(self.address.path)
                _park(slot)
        self._mine = threading.local()
        self._slots = weakref.WeakSet()


def open_connection(address: Address) -> sqlite3.Connection:
    """A connection set up as all of ours are, to a file whose schema is ours."""
    try:
        connection = sqlite3.connect(
            address.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise faults.translate(error, address.path) from error
    try:
        _set_up(connection, address)
        schema.migrate(connection, address)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise faults.translate(error, address.path) from error
        raise
    return connection


def _set_up(connection: sqlite3.Connection, address: Address) -> None:
    patience = Patience(address.busy_timeout)
    # Changing to WAL, and the first look at a file whose last user crashed, take the file's lock
    # for a moment; SQLite's own busy handler is not asked there.
    mode = patience.retry(lambda: connection.execute("PRAGMA journal_mode").fetchone()[0])
    if mode != "wal":
        patience.retry(lambda: connection.execute("PRAGMA journal_mode = wal").fetchone())
    for pragma in (
        f"synchronous = {address.synchronous}",
        f"cache_size = -{PAGE_CACHE_KIB}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"journal_size_limit = {LOG_LIMIT_BYTES}",
        "temp_store = memory",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _identify(path: str) -> _FileId | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _FileId(status.st_dev, status.st_ino)


def _park(slot: Slot) -> None:
    """Keep an inherited connection open for ever: closing it could roll back, in the shared log
    index, a transaction of the parent's."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(slot.connection))
    slot.connection = None
    slot.lock = threading.RLock()
    _parked.append(slot)


def _before_fork() -> None:
    for connections in list(_live):
        connections.before_fork()


def _after_fork_in_child() -> None:
    for connections in list(_live):
        connections.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
