"""Transactions that a task's own writes share with the settle of its job (``base.Transactional``).

The server refuses what must not be: the settle is a function that raises unless it applied, with
this fence, in the transaction in which the attempt began, under READ COMMITTED; after that only a
rollback is possible. A commit whose reply is lost needs no bookkeeping: it took the lease or it
did not, and that tells what may become of the job.

What the commit would check, constraints that are deferred, is checked before the settle: so nobody
who wants the rows that a settle locks, the lease and the job's flow, waits for the task's own work.
Only the task's own statements may take as long as they like. Ours, and the commit, are given up
after the URL's ``answer_seconds``, as any other call: the attempt is then undone, or was committed.

The connections are not those of the driver's own calls, which must not wait for a task: there are
as many as threads run such tasks at the same time. One serves job after job; what a job set for the
session is taken back in between. (Behind a pooler the session never was the job's.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from taskharbor.drivers import single
from taskharbor.drivers.postgres.connections import Connection, Connections
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import (
    JobNotRunning,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TransactionEnded,
)
from taskharbor.lease import Reservation, Verdict

logger = logging.getLogger(__name__)

_MOST = 10_000  # a worker's slots are the limit
_NOT_ITS_TRANSACTION = frozenset({"TH001", "TH002"})
_REFUSED = "TH003"


class Transactions:
    """Begins the transactions of one driver's attempts, on connections of their own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connections = Connections(replace(store.address, pool=_MOST))

    @contextmanager
    def begin(self, job: Reservation) -> Iterator[PostgresTransaction]:
        """See ``base.Transactional``. An error of the commit that is the task's own (a constraint
        that it checks) is psycopg's."""
        with ExitStack() as stack:
            try:
                transaction = self._open(job, stack)
            except psycopg.Error as error:
                raise self._connections.translate(error) from error
            try:
                yield transaction
                stack.close()
            except psycopg.Error as error:
                fault = self._connections.translate(error)
                if isinstance(fault, StoreUnavailable | StoreReadOnly | StoreFull):
                    raise fault from error
                raise

    def _open(self, job: Reservation, stack: ExitStack) -> PostgresTransaction:
        self._store.call(_nothing)  # for the check of the schema
        try:
            return self._open_once(job, stack)
        except psycopg.OperationalError:
            # What waited for a job may have ended with its server, which is there again.
            stack.close()
            self._connections.drop_idle()
            return self._open_once(job, stack)

    def _open_once(self, job: Reservation, stack: ExitStack) -> PostgresTransaction:
        connection = stack.enter_context(self._connections.lend())
        stack.callback(self._leave_no_trace, connection)
        connection.row_factory = tuple_row
        connection.cursor_factory = psycopg.Cursor
        connection.autocommit = False
        # Said with BEGIN, whatever the default of the server, the user or the URL is.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        # In psycopg's own block, commit() and rollback() of the task are refused.
        block = stack.enter_context(connection.transaction(force_rollback=True))
        stack.callback(self._cut_short, connection)
        return PostgresTransaction(self._store, connection, block, job)

    def _cut_short(self, connection: Connection) -> None:
        """End a statement that the soft limit or our patience interrupted: it would run on, with
        all its locks. (But not a commit, which comes after this.)"""
        connection.patience = self._store.address.answer_seconds
        active = connection.info.transaction_status is TransactionStatus.ACTIVE
        if active or _in_pipeline(connection):
            connection.abandon()

    def _leave_no_trace(self, connection: psycopg.Connection) -> None:
        if connection.closed:
            return
        try:
            connection.autocommit = True
            if not self._connections.pooled:
                self._store.send(connection, "leave_no_trace")
        except psycopg.Error as error:
            logger.debug("a connection was lost after its transaction: %s", error)
            connection.close()

    def close(self) -> None:
        self._connections.close()


class PostgresTransaction:
    """One attempt's transaction; see ``base.Transaction``."""

    def __init__(
        self,
        store: Store,
        connection: Connection,
        block: psycopg.Transaction,
        job: Reservation,
    ) -> None:
        """Raises what ``single.raise_for`` does for a lease that is lost."""
        self._store = store
        self._block = block
        self._job = job
        self.connection = connection
        ((verdict, self._number),) = self._fetch("begin_attempt", id=job.id, fence=job.fence)
        single.raise_for(Verdict(verdict), job.id, job.fence)
        connection.patience = None  # from here on it is the task's

    def succeed(self, result: bytes | None) -> None:
        job = self._job
        self._refuse_closed()
        if self._left_half_done():
            raise psycopg.ProgrammingError(
                "the task left a stream, a COPY or a pipeline of its connection half done; end it, "
                "or close it, before the task returns"
            )
        try:
            self._store.send(self.connection, "check_constraints")
            self._fetch(
                "settle_attempt", xact=self._number, id=job.id, fence=job.fence, result=result
            )
        except psycopg.errors.InFailedSqlTransaction as error:
            error.add_note(
                "The task caught an error of its own statements, after which nothing could be "
                "committed. Let it out, or put what may fail into connection.transaction()."
            )
            raise
        except psycopg.Error as error:
            if error.sqlstate in _NOT_ITS_TRANSACTION:
                raise self._ended(str(error.diag.message_primary)) from error
            if error.sqlstate == _REFUSED:
                self._raise_refusal(Verdict(error.diag.message_detail or ""))
            raise
        self._block.force_rollback = False

    def verify(self) -> None:
        self._refuse_closed()
        if self._left_half_done():
            # Nothing can be asked here: another connection is. Still in progress, if all is well.
            ((outcome,),) = self._store.rows("outcome_of", xact=self._number)
            if outcome == "committed":
                raise self._ended("the task committed it")
            return
        match self.connection.info.transaction_status:
            case TransactionStatus.IDLE:
                raise self._ended("it was over before its task was")
            case TransactionStatus.INTRANS:
                ((number,),) = self._fetch("transaction_now")
                if number != self._number:
                    raise self._ended("the task began another one")
            case TransactionStatus.INERROR:
                # A failed transaction answers nothing, so whether it is ours is asked after it.
                self.connection.pgconn.exec_(b"ROLLBACK")
                ((outcome,),) = self._fetch("outcome_of", xact=self._number)
                if outcome != "aborted":  # or it is prepared, for somebody else to commit
                    raise self._ended("the task committed it")

    def _left_half_done(self) -> bool:
        """Whether something of the task's still uses the connection; what runs in another thread
        has ``answer_seconds`` to end. Whatever is sent would wait for a stream or a COPY for ever.
        """
        if _in_pipeline(self.connection):
            return True
        free = self.connection.lock.acquire(timeout=self._store.address.answer_seconds)
        if free:
            self.connection.lock.release()
        return not free

    def _fetch(self, name: str, /, **arguments: Any) -> list[tuple[Any, ...]]:
        self.connection.patience = self._store.address.answer_seconds
        return self._store.fetch(self.connection, name, now=self._store.now, **arguments)

    def _refuse_closed(self) -> None:
        if self.connection.broken:
            raise StoreUnavailable(
                f"the connection of {self._job.task} to {self._store.address.url} broke; all that "
                "it did is undone"
            )
        if self.connection.closed:
            raise self._ended("the task closed its connection")

    def _ended(self, how: str) -> TransactionEnded:
        return TransactionEnded(
            f"{self._job.task} did not keep to its transaction ({how}). What it committed stays, "
            f"and job {self._job.id} is not run again. Leave BEGIN, COMMIT and ROLLBACK to the "
            "worker; for a part that may fail, use connection.transaction()"
        )

    def _raise_refusal(self, verdict: Verdict) -> None:
        single.raise_for(verdict, self._job.id, self._job.fence)
        # "already": by whoever took this worker for dead, with the same fence.
        raise JobNotRunning(
            f"job {self._job.id} was settled by somebody else meanwhile", job_id=self._job.id
        )


def _in_pipeline(connection: psycopg.Connection[Any]) -> bool:
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


def _nothing(connection: psycopg.Connection) -> None:
    pass
