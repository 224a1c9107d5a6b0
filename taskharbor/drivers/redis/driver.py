"""The contract of ``drivers.base`` over the scripts of one shard."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

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
    Settled,
    Term,
    Want,
)
from taskharbor.drivers.redis import scripts, wire
from taskharbor.errors import ConfigurationError, InvalidCursor, StoreUnavailable
from taskharbor.lease import Reservation, Verdict, check_lease_seconds
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

RETIRED_SECONDS = 86_400.0
SCAN_BUCKETS = 64
_INDEX = {State.DEAD: "D", State.CANCELLED: "C"}
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}
_STATES: dict[Any, State | None] = {state.value.encode(): state for state in State}
_STATES[False] = None


class RedisDriver:
    """Safe to share between threads."""

    def __init__(self, url: str, clock: Clock | None) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        namespace = query.pop("namespace", "th")
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self.capabilities = Capabilities(shared=True, durable=True)
        self._prefix = f"{{{namespace}}}:"
        self._clock = clock
        self._pid = os.getpid()
        plain = urlunsplit(parts._replace(query=urlencode(query)))
        self._redis = redis.Redis.from_url(plain, retry=Retry(NoBackoff(), 0))

    def _call(self, name: str, request: Any) -> Any:
        script = scripts.load(name)
        data = request if type(request) is bytes else wire.pack(request)
        now = "" if self._clock is None else str(wire.micros(self._clock.now()))
        arguments = (1, self._prefix + "f", self._prefix, now, data)
        if os.getpid() != self._pid:
            raise ConfigurationError(
                f"the driver of {self.url} was made in process {self._pid} and can't be used "
                "after a fork; connect again in the child"
            )
        try:
            try:
                reply = self._redis.execute_command("EVALSHA", script.sha, *arguments)
            except redis.exceptions.NoScriptError:
                reply = self._redis.execute_command("EVAL", script.text, *arguments)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnavailable(f"Redis at {self.url} does not answer: {error}") from error
        return wire.unpack(reply) if type(reply) is bytes else reply

    def new_job_id(self, idempotency_key: str | None) -> str:
        return ids.new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        if connection is not None:
            raise ConfigurationError(
                "the Redis driver can't join a transaction; enqueue without connection="
            )
        if not batch:
            return []
        rows = self._call("enqueue", wire.pack_messages(batch))
        return [Enqueued(row[0].decode(), row[1], row[2]) for row in rows]

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        if want is not None:
            check_lease_seconds(want.lease_seconds)
        reply = self._call("exchange", wire.pack_exchange(holder, settlements, want))
        settled, reserved, now, more, retired = reply
        return Exchange(
            [Settled(_VERDICTS[verdict], _STATES[state]) for verdict, state in settled],
            [wire.reservation(row) for row in reserved],
            now / 1e6,
            more,
            retired,
        )

    def held(self, holder: str) -> list[Reservation]:
        return [wire.reservation(row) for row in self._call("held", (holder, False))]

    def retire(self, holder: str) -> list[Reservation]:
        request = (holder, wire.micros(RETIRED_SECONDS))
        return [wire.reservation(row) for row in self._call("held", request)]

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        check_lease_seconds(seconds)
        rows = self._call("extend", wire.pack_renewals(renewals, seconds))
        return [
            Extended(_VERDICTS[verdict], ends / 1e6 if ends else None, asked)
            for verdict, ends, asked in rows
        ]

    def expired(self, limit: int) -> list[Reservation]:
        return [wire.reservation(row) for row in self._call("expired", (limit,))]

    def promote(self, limit: int) -> Promoted:
        moved, next_due, more, now = self._call("promote", (limit,))
        return Promoted(moved, next_due / 1e6 if next_due else None, more, now / 1e6)

    def prune(self, limit: int) -> int:
        pruned: int = self._call("prune", (limit,))
        return pruned

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        verdicts = self._call("cancel", (list(job_ids), reason))
        return [CancelVerdict(verdict.decode()) for verdict in verdicts]

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        channels = [f"{self._prefix}w:{queue}" for queue in queues]
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            deadline = time.monotonic() + seconds
            if channels:
                pubsub.subscribe(*channels)
                pubsub.get_message(timeout=1)
            if any(info.counts[State.READY] for info in self.queues() if info.name in queues):
                return
            while (left := deadline - time.monotonic()) > 0:
                if pubsub.get_message(timeout=left):
                    return

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        return self._results(job_ids, None)

    def _results(self, job_ids: Sequence[str], wait: int | None) -> list[Outcome | None]:
        rows = self._call("results", (list(job_ids), wait))
        return [
            None
            if not row
            else Outcome(
                State(row[0].decode()), Reason(row[1].decode()), row[2] or None, row[3] or None
            )
            for row in rows
        ]

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        channels = [wire.channel(f"{self._prefix}d:{job_id}") for job_id in job_ids]
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            if channels:
                pubsub.subscribe(*channels)
            deadline = time.monotonic() + seconds
            while True:
                found = self._results(job_ids, wire.micros(seconds + 5))
                left = deadline - time.monotonic()
                if left <= 0 or not found or any(_over(outcome) for outcome in found):
                    return found
                while (left := deadline - time.monotonic()) > 0:
                    if pubsub.get_message(timeout=left):
                        break

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        term = self._call("lead", (name, holder, seconds))
        return Term(term[0], term[1] / 1e6) if term else None

    def close(self) -> None:
        self._redis.close()

    # --- operators

    def get(self, job_id: str) -> Job | None:
        (row,) = self._call("inspect", ([job_id], True))
        return wire.job(row, brief=False) if row else None

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        below = end = _read_cursor(cursor)
        index = _INDEX.get(where.state) if where.state else None
        jobs: list[Job] = []
        while True:
            found, last = self._call("list", (below, limit, index, SCAN_BUCKETS))
            rows = self._call("inspect", ([row[1] for row in found], False))
            for (order, _), row in zip(found, rows, strict=True):
                below = order
                job = wire.job(row, brief=True) if row else None
                if job is not None and _matches(job, where):
                    if len(jobs) == limit:
                        return Page(jobs, str(end))
                    jobs.append(job)
                    end = int(order)
            if not last:
                return Page(jobs, None)
            below = last

    def queues(self) -> list[QueueInfo]:
        infos = []
        for name, paused, counts, oldest in self._call("queues", ()):
            by_state = dict.fromkeys(State, 0)
            for state, number in zip(counts[::2], counts[1::2], strict=True):
                by_state[State(state.decode())] = int(number)
            infos.append(
                QueueInfo(
                    name=name.decode(),
                    paused=paused,
                    counts=by_state,
                    oldest_ready_at=oldest / 1e6 if oldest else None,
                )
            )
        return sorted(infos, key=lambda info: info.name)

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
        due = None if eta is None else wire.micros(eta)
        request = (list(job_ids), list(states), queue, due, wire.micros(delay), reset_attempts)
        return [RequeueVerdict(verdict.decode()) for verdict in self._call("requeue", request)]

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        verdicts = self._call("delete", (list(job_ids),))
        return [DeleteVerdict(verdict.decode()) for verdict in verdicts]

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        purged = 0
        cursor: str | None = None
        while purged < limit:
            page = self.list_jobs(where, cursor=cursor, limit=limit - purged)
            idle = [job.id for job in page.jobs if job.state is not State.RUNNING]
            purged += self.delete(idle).count(DeleteVerdict.DELETED)
            cursor = page.cursor
            if cursor is None:
                break
        return purged

    def pause(self, queue: str) -> None:
        self._redis.sadd(self._prefix + "P", queue)

    def resume(self, queue: str) -> None:
        self._redis.srem(self._prefix + "P", queue)
        self._redis.publish(f"{self._prefix}w:{queue}", b"1")


def _over(outcome: Outcome | None) -> bool:
    return outcome is None or outcome.state.terminal


def _matches(job: Job, where: JobFilter) -> bool:
    return (
        where.state in (None, job.state)
        and where.queue in (None, job.queue)
        and where.task in (None, job.task)
    )


def _read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 16):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    return int(cursor)
