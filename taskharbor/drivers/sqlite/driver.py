"""The SQLite driver: one transaction per call, the steps in the modules beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskharbor.clock import Clock
from taskharbor.drivers.base import (
    CancelVerdict,
    Capabilities,
    DeleteVerdict,
    Enqueued,
    Exchange,
    Extended,
    Job,
    JobFilter,
    Outcome,
    Page,
    Promoted,
    QueueInfo,
    Remark,
    Renewal,
    RequeueVerdict,
    Term,
    Want,
)
from taskharbor.drivers.flows import (
    EdgePage,
    FlowEnqueued,
    FlowInfo,
    FlowNode,
    FlowPage,
    Input,
)
from taskharbor.drivers.sqlite import (
    examining,
    flow_heads,
    flow_look,
    flow_moves,
    flow_store,
    inspector,
    leases,
    operate,
    reserve,
    settle,
    timekeeping,
    waiting,
)
from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.enqueue import enqueue
from taskharbor.drivers.sqlite.joining import join
from taskharbor.drivers.sqlite.transaction import Store, Tx
from taskharbor.flow.plan import Part
from taskharbor.ids import new_id
from taskharbor.lease import Reservation, check_lease_seconds
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


class SQLiteDriver:
    """Jobs in one file. May be shared by threads, each of which gets a connection of its own.

    May be used on both sides of a fork (see ``connections``). A crash at any moment leaves every
    call done or not done: its transaction.
    """

    capabilities = Capabilities(
        shared=True, durable=True, transactional_enqueue=True, migrates=True, flows=True
    )

    def __init__(self, address: Address, clock: Clock | None = None) -> None:
        self.url = address.url
        self._store = Store(address, clock)
        with self._store.reading():
            pass  # a file that can't work is refused here, not at the first job

    def new_job_id(self, idempotency_key: str | None) -> str:
        return new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        if not batch:
            return []
        if connection is not None:
            return join(self._store, connection, lambda tx: enqueue(tx, batch), new_jobs=len(batch))
        with self._store.writing(new_jobs=len(batch)) as tx:
            return enqueue(tx, batch)

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        if want is not None:
            check_lease_seconds(want.lease_seconds)
            if not settlements and (idle := self._nothing_to_reserve(holder, want)) is not None:
                return idle
        with self._store.writing() as tx:
            settled = settle.settle(tx, settlements) if settlements else []
            flow_moves.advance(tx)
            retired = reserve.is_retired(tx, holder)
            if want is None or want.limit <= 0 or retired:
                return Exchange(settled, [], tx.now, False, retired)
            reserved = reserve.reserve(tx, holder, want)
            flow_moves.remember(tx)
            more = reserved.more or tx.errands > 0
            return Exchange(settled, reserved.jobs, tx.now, more, False)

    def _nothing_to_reserve(self, holder: str, want: Want) -> Exchange | None:
        """The answer when no job is in line: it costs idle workers no turn at the write lock."""
        with self._store.reading() as tx:
            if tx.errands or reserve.any_ready(tx, want.queues):
                return None
            return Exchange([], [], tx.now, False, reserve.is_retired(tx, holder))

    def held(self, holder: str) -> list[Reservation]:
        with self._store.reading() as tx:
            return leases.held(tx, holder)

    def retire(self, holder: str) -> list[Reservation]:
        with self._store.writing() as tx:
            return leases.retire(tx, holder)

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        check_lease_seconds(seconds)
        if not renewals:
            return []
        return leases.extend(self._store, renewals, seconds)

    def expired(self, limit: int) -> list[Reservation]:
        with self._store.reading() as tx:
            return leases.expired(tx, max(0, limit))

    def promote(self, limit: int) -> Promoted:
        with self._store.reading() as tx:
            due = timekeeping.next_due(tx)
            if not tx.errands and (due is None or due > tx.now):
                return Promoted(0, due, False, tx.now)
        with self._store.writing() as tx:
            return timekeeping.promote(tx, max(0, limit))

    def prune(self, limit: int) -> int:
        with self._store.writing() as tx:
            return timekeeping.prune(tx, max(0, limit))

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        with self._store.writing() as tx:
            verdicts = operate.cancel(tx, job_ids, reason)
            flow_moves.advance(tx)
            return verdicts

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        waiting.wait_for_jobs(self._store, queues, seconds)

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        with self._store.reading() as tx:
            return inspector.results(tx, job_ids)

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        return waiting.wait_for_results(self._store, job_ids, seconds)

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        check_lease_seconds(seconds)
        with self._store.writing() as tx:
            return leases.lead(tx, name, holder, seconds)

    def close(self) -> None:
        self._store.close()

    # --- Inspector -----------------------------------------------------------------------------

    def get(self, job_id: str) -> Job | None:
        with self._store.reading() as tx:
            return inspector.get(tx, job_id)

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        with self._store.reading() as tx:
            return inspector.list_jobs(tx, where, cursor, limit)

    def queues(self) -> list[QueueInfo]:
        with self._store.reading() as tx:
            return inspector.queues(tx)

    def requeue(
        self,
        job_ids: Sequence[str],
        *,
        states: frozenset[State] = frozenset({State.DEAD}),
        queue: str | None = None,
        delay: float = 0.0,
        eta: float | None = None,
        reset_attempts: bool = True,
    ) -> list[RequeueVerdict]:
        with self._store.writing() as tx:
            due_at = tx.now + delay if eta is None else eta
            how = operate.Requeue(states, queue, due_at, reset_attempts)
            verdicts = operate.requeue(tx, job_ids, how)
            flow_moves.advance(tx)
            return verdicts

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        with self._store.writing() as tx:
            return operate.delete(tx, job_ids)

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        with self._store.writing() as tx:
            return operate.purge(tx, where, limit)

    def pause(self, queue: str) -> None:
        with self._store.writing() as tx:
            operate.pause(tx, queue)

    def resume(self, queue: str) -> None:
        with self._store.writing() as tx:
            operate.resume(tx, queue)

    # --- Flows ---------------------------------------------------------------------------------

    def new_id_beside(self, other: str) -> str:
        return new_id()

    def enqueue_flow(self, part: Part, *, connection: Any = None) -> FlowEnqueued:
        def step(tx: Tx) -> FlowEnqueued:
            answer = flow_store.enqueue_flow(tx, part)
            flow_moves.advance(tx)
            return answer

        if connection is not None:
            return join(self._store, connection, step, new_jobs=len(part.nodes))
        with self._store.writing(new_jobs=len(part.nodes)) as tx:
            return step(tx)

    def inputs(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Input]:
        with self._store.reading() as tx:
            return flow_look.inputs(tx, job_id, after, limit)

    def input_results(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[bytes]:
        with self._store.reading() as tx:
            return flow_look.input_results(tx, job_id, after, limit)

    def flow(self, flow_id: str) -> FlowInfo | None:
        with self._store.reading() as tx:
            return flow_look.flow(tx, flow_id)

    def list_flows(self, *, cursor: str | None = None, limit: int = 100) -> FlowPage:
        with self._store.reading() as tx:
            return flow_look.list_flows(tx, cursor, limit)

    def flow_nodes(self, flow_id: str, *, after: int = -1, limit: int = 1000) -> list[FlowNode]:
        with self._store.reading() as tx:
            return flow_look.flow_nodes(tx, flow_id, after, limit)

    def flow_edges(self, flow_id: str, *, cursor: str | None = None, limit: int = 1000) -> EdgePage:
        with self._store.reading() as tx:
            return flow_look.flow_edges(tx, flow_id, cursor, limit)

    def cancel_flow(self, flow_id: str, reason: Reason = Reason.OPERATOR) -> CancelVerdict:
        with self._store.writing() as tx:
            verdict = flow_heads.cancel(tx, flow_id, reason)
            flow_moves.advance(tx)
            return verdict

    def delete_flow(self, flow_id: str) -> DeleteVerdict:
        with self._store.writing() as tx:
            verdict = flow_heads.delete(tx, flow_id)
            flow_moves.remember(tx)
            return verdict

    # --- Examinable ----------------------------------------------------------------------------

    def examine(self) -> list[Remark]:
        return examining.examine(self._store)

    # --- Migratable ----------------------------------------------------------------------------

    def version(self) -> int:
        return self._store.version()

    def migrate(self) -> list[str]:
        """Opening the file has done it already: nothing is ever left to do."""
        with self._store.reading():
            return []
