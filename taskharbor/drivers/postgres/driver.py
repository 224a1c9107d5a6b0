"""The contract of ``drivers.base`` over the functions of one schema."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg

from taskharbor import ids
from taskharbor.clock import Clock
from taskharbor.drivers.base import (
    Attempt,
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
from taskharbor.drivers.postgres import schema
from taskharbor.errors import ConfigurationError, InvalidCursor, StoreUnavailable
from taskharbor.lease import Guard, Reservation, Verdict, check_lease_seconds
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason, State

RETIRED_SECONDS = 86_400.0
_MAX_BIGINT = (1 << 63) - 1
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_STATES: dict[str | None, State | None] = {state.value: state for state in State}
_STATES[None] = None
_VALID = frozenset({Guard.VALID})
_UNTIL_TERMINAL = -1.0
_NAMESPACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,50}\Z")
_SETTLE = (
    "%s::boolean, %s::text[], %s::bigint[], %s::text[], %s::text[], %s::float8[], "
    "%s::bytea[], %s::bytea[], %s::boolean[], %s::boolean[], %s::text[]"
)
_RESERVATION = (
    "(r).id, (r).queue, (r).task, (r).body, (r).fence, (r).attempt, (r).losses, (r).priority, "
    "(r).enqueued_at, (r).reserved_at, (r).lease_expires_at, (r).unknown_since, (r).saved, "
    "(r).cancel_requested, (r).holder"
)
_JOB = (
    "id, task, queue, state, reason, priority, {body}, enqueued_at, due_at, attempts, losses, "
    "fence, holder, reserved_at, lease_expires_at, finished_at, expires_at, key, "
    "cancel_requested, progress, saved, {result}, error"
)


class PostgresDriver:
    """Safe to share between threads: each has a connection of its own."""

    def __init__(self, url: str, clock: Clock | None) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        namespace = query.pop("namespace", "taskharbor")
        if not _NAMESPACE.match(namespace):
            raise ConfigurationError(
                f"namespace={namespace} can't name a schema; use letters, digits and '_'"
            )
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self.capabilities = Capabilities(
            shared=True, durable=True, transactional_enqueue=True, migrates=True
        )
        self._schema = f'"{namespace}"'
        self._clock = clock
        self._pid = os.getpid()
        self._conninfo = urlunsplit(parts._replace(query=urlencode(query)))
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[psycopg.Connection] = []
        self._closed = False

    # --- connections

    def _connection(self) -> psycopg.Connection:
        if os.getpid() != self._pid:
            raise ConfigurationError(
                f"the driver of {self.url} was made in process {self._pid} and can't be used "
                "after a fork; connect again in the child"
            )
        connection: psycopg.Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            if self._closed:
                raise StoreUnavailable("this driver was closed; connect again")
            connection = psycopg.connect(self._conninfo, autocommit=True)
            self._local.connection = connection
            with self._lock:
                self._open = [other for other in self._open if not other.closed]
                self._open.append(connection)
        return connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except psycopg.OperationalError as error:
            raise StoreUnavailable(f"Postgres at {self.url} does not answer: {error}") from error

    def _rows(self, text: str, parameters: Sequence[Any] = (), connection: Any = None) -> Any:
        sql = schema.for_schema(text, self._schema).encode()
        with self._faults():
            cursor = (connection or self._connection()).cursor(binary=True)
            return cursor.execute(sql, parameters).fetchall()

    @property
    def _now(self) -> float | None:
        return None if self._clock is None else self._clock.now()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections, self._open = self._open, []
        for connection in connections:
            connection.close()

    # --- schema

    def version(self) -> int:
        with self._faults():
            return schema.version(self._connection(), self._schema)

    def migrate(self) -> list[str]:
        with self._faults():
            return schema.migrate(self._connection(), self._schema)

    # --- jobs

    def new_job_id(self, idempotency_key: str | None) -> str:
        return ids.new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        if connection is not None and not isinstance(connection, psycopg.Connection):
            raise ConfigurationError(
                f"connection= takes a psycopg.Connection, not a {type(connection).__name__}; from "
                "SQLAlchemy or Django pass the driver's own connection inside theirs"
            )
        if not batch:
            return []
        rows = self._rows(
            "SELECT * FROM th.enqueue(%s, %s::text[], %s::text[], %s::text[], %s::smallint[], "
            "%s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::text[], "
            "%s::float8[], %s::bytea[], %s::bytea[])",
            (
                self._now,
                [message.id for message in batch],
                [message.queue for message in batch],
                [message.task for message in batch],
                [message.priority for message in batch],
                [_float(message.eta) for message in batch],
                [float(message.delay) for message in batch],
                [_float(message.expires_in) for message in batch],
                [_float(message.expires_at) for message in batch],
                [float(seconds) for message in batch for seconds in message.retention],
                [message.idempotency_key for message in batch],
                [_key_seconds(message) for message in batch],
                [message.digest for message in batch],
                [message.body for message in batch],
            ),
            connection,
        )
        return [Enqueued(*row) for row in rows]

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        if want is not None:
            check_lease_seconds(want.lease_seconds)
        wanted = (list(want.queues), want.limit, want.lease_seconds) if want else ([], None, None)
        rows = self._rows(
            "SELECT kind, verdict, state, now, more, retired, "
            + _RESERVATION.replace("(r)", "(job)")
            + f" FROM th.exchange(%s, %s, {_SETTLE}, %s::text[], %s::integer, %s::float8)",
            (self._now, holder, *_columns(settlements), *wanted),
        )
        settled, reserved = [], []
        for row in rows:
            if row[0] == "s":
                settled.append(Settled(_VERDICTS[row[1]], _STATES[row[2]]))
            elif row[0] == "r":
                reserved.append(Reservation(*row[6:]))
            else:
                return Exchange(settled, reserved, row[3], row[4], row[5])
        raise AssertionError("th.exchange always ends with a row of kind 'e'")

    def held(self, holder: str) -> list[Reservation]:
        return self._reservations(
            "th.reservations(ARRAY(SELECT fence FROM th.leases WHERE holder = %s))", (holder,)
        )

    def retire(self, holder: str) -> list[Reservation]:
        return self._reservations("th.retire(%s, %s, %s)", (self._now, holder, RETIRED_SECONDS))

    def expired(self, limit: int) -> list[Reservation]:
        found = self._reservations(
            "th.reservations(ARRAY(SELECT fence FROM th.leases WHERE expires_at <= th.clock(%s) "
            "ORDER BY expires_at, fence LIMIT %s))",
            (self._now, limit),
        )
        return sorted(found, key=lambda job: job.lease_expires_at)

    def _reservations(self, source: str, parameters: Sequence[Any]) -> list[Reservation]:
        rows = self._rows(f"SELECT {_RESERVATION} FROM {source} r", parameters)
        return [Reservation(*row) for row in rows]

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        check_lease_seconds(seconds)
        rows = self._rows(
            "SELECT * FROM th.extend(%s, %s::text[], %s::bigint[], %s::bytea[], %s::bytea[], %s)",
            (
                self._now,
                [_text(item.job_id) for item in renewals],
                [_fence(item.fence) for item in renewals],
                [item.progress for item in renewals],
                [item.saved for item in renewals],
                seconds,
            ),
        )
        return [Extended(_VERDICTS[verdict], ends, asked) for verdict, ends, asked in rows]

    def promote(self, limit: int) -> Promoted:
        ((moved, next_due, now),) = self._rows(
            "SELECT * FROM th.promote(%s, %s)", (self._now, limit)
        )
        return Promoted(moved, next_due, next_due is not None and next_due <= now, now)

    def prune(self, limit: int) -> int:
        ((pruned,),) = self._rows("SELECT th.prune(%s, %s)", (self._now, limit))
        return int(pruned)

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        rows = self._rows(
            "SELECT th.cancel(%s, %s::text[], %s)",
            (self._now, [_text(job_id) for job_id in job_ids], reason.value),
        )
        return [CancelVerdict(verdict) for (verdict,) in rows]

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        topics = {f"w:{queue}" for queue in queues}
        for _ in self._news(topics, seconds):
            ((found,),) = self._rows(
                "SELECT EXISTS (SELECT FROM unnest(%s::text[]) q WHERE EXISTS "
                "(SELECT FROM th.ready r WHERE r.queue = q))",
                (list(queues),),
            )
            if found:
                return

    def _news(self, topics: set[str], seconds: float) -> Iterator[None]:
        """Once when listening, then for each notification of ``topics``, until the time is over."""
        deadline = time.monotonic() + seconds
        with self._faults(), psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute("LISTEN th")
            yield
            while (left := deadline - time.monotonic()) > 0:
                for notify in connection.notifies(timeout=left, stop_after=1):
                    if notify.payload in topics:
                        yield

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        rows = self._rows(
            "SELECT e.state, e.reason, e.result, e.error FROM unnest(%s::text[]) "
            "WITH ORDINALITY u (id, ord) LEFT JOIN th.everything e USING (id) ORDER BY ord",
            ([_text(job_id) for job_id in job_ids],),
        )
        return [
            None if state is None else Outcome(State(state), Reason(reason), result, error)
            for state, reason, result, error in rows
        ]

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        found = self.results(job_ids)
        for _ in self._news({f"d:{job_id}" for job_id in job_ids}, seconds):
            found = self.results(job_ids)
            if not found or any(item is None or item.state.terminal for item in found):
                return found
        return self.results(job_ids)

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        ((number, ends),) = self._rows(
            "SELECT * FROM th.lead(%s, %s, %s, %s)", (self._now, name, holder, seconds)
        )
        return None if number is None else Term(number, ends)

    # --- operators

    def get(self, job_id: str) -> Job | None:
        columns = _JOB.format(body="body", result="result")
        rows = self._rows(
            f"SELECT seq, settled_fence, settled_holder, settled_reserved_at, {columns} "
            "FROM th.everything WHERE id = %s",
            (_text(job_id),),
        )
        if not rows:
            return None
        seq, settled_fence, settled_holder, settled_from, *values = rows[0]
        history = [
            Attempt(fence, number, holder, started_at, ended_at, Reason(reason), error)
            for fence, number, holder, started_at, ended_at, reason, error in self._rows(
                "SELECT fence, number, holder, started_at, ended_at, reason, error "
                "FROM th.attempts WHERE seq = %s ORDER BY fence",
                (seq,),
            )
        ]
        if values[3] == State.SUCCEEDED:
            attempts, finished_at = values[9], values[15]
            history.append(
                Attempt(
                    settled_fence,
                    attempts,
                    settled_holder,
                    settled_from,
                    finished_at,
                    Reason.SUCCEEDED,
                )
            )
        return _job(values, tuple(history[-50:]))

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        columns = _JOB.format(body="''::bytea", result="NULL")
        conditions: list[str] = ["TRUE"]
        parameters: list[str | int] = []
        for column, value in (("state", where.state), ("queue", where.queue), ("task", where.task)):
            if value is not None:
                conditions.append(f"{column} = %s")
                parameters.append(str(value))
        if cursor is not None:
            conditions.append("seq < %s")
            parameters.append(_read_cursor(cursor))
        rows = self._rows(
            f"SELECT seq, {columns} FROM th.everything WHERE {' AND '.join(conditions)} "
            "ORDER BY seq DESC LIMIT %s",
            (*parameters, limit + 1),
        )
        jobs = [_job(row[1:], ()) for row in rows[:limit]]
        return Page(jobs, str(rows[limit - 1][0]) if len(rows) > limit else None)

    def queues(self) -> list[QueueInfo]:
        rows = self._rows(
            "SELECT q.queue, EXISTS (SELECT FROM th.paused p WHERE p.queue = q.queue), "
            "(SELECT ready_at FROM th.ready r WHERE r.queue = q.queue ORDER BY rank, seq LIMIT 1), "
            "q.counts FROM (SELECT queue, jsonb_object_agg(state, jobs) "
            "FILTER (WHERE state IS NOT NULL) AS counts FROM ("
            "SELECT queue, state, sum(jobs) AS jobs FROM th.counts GROUP BY 1, 2 "
            "HAVING sum(jobs) <> 0 UNION ALL SELECT queue, NULL, 0 FROM th.paused) c "
            "GROUP BY queue) q ORDER BY q.queue"
        )
        return [
            QueueInfo(
                name=name,
                paused=paused,
                counts={state: int((counts or {}).get(state.value, 0)) for state in State},
                oldest_ready_at=oldest,
            )
            for name, paused, oldest, counts in rows
        ]

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
        rows = self._rows(
            "SELECT th.requeue(%s, %s::text[], %s::text[], %s, %s, %s, %s)",
            (
                self._now,
                [_text(job_id) for job_id in job_ids],
                [state.value for state in states],
                queue,
                eta,
                delay,
                reset_attempts,
            ),
        )
        return [RequeueVerdict(verdict) for (verdict,) in rows]

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        rows = self._rows("SELECT th.remove(%s::text[])", ([_text(job_id) for job_id in job_ids],))
        return [DeleteVerdict(verdict) for (verdict,) in rows]

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
        self._rows("INSERT INTO th.paused VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1", (queue,))

    def resume(self, queue: str) -> None:
        self._rows("DELETE FROM th.paused WHERE queue = %s RETURNING 1", (queue,))
        self._rows("SELECT th.tell(ARRAY['w:' || %s])", (queue,))


def _columns(settlements: Sequence[Settlement]) -> tuple[Any, ...]:
    ids_ = [_text(item.job_id) for item in settlements]
    successes = [item for item in settlements if item.move is Move.SUCCEED]
    quick = (
        bool(successes)
        and len(set(ids_)) == len(ids_)
        and _VALID.issuperset(item.guard for item in successes)
    )
    return (
        quick,
        ids_,
        [_fence(item.fence) for item in settlements],
        [item.move.value for item in settlements],
        [item.reason.value for item in settlements],
        [float(item.delay) for item in settlements],
        [item.result for item in settlements],
        [item.error for item in settlements],
        [item.loss for item in settlements],
        [item.unknown for item in settlements],
        [item.guard.value for item in settlements],
    )


def _text(job_id: str) -> str:
    """A job id as Postgres can hold it; "" (no job's id) for what no store would hold."""
    return job_id if job_id.isprintable() else ""


def _fence(fence: int) -> int:
    return fence if 0 <= fence <= _MAX_BIGINT else -1


def _float(seconds: float | None) -> float | None:
    # A list for Postgres must not mix int and float.
    return None if seconds is None else float(seconds)


def _key_seconds(message: Message) -> float | None:
    match message.key_until:
        case "record":
            return None
        case "terminal":
            return _UNTIL_TERMINAL
        case seconds:
            return float(seconds)


def _job(values: Sequence[Any], history: tuple[Attempt, ...]) -> Job:
    (id_, task, queue, state, reason, priority, body, enqueued_at, due_at, attempts, losses,
     fence, holder, reserved_at, lease_expires_at, finished_at, expires_at, key,
     cancel_requested, progress, saved, result, error) = values  # fmt: skip
    return Job(
        id=id_,
        task=task,
        queue=queue,
        state=State(state),
        reason=Reason(reason),
        priority=priority,
        body=body,
        enqueued_at=enqueued_at,
        due_at=due_at,
        attempts=attempts,
        losses=losses,
        fence=fence,
        holder=holder,
        reserved_at=reserved_at,
        lease_expires_at=lease_expires_at,
        finished_at=finished_at,
        expires_at=expires_at,
        idempotency_key=key,
        cancel_requested=cancel_requested,
        progress=progress,
        saved=saved,
        result=result,
        error=error,
        history=history,
    )


def _read_cursor(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    return int(cursor)
