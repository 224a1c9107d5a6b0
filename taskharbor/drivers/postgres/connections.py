"""Connections, lent for one call each.

The one given back last is lent first: a worker's child, whose heartbeat calls beside its main
thread, never has more than two, and a web server as many as threads call at the same time, at most
``pool``. What was not needed for a minute is closed, but for the last.

Not psycopg_pool: its threads would run in every process that enqueues once, its callers wait out a
timeout where they should be told at once of a server that refuses them, and it does not say why
there is no connection.

A driver does not cross a fork; what a child inherits is left alone there, for closing it would end
the parent's session.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from taskharbor.drivers.postgres import faults
from taskharbor.drivers.postgres.address import Address
from taskharbor.drivers.postgres.statements import PREPARE_AFTER, Rows, Sender, Statement
from taskharbor.errors import ConfigurationError, StoreUnavailable

R = TypeVar("R")

logger = logging.getLogger(__name__)

LEND_SECONDS = 30.0
"""How long a call waits for a connection while all are lent: longer than any call of ours."""

KEEP_SECONDS = 60.0
"""How long a connection stays open while others are enough."""

MOST_ROWS_KEPT = 8
"""A cursor keeps what its last statement brought."""
MOST_BLOCKS_KEPT = 256
"""For an application with a queue for each of its customers."""

CANCEL_SECONDS = 2.0
"""A server that does not even take this request does nothing else for us either."""

ISOLATION = "read committed"
"""What the functions are written for: an exchange whose snapshot is as old as its beginning would
not see a job that came meanwhile, and forget the block in which it is."""


class OpenBlock(NamedTuple):
    """A block of ``ready`` that is open for a queue and priority, of the tables with this number.
    ``looked_at`` (monotonic): when it was looked who waits."""

    number: int
    tables: int
    looked_at: float


class Connection(psycopg.Connection[TupleRow]):
    """One that can tire of waiting. A server that is stopped, or whose machine hangs, keeps its
    sockets open, and its kernel acknowledges what we send: neither TCP nor libpq would ever notice.
    """

    patience: float | None = None
    """Seconds to wait for the answer to a statement; None: for ever."""
    free_since = 0.0
    """When it was given back last, in monotonic time."""
    _kept: psycopg.Cursor[tuple[Any, ...]] | None = None
    _sender: Sender | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.open_blocks: dict[tuple[str, int], OpenBlock] = {}
        """By queue and priority: where this session put a job in line last."""

    def run(self, statement: Statement, arguments: Mapping[str, Any]) -> Rows:
        """Run it in a transaction of its own. For connections of which nobody else knows: what is
        prepared must stay. Raises psycopg's errors."""
        if self._sender is None:
            self._sender = Sender(self, prepares=self.prepare_threshold is not None)
        self._sender.patience = self.patience
        return self._sender.run(statement, arguments)

    def opened(self, line: tuple[str, int], block: OpenBlock) -> None:
        """Keep in mind where ``line`` is open, unless the next call may be another session's: what
        holds here need not hold on a standby that took over."""
        if self.prepare_threshold is not None:
            if len(self.open_blocks) >= MOST_BLOCKS_KEPT:
                self.open_blocks.clear()
            self.open_blocks[line] = block

    @contextmanager
    def cursor_of_tuples(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        """For one statement that ``run`` is not for: in a transaction that a task shares. The same
        cursor serves many: a new one finds out anew how to write each type, 50 of the 430 µs of CPU
        that an attempt with nothing to do takes here. One that holds much is let go."""
        cursor = self._kept or psycopg.Cursor(self, row_factory=tuple_row)
        self._kept = None
        try:
            yield cursor
        except BaseException:
            cursor.close()
            raise
        if cursor.rowcount <= MOST_ROWS_KEPT:
            self._kept = cursor
        else:
            cursor.close()

    def abandon(self) -> None:
        """Close it. A statement that is under way is ended on the server as well: one that waits
        for a lock would wait on, and who tries again leave one more session there each time."""
        if (
            self.pgconn.transaction_status == TransactionStatus.ACTIVE
            and psycopg.capabilities.has_cancel_safe()  # the older way may wait for ever
        ):
            try:
                self.cancel_safe(timeout=CANCEL_SECONDS)
            except psycopg.Error as error:
                logger.debug("an abandoned statement could not be cancelled: %s", error)
        self.close()

    def wait(self, gen: PQGen[R], *arguments: Any, **options: Any) -> R:
        if self.patience is not None:
            gen = _within(self.patience, gen)
        return super().wait(gen, *arguments, **options)


def _within(seconds: float, gen: PQGen[R]) -> PQGen[R]:
    """``gen``, until it has waited for ``seconds``. psycopg looks back into it every 0.1 s."""
    deadline = time.monotonic() + seconds
    try:
        state = next(gen)
        while True:
            ready = yield state
            if not ready and time.monotonic() > deadline:
                raise psycopg.OperationalError(f"no answer within {seconds:g} s")
            state = gen.send(ready)
    except StopIteration as end:
        return cast(R, end.value)


class Connections:
    """All connections of one driver."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pooled: bool | None = {"auto": None, "yes": True, "no": False}[address.pooler]
        self._pid = os.getpid()
        # One item for each that may be lent. (A semaphore is written in Python.)
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(address.pool):
            self._free.put(None)
        self._idle: list[Connection] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """A connection in autocommit. One that comes back broken, or in a transaction, is closed.

        Raises StoreUnavailable, ConfigurationError, and psycopg's errors in connecting.
        """
        connection = self.take()
        try:
            yield connection
        finally:
            self.give_back(connection)

    def take(self) -> Connection:
        """As ``lend``, for one who gives it back whatever happens."""
        self.check()
        try:
            self._free.get(timeout=LEND_SECONDS)
        except queue.Empty:
            raise StoreUnavailable(
                f"all {self.address.pool} connections to {self.address.url} were in use for "
                f"{LEND_SECONDS:g} s; raise ?pool= in the URL"
            ) from None
        try:
            return self._given_back_last() or self.open()
        except BaseException:
            self._free.put(None)
            raise

    def _given_back_last(self) -> Connection | None:
        try:
            while True:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        except IndexError:
            return None

    def give_back(self, connection: Connection) -> None:
        try:
            # (.info would make two objects to say so.)
            if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                connection.abandon()
                return
            connection.free_since = time.monotonic()
            self._idle.append(connection)
            if self._closed:  # looked at last: whoever closes us now finds the connection there
                self.drop_idle()
            else:
                self._close_unneeded(connection.free_since)
        finally:
            self._free.put(None)

    def _close_unneeded(self, now: float) -> None:
        """One at a time: the first in line is the one that has been free for longest."""
        try:
            longest = self._idle[0]
            if now - longest.free_since > KEEP_SECONDS:
                self._idle.remove(longest)
                longest.close()
        except (IndexError, ValueError):
            pass  # it was lent just now

    def open(self) -> Connection:
        """A connection of the caller's own. Raises psycopg's errors."""
        self.check()
        # Not prepared on the server until we know that no pooler is there, which would lose it.
        connection = Connection.connect(
            self.address.conninfo, autocommit=True, prepare_threshold=None
        )
        connection.patience = self.address.answer_seconds
        try:
            self._make_ready(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_ready(self, connection: Connection) -> None:
        """Find out what is at the other end, and have it work as we need it."""
        row = connection.execute(
            "SELECT pg_backend_pid(), current_setting('default_transaction_isolation')"
        ).fetchone()
        assert row is not None
        pid, isolation = row
        if self.pooled is None:
            # PgBouncer and its like make up the number that we are told on connecting.
            self.pooled = pid != connection.info.backend_pid
        if isolation != ISOLATION:
            if self.pooled:
                raise ConfigurationError(
                    f"default_transaction_isolation is {isolation!r} on {self.address.url}, and "
                    f"behind a pooler only ALTER ROLE or ALTER DATABASE can change it; SET it to "
                    f"{ISOLATION!r} for the role that TaskHarbor uses"
                )
            connection.execute(f"SET default_transaction_isolation TO '{ISOLATION}'")
        if not self.pooled:
            connection.prepare_threshold = PREPARE_AFTER

    def drop_idle(self) -> None:
        """Close those that are not lent."""
        while connection := self._given_back_last():
            connection.close()

    def close(self) -> None:
        """Those that are lent are closed when they come back."""
        self._closed = True
        if os.getpid() == self._pid:
            self.drop_idle()

    def check(self) -> None:
        """Raises ConfigurationError after a fork, StoreUnavailable after ``close``."""
        if os.getpid() != self._pid:
            raise ConfigurationError(
                f"the driver of {self.address.url} was made in process {self._pid} and can't be "
                "used after a fork; connect again in the child"
            )
        if self._closed:
            raise StoreUnavailable(f"this driver of {self.address.url} is closed; connect again")

    def translate(self, error: psycopg.Error) -> Exception:
        """The error to raise ``from`` this one. Idle connections to a server that lost its role are
        forgotten."""
        if error.sqlstate == "25006":
            self.drop_idle()
        return faults.translate(error, self.address.url)
