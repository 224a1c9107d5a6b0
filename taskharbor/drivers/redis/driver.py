"""The contract of ``drivers.base``: each step is one script, in each shard that it concerns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from taskharbor.clock import Clock
from taskharbor.drivers.base import (
    CancelVerdict,
    Capabilities,
    Enqueued,
    Exchange,
    Extended,
    Outcome,
    Promoted,
    Remark,
    Renewal,
    Term,
    Want,
)
from taskharbor.drivers.redis import shards, wire
from taskharbor.drivers.redis.address import Address
from taskharbor.drivers.redis.around import Around
from taskharbor.drivers.redis.examining import examine
from taskharbor.drivers.redis.flows import FlowKeeping
from taskharbor.drivers.redis.listening import Listeners
from taskharbor.drivers.redis.operators import Operators
from taskharbor.drivers.redis.store import Store
from taskharbor.errors import ConfigurationError
from taskharbor.lease import Reservation, check_lease_seconds
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason

RETIRED_SECONDS = 86_400.0


class RedisDriver(Operators, FlowKeeping):
    """Safe to share between threads. No connection is made before the first call."""

    capabilities = Capabilities(shared=True, durable=True, flows=True, schedule_hints=True)

    def __init__(self, address: Address, clock: Clock | None = None) -> None:
        self.url = address.url
        self._store = Store(address, clock)
        self._listeners = Listeners(self._store)
        self._shards = address.shards
        self.capabilities = replace(self.capabilities, sharded=address.shards > 1)
        self._turn = 0

    def new_job_id(self, idempotency_key: str | None) -> str:
        if self._shards == 1:
            return shards.new_id()
        if idempotency_key is not None:
            return f"{shards.new_id()}:{shards.hashed(idempotency_key, self._shards)}"
        return f"{shards.new_id()}:{self._store.answering(self._next_turn())}"

    def _next_turn(self) -> int:
        # Threads may meet here and take the same shard: it only spreads.
        self._turn = (self._turn + 1) % self._shards
        return self._turn

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        """All or nothing in each shard. Raises InvalidJob, before anything is stored, for a key
        that lives in another shard than the id."""
        if connection is not None:
            raise ConfigurationError(
                "the Redis driver can't join a transaction; enqueue without connection="
            )
        if not batch:
            return []
        if len(batch) == 1 and self._stored(batch[0]):
            return [Enqueued(batch[0].id, True)]
        if self._shards == 1:
            reply = self._store.run_packed(0, "enqueue", wire.pack_messages(batch))
            return wire.enqueued(reply, batch)
        homes = [shards.home(one.id, one.idempotency_key, self._shards) for one in batch]
        return self._store.scattered("enqueue", batch, homes, wire.pack_messages, wire.enqueued)

    def _stored(self, message: Message) -> bool:
        """The short way of one job that is ready at once, unless it is known already."""
        request = wire.pack_ready(message)
        if request is None:
            return False
        shard = self._store.shard_of(message.id)
        return self._store.run_packed(shard, "enqueue_one", request) == b"new"

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        """With several shards each has a step of its own, see ``around``: a failure leaves those
        done that were."""
        if want is not None:
            check_lease_seconds(want.lease_seconds)
        if self._shards > 1:
            return Around(self._store, holder, self._turns()).exchange(settlements, want)
        request = wire.pack_exchange(holder, settlements, want, 0, 1)
        return wire.exchanged(self._store.run_packed(0, "exchange", request))

    def _turns(self) -> list[int]:
        first = self._next_turn()
        return [*range(first, self._shards), *range(first)]

    def held(self, holder: str) -> list[Reservation]:
        return self._leases("held", (holder, False), self._store.shards)

    def retire(self, holder: str) -> list[Reservation]:
        return self._leases("held", (holder, wire.micros(RETIRED_SECONDS)), self._store.shards)

    def _leases(self, name: str, request: Any, where: Sequence[int]) -> list[Reservation]:
        replies = self._store.run_each(name, dict.fromkeys(where, wire.pack(request)))
        return [one for reply in replies.values() for one in wire.reservations(reply)]

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        check_lease_seconds(seconds)
        homes = [self._store.shard_of(renewal.job_id) for renewal in renewals]
        return self._store.scattered(
            "extend",
            renewals,
            homes,
            lambda some: wire.pack_renewals(some, seconds),
            lambda reply, _: wire.extended(wire.unpack(reply)),
        )

    def _maintained(self) -> list[int]:
        """Shards in turn, so that none waits for what others have to be done; what a dead server
        has waits for that server alone."""
        return [0] if self._shards == 1 else self._store.reachable(self._turns())

    def expired(self, limit: int) -> list[Reservation]:
        found = self._leases("expired", (limit,), self._maintained())
        if self._shards > 1:
            found.sort(key=lambda lease: lease.lease_expires_at)
        return found[:limit]

    def promote(self, limit: int) -> Promoted:
        moved, more, now, due = 0, False, 0.0, None
        for shard in self._maintained():
            left = max(0, limit - moved)  # with nothing left, it still says what is due
            some, next_due, has_more, now_us = self._store.run(shard, "promote", (left,))
            moved, more, now = moved + some, more or has_more, max(now, now_us / 1e6)
            if next_due:
                due = next_due / 1e6 if due is None else min(due, next_due / 1e6)
        return Promoted(moved, due, more, now)

    def prune(self, limit: int) -> int:
        pruned = 0
        for shard in self._maintained():
            if pruned < limit:
                pruned += self._store.run(shard, "prune", (limit - pruned,))
        return pruned

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        verdicts = self._store.by_shard("cancel", job_ids, reason)
        return [CancelVerdict(verdict.decode()) for verdict in verdicts]

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        self._listeners.wait(queues, seconds)

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        return wire.outcomes(self._store.by_shard("results", job_ids, False, 0))

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        return self._listeners.wait_results(job_ids, self.results(job_ids), seconds)

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        # One place for all leaders: the first shard.
        term = self._store.run(0, "lead", (name, holder, seconds))
        return Term(term[0], term[1] / 1e6) if term else None

    def examine(self) -> list[Remark]:
        return examine(self._store)

    def close(self) -> None:
        self._listeners.close()
        self._store.close()
