"""The Postgres driver: a statement per call, most of them functions of the schema."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from taskharbor import ids
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
    Renewal,
    RequeueVerdict,
    Term,
    Want,
)
from taskharbor.drivers.postgres import columns, inspector, rows
from taskharbor.drivers.postgres.address import Address
from taskharbor.drivers.postgres.arrays import Blobs
from taskharbor.drivers.postgres.enqueue import enqueue, enqueue_joined
from taskharbor.drivers.postgres.flows import PostgresFlows
from taskharbor.drivers.postgres.places import Place, Turns
from taskharbor.drivers.postgres.store import Store
from taskharbor.drivers.postgres.transactions import PostgresTransaction, Transactions
from taskharbor.drivers.postgres.waiting import Waiting, results
from taskharbor.lease import Reservation, check_lease_seconds
from taskharbor.message import Message, check_name
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

RETIRED_SECONDS = 86_400.0
PRUNE_ANEW_SECONDS = 60.0
"""Records that came to lie before the place where pruning goes on wait for this long at most, and
longer while a look at them would take too long."""
TIDY_SECONDS = 1.0
"""Between two times that ``counts`` is summed up, which readers do otherwise."""


class PostgresDriver(PostgresFlows):
    """Jobs in one schema of a database. Safe to share between threads, not across a fork."""

    capabilities = Capabilities(
        shared=True,
        durable=True,
        transactional_enqueue=True,
        transactional_settle=True,
        migrates=True,
        flows=True,
        row_locks=True,
    )

    def __init__(self, address: Address, clock: Clock | None = None) -> None:
        self.url = address.url
        self._store = Store(address, clock)
        self._waiting = Waiting(self._store)
        self._transactions = Transactions(self._store)
        self._due = Place(self._store, "promote", anew_seconds=0.0)
        self._over = [
            Place(self._store, name, anew_seconds=PRUNE_ANEW_SECONDS)
            for name in ("prune", "prune_flows", "prune_tombstones")
        ]
        self._tidying = Turns(TIDY_SECONDS)

    def close(self) -> None:
        self._transactions.close()
        self._store.close()
        self._waiting.close()

    def version(self) -> int:
        return self._store.version()

    def migrate(self) -> list[str]:
        return self._store.migrate()

    def pending(self) -> list[str]:
        return [step.name for step in self._store.pending()]

    def script(self) -> str:
        return self._store.script()

    # --- jobs ------------------------------------------------------------------------------------

    def new_job_id(self, idempotency_key: str | None) -> str:
        return ids.new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        if not batch:
            return []
        if connection is not None:
            return enqueue_joined(self._store, batch, connection)
        return enqueue(self._store, batch)

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        queues, limit, seconds = None, None, None
        if want is not None:
            check_lease_seconds(want.lease_seconds)
            queues, limit, seconds = columns.of_ids(want.queues), want.limit, want.lease_seconds
        found = self._store.rows(
            "exchange",
            now=self._store.now,
            holder=holder,
            queues=queues,
            limit=limit,
            seconds=seconds,
            **columns.of_settlements(settlements),
        )
        return rows.to_exchange(found, len(settlements), holder, want)

    def begin(self, job: Reservation) -> AbstractContextManager[PostgresTransaction]:
        return self._transactions.begin(job)

    def held(self, holder: str) -> list[Reservation]:
        return [Reservation(*row) for row in self._store.rows("held", holder=holder)]

    def retire(self, holder: str) -> list[Reservation]:
        found = self._store.rows(
            "retire", now=self._store.now, holder=holder, seconds=RETIRED_SECONDS
        )
        return [Reservation(*row) for row in found]

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        check_lease_seconds(seconds)
        found = self._store.rows(
            "extend",
            now=self._store.now,
            ids=columns.of_ids([item.job_id for item in renewals]),
            fences=columns.of_fences([item.fence for item in renewals]),
            progress=Blobs([item.progress for item in renewals]),
            saved=Blobs([item.saved for item in renewals]),
            seconds=seconds,
        )
        return [Extended(rows.VERDICTS[verdict], ends, asked) for verdict, ends, asked in found]

    def expired(self, limit: int) -> list[Reservation]:
        found = self._store.rows("expired", now=self._store.now, limit=limit)
        return [Reservation(*row) for row in found]

    def promote(self, limit: int) -> Promoted:
        moved, due, now, busy = self._due.look(limit)
        return Promoted(moved, due, busy or (due is not None and due <= now), now)

    def prune(self, limit: int) -> int:
        pruned = 0
        for place in self._over:
            if pruned < limit:
                pruned += place.look(limit - pruned)[0]
        if self._tidying.is_due():
            with self._tidying.take():
                self._store.rows("tidy")
        return pruned

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        found = self._store.rows(
            "cancel", now=self._store.now, ids=columns.of_ids(job_ids), reason=reason.value
        )
        return [CancelVerdict(verdict) for (verdict,) in found]

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        self._waiting.for_jobs(queues, seconds)

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        return results(self._store, job_ids)

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        return self._waiting.for_results(job_ids, seconds)

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        ((number, ends),) = self._store.rows(
            "lead", now=self._store.now, name=name, holder=holder, seconds=seconds
        )
        return None if number is None else Term(number, ends)

    # --- operators -------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job | None:
        return inspector.get(self._store, columns.of_id(job_id))

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        return inspector.list_jobs(self._store, where, cursor, limit)

    def queues(self) -> list[QueueInfo]:
        return [rows.to_queue(row) for row in self._store.rows("queues")]

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
        found = self._store.rows(
            "requeue",
            now=self._store.now,
            ids=columns.of_ids(job_ids),
            states=[state.value for state in states],
            queue=columns.of_filter(queue),
            eta=eta,
            delay=delay,
            reset=reset_attempts,
        )
        return [RequeueVerdict(verdict) for (verdict,) in found]

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        found = self._store.rows("delete", ids=columns.of_ids(job_ids))
        return [DeleteVerdict(verdict) for (verdict,) in found]

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        return inspector.purge(self._store, where, limit)

    def pause(self, queue: str) -> None:
        check_name("queue", queue)
        self._store.rows("pause", queue=queue)

    def resume(self, queue: str) -> None:
        check_name("queue", queue)
        self._store.rows("resume", queue=queue)
