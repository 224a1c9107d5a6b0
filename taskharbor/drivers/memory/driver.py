"""The memory driver: the contract's methods over a store in this process or in a server."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

from taskharbor import ids
from taskharbor.clock import Clock, SystemClock
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
from taskharbor.drivers.memory.operators import Store
from taskharbor.errors import ConfigurationError
from taskharbor.flow.plan import Part
from taskharbor.lease import Reservation
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

WAIT_SLICE_SECONDS = 5.0
"""One request waits no longer than this: a server learns soon that a waiting client is gone."""


class Channel(Protocol):
    """The way to a :class:`Store`: calls one of its methods, with the clock's time first."""

    def call(self, method: str, now: float | None, *arguments: Any) -> Any: ...

    def close(self) -> None: ...


class LocalChannel:
    """To a store of its own, in this process."""

    def __init__(self) -> None:
        self._store = Store()
        self._clock = SystemClock()

    def call(self, method: str, now: float | None, *arguments: Any) -> Any:
        now = self._clock.now() if now is None else now
        return getattr(self._store, method)(now, *arguments)

    def close(self) -> None:
        """Nothing to give up: the jobs go with the driver object."""


class MemoryDriver:
    """The contract of ``drivers.base``, Inspector included. Safe to share between threads."""

    def __init__(
        self, url: str, channel: Channel, capabilities: Capabilities, clock: Clock | None
    ) -> None:
        self.url = url
        self.capabilities = capabilities
        self._channel = channel
        self._clock = clock
        self._pid = os.getpid()

    def _call(self, method: str, *arguments: Any) -> Any:
        if os.getpid() != self._pid:
            raise ConfigurationError(
                f"the driver of {self.url} was made in process {self._pid} and can't be used "
                "after a fork; connect again in the child"
            )
        now = None if self._clock is None else self._clock.now()
        return self._channel.call(method, now, *arguments)

    def new_job_id(self, idempotency_key: str | None) -> str:
        return ids.new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        _no_connection(connection)
        enqueued: list[Enqueued] = self._call("enqueue", list(batch))
        return enqueued

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        exchange: Exchange = self._call("exchange", holder, list(settlements), want)
        return exchange

    def held(self, holder: str) -> list[Reservation]:
        held: list[Reservation] = self._call("held", holder)
        return held

    def retire(self, holder: str) -> list[Reservation]:
        held: list[Reservation] = self._call("retire", holder)
        return held

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        extended: list[Extended] = self._call("extend", holder, list(renewals), seconds)
        return extended

    def expired(self, limit: int) -> list[Reservation]:
        expired: list[Reservation] = self._call("expired", limit)
        return expired

    def promote(self, limit: int) -> Promoted:
        promoted: Promoted = self._call("promote", limit)
        return promoted

    def prune(self, limit: int) -> int:
        pruned: int = self._call("prune", limit)
        return pruned

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        verdicts: list[CancelVerdict] = self._call("cancel", list(job_ids), reason)
        return verdicts

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._call("wait", list(queues), min(left, WAIT_SLICE_SECONDS)):
                return

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        outcomes: list[Outcome | None] = self._call("results", list(job_ids))
        return outcomes

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        deadline = time.monotonic() + seconds
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            outcomes: list[Outcome | None] = self._call(
                "wait_results", list(job_ids), min(left, WAIT_SLICE_SECONDS)
            )
            unfinished = all(outcome and not outcome.state.terminal for outcome in outcomes)
            if left <= WAIT_SLICE_SECONDS or not (outcomes and unfinished):
                return outcomes

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        term: Term | None = self._call("lead", name, holder, seconds)
        return term

    def close(self) -> None:
        self._channel.close()

    # --- Inspector

    def get(self, job_id: str) -> Job | None:
        job: Job | None = self._call("get", job_id)
        return job

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        page: Page = self._call("list_jobs", where, cursor, limit)
        return page

    def queues(self) -> list[QueueInfo]:
        queues: list[QueueInfo] = self._call("queues")
        return queues

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
        verdicts: list[RequeueVerdict] = self._call(
            "requeue", list(job_ids), frozenset(states), queue, delay, eta, reset_attempts
        )
        return verdicts

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        verdicts: list[DeleteVerdict] = self._call("delete", list(job_ids))
        return verdicts

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        purged: int = self._call("purge", where, limit)
        return purged

    # --- Flows

    def new_id_beside(self, other: str) -> str:
        return ids.new_id()

    def enqueue_flow(self, part: Part, *, connection: Any = None) -> FlowEnqueued:
        _no_connection(connection)
        enqueued: FlowEnqueued = self._call("enqueue_flow", part)
        return enqueued

    def inputs(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Input]:
        inputs: list[Input] = self._call("inputs", job_id, after, limit)
        return inputs

    def input_results(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[bytes]:
        results: list[bytes] = self._call("input_results", job_id, after, limit)
        return results

    def flow(self, flow_id: str) -> FlowInfo | None:
        info: FlowInfo | None = self._call("flow", flow_id)
        return info

    def list_flows(self, *, cursor: str | None = None, limit: int = 100) -> FlowPage:
        page: FlowPage = self._call("list_flows", cursor, limit)
        return page

    def flow_nodes(self, flow_id: str, *, after: int = -1, limit: int = 1000) -> list[FlowNode]:
        nodes: list[FlowNode] = self._call("flow_nodes", flow_id, after, limit)
        return nodes

    def flow_edges(self, flow_id: str, *, cursor: str | None = None, limit: int = 1000) -> EdgePage:
        page: EdgePage = self._call("flow_edges", flow_id, cursor, limit)
        return page

    def cancel_flow(self, flow_id: str, reason: Reason = Reason.OPERATOR) -> CancelVerdict:
        verdict: CancelVerdict = self._call("cancel_flow", flow_id, reason)
        return verdict

    def delete_flow(self, flow_id: str) -> DeleteVerdict:
        verdict: DeleteVerdict = self._call("delete_flow", flow_id)
        return verdict

    # --- queues

    def pause(self, queue: str) -> None:
        self._call("pause", queue)

    def resume(self, queue: str) -> None:
        self._call("resume", queue)


def _no_connection(connection: Any) -> None:
    if connection is not None:
        raise ConfigurationError(
            "the memory store has no transactions to join; enqueue without connection="
        )
