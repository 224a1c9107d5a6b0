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
from collections.abc import Callable
from typing import NamedTuple

from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.opening import open_connection
from taskharbor.drivers.sqlite.wake import Watch
from taskharbor.errors import ConfigurationError, StoreUnavailable

FORK_PATIENCE = 2.0
"""Seconds that a fork waits for a thread in the midst of a call."""
CLOSE_PATIENCE = 5.0

_live: weakref.WeakSet[Connections] = weakref.WeakSet()
_refused: set[str] = set()
_forking: list[Connections] = []


class _FileId(NamedTuple):
    """Which file a path named when it was opened."""

    device: int
    inode: int


class Slot:
    """What one thread has: a connection and an ear for rings, while it needs them.

    ``lock`` is held during every use of the connection, ``active`` is true during a transaction,
    ``seen`` is the last change counter it looked at.
    """

    __slots__ = ("active", "connection", "file", "lock", "process", "seen", "watch")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.process = os.getpid()
        self.active = False
        self.connection: sqlite3.Connection | None = None
        self.file: _FileId | None = None
        self.watch: Watch | None = None
        self.seen = 0

    def close(self) -> None:
        """With the lock held."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
            self.seen = 0

    def is_inherited(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether this process is a fork of the one that made it, so that nothing of it may be
        touched, not even by finalizers: those of the parent's other threads run first thing in a
        child. (An argument, because they also run when an interpreter has forgotten its modules.)
        """
        return self.process != getpid()

    def __del__(self) -> None:
        # A driver that nobody closed.
        if not self.is_inherited():
            self.close()


class _Owner:
    """Stands in a thread's local values, so it goes when the thread ends; the slot goes with it.

    The slot itself is held by ``slots`` as well: a fork must find it while it is being closed.
    """

    __slots__ = ("_guard", "_slots", "slot")

    def __init__(self, slots: set[Slot], guard: threading.RLock) -> None:
        self.slot = Slot()
        self._slots = slots
        self._guard = guard
        with guard:
            slots.add(self.slot)

    def __del__(self) -> None:
        if self.slot.is_inherited():
            return
        with self.slot.lock:
            self.slot.close()
        with self._guard:
            self._slots.discard(self.slot)


class Connections:
    """All connections of one driver."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._mine = threading.local()
        self._slots: set[Slot] = set()
        # Reentrant, as the slots' locks are: a garbage collection may end an owner anywhere.
        self._guard = threading.RLock()
        self._held: list[Slot] = []
        self._closed = False
        _live.add(self)

    @property
    def closed(self) -> bool:
        return self._closed

    def slot(self) -> Slot:
        """This thread's slot."""
        try:
            slot: Slot = self._mine.owner.slot
        except AttributeError:
            self._mine.owner = _Owner(self._slots, self._guard)
            slot = self._mine.owner.slot
        return slot

    def ready(self, slot: Slot) -> sqlite3.Connection:
        """The slot's connection, opened if there is none, or if the file has been replaced.

        Call it with the slot's lock held. Raises sqlite3.Error, and what ``connect`` promises.
        """
        if slot.connection is not None:
            if slot.file == _identify(self.address.path):
                return slot.connection
            slot.close()
            slot.watch = None
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
        """Waits a moment for calls that other threads are in; theirs are closed when they end."""
        self._closed = True
        with self._guard:
            slots = list(self._slots)
        for slot in slots:
            if slot.lock.acquire(timeout=CLOSE_PATIENCE):
                try:
                    slot.close()
                finally:
                    slot.lock.release()

    # --- around a fork: only the forking thread runs, and no thread may open a connection -------

    def before_fork(self) -> None:
        """Close what is idle, and keep the locks until the fork is over."""
        self._guard.acquire()
        slots = list(self._slots)
        self._held = [slot for slot in slots if slot.lock.acquire(timeout=FORK_PATIENCE)]
        for slot in self._held:
            if not slot.active:
                slot.close()

    def after_fork_in_parent(self) -> None:
        held, self._held = self._held, []
        for slot in held:
            slot.lock.release()
        self._guard.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's slots. One that is still open poisons the file for this process."""
        self._guard = threading.RLock()
        self._held = []
        for slot in self._slots:
            if slot.connection is not None:
                _refused.add(self.address.path)
                _park(slot)
        self._mine = threading.local()
        self._slots = set()


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


def _before_fork() -> None:
    _forking.extend(_live)
    for connections in _forking:
        connections.before_fork()


def _after_fork_in_parent() -> None:
    for connections in _forking:
        connections.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for connections in list(_live):
        connections.after_fork_in_child()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
