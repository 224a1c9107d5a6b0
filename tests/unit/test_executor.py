"""From a reservation to a settlement, whatever the job's bytes and the task's code do."""

import asyncio
import contextvars
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from taskharbor import (
    Cancel,
    Exponential,
    Fixed,
    Reject,
    Retry,
    Snooze,
    SoftTimeLimit,
    TaskHarbor,
    codec,
    current_job,
)
from taskharbor.backoff import unpack
from taskharbor.errors import LeaseMismatch
from taskharbor.lease import Reservation
from taskharbor.message import BODY_VERSION, Call, Policy, write_body
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason
from taskharbor.worker.executor import Executor

NOW = 1_700_000_000.0


class Line:
    """A Control that keeps what it is told. With ``strike_after``, a signal handler calls
    ``interrupt`` that many seconds after the attempt began, as a worker's child does."""

    def __init__(self, *, strike_after: float | None = None) -> None:
        self.deadline: float | None = None
        self.interrupt: Callable[[], None] | None = None
        self.interrupted = False
        self.urgent = False
        self.settled = False
        self.cancelled = False
        self.lost = False
        self.began: list[float | None] = []
        self.written: list[Any] = []
        self._strike_after = strike_after

    def begin(self, timeout: float | None) -> None:
        self.began.append(timeout)
        self.deadline = None if timeout is None else NOW + timeout
        if self._strike_after is not None:
            signal.setitimer(signal.ITIMER_REAL, self._strike_after)

    def now(self) -> float:
        return NOW

    def save(self, value: bytes) -> None:
        self._write(value)

    def progress(self, value: bytes) -> None:
        self._write(value)

    def _write(self, value: bytes) -> None:
        if self.lost:
            raise LeaseMismatch("another attempt owns the job", job_id="j")
        self.written.append(codec.decode(value))


@pytest.fixture
def app() -> TaskHarbor:
    return TaskHarbor("memory://")


@pytest.fixture
def executor(app: TaskHarbor) -> Iterator[Executor]:
    executor = Executor(app, rng=Random(1))
    yield executor
    executor.close()


def reservation(called: Any, /, *args: Any, attempt: int = 1, **fields: Any) -> Reservation:
    """The job that ``called.delay(*args)`` makes, reserved."""
    message = called.message(args, {})
    return Reservation(
        id=message.id,
        queue=message.queue,
        task=message.task,
        body=fields.pop("body", message.body),
        fence=7,
        attempt=attempt,
        losses=0,
        priority=0,
        enqueued_at=NOW - 5,
        reserved_at=NOW,
        lease_expires_at=NOW + 30,
    )._replace(**fields)


def run(executor: Executor, called: Any, /, *args: Any, **fields: Any) -> Settlement:
    return executor.run(reservation(called, *args, **fields), Line())


def failure(settlement: Settlement) -> codec.Failure:
    assert settlement.error is not None
    return codec.Failure.decode(settlement.error)


def value(settlement: Settlement) -> Any:
    assert settlement.move is Move.SUCCEED
    assert settlement.result is not None
    return codec.decode(settlement.result)


# --- success --------------------------------------------------------------------------------------


def test_what_a_task_returns_is_its_result(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    settlement = run(executor, add, 2, 3)
    assert value(settlement) == 5
    assert settlement.fence == 7


def test_none_is_a_result_too(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    def nothing() -> None: ...

    assert value(run(executor, nothing)) is None


def test_a_task_that_stores_no_result_settles_without_one(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task(store_result=False)
    def unencodable() -> object:
        return object()

    settlement = run(executor, unencodable)
    assert (settlement.move, settlement.result) == (Move.SUCCEED, None)


def test_the_attempt_begins_before_the_payload_is_touched(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task(timeout=9)
    def never(x: int) -> None: ...

    line = Line()
    corrupt = write_body(Call(b"\x01\xc1", timeout=9))
    settlement = executor.run(reservation(never, 1, body=corrupt), line)
    assert line.began == [9]
    assert settlement.reason is Reason.UNDECODABLE


# --- failure --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "urgent"),
    [
        ({}, False),
        ({"settle": "each"}, True),
        ({"max_attempts": 1}, True),
        ({"max_attempts": 2}, False),
    ],
)
def test_a_job_that_must_not_run_twice_for_want_of_a_flush_is_urgent(
    app: TaskHarbor, executor: Executor, options: dict[str, Any], urgent: bool
) -> None:
    seen: list[bool] = []
    line = Line()

    def look() -> None:
        seen.append(line.urgent)

    executor.run(reservation(app.task(**options)(look)), line)
    assert seen == [urgent]


def test_a_raising_task_is_retried_after_its_backoff(app: TaskHarbor, executor: Executor) -> None:
    @app.task(backoff=Fixed(11))
    def broken() -> None:
        raise ValueError("no")

    settlement = run(executor, broken)
    assert (settlement.move, settlement.reason, settlement.delay) == (
        Move.RETRY,
        Reason.RAISED,
        11,
    )
    told = failure(settlement)
    assert (told.type, told.message) == ("ValueError", "no")
    assert 'raise ValueError("no")' in told.traceback
    assert "taskharbor/worker/executor.py" not in told.traceback


def test_the_last_attempt_ends_dead(app: TaskHarbor, executor: Executor) -> None:
    @app.task(max_attempts=3)
    def broken() -> None:
        raise ValueError("no")

    assert run(executor, broken, attempt=2).move is Move.RETRY
    assert run(executor, broken, attempt=3).move is Move.DIE


def test_exception_types_choose_what_is_retried(app: TaskHarbor, executor: Executor) -> None:
    @app.task(no_retry_on=(LookupError,))
    def except_lookups(kind: str) -> None:
        raise {"key": KeyError, "value": ValueError}[kind](kind)

    @app.task(retry_on=OSError)
    def only_os(kind: str) -> None:
        raise {"connection": ConnectionError, "value": ValueError}[kind](kind)

    assert run(executor, except_lookups, "key").move is Move.DIE
    assert run(executor, except_lookups, "value").move is Move.RETRY
    assert run(executor, only_os, "connection").move is Move.RETRY
    assert run(executor, only_os, "value").move is Move.DIE


class Evil(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this breaks")

    __repr__ = __str__


def overflow() -> None:
    overflow()


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError"),
        (MemoryError(), "MemoryError"),
        (StopIteration(), "StopIteration"),
        (Evil(), "Evil"),
        (ValueError("nul \0 and lone \ud800"), "ValueError"),
        (BaseExceptionGroup("several", [Reject("x"), ValueError("y")]), "BaseExceptionGroup"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_whatever_a_task_raises_is_a_failure_of_the_job(
    app: TaskHarbor, executor: Executor, error: BaseException, name: str, kind: str
) -> None:
    if kind == "sync":

        @app.task(name="raise")
        def broken() -> None:
            raise error
    else:

        @app.task(name="raise")
        async def broken() -> None:
            await asyncio.sleep(0)
            raise error

    for _ in range(2):  # what runs attempts is as good as before
        settlement = run(executor, app.tasks["raise"])
        assert settlement.move is Move.RETRY
        # A coroutine can't raise StopIteration: Python makes a RuntimeError of it.
        assert failure(settlement).type in (name, "RuntimeError")


def test_running_out_of_stack_is_a_failure(app: TaskHarbor, executor: Executor) -> None:
    overflowing = app.task(overflow)
    assert failure(run(executor, overflowing)).type == "RecursionError"


def test_sys_exit_in_a_task_started_by_a_task_leaves_a_working_loop(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task
    async def exits() -> None:
        async def leave() -> None:
            sys.exit(1)

        asyncio.create_task(leave())  # noqa: RUF006
        await asyncio.sleep(30)

    @app.task
    async def fine() -> str:
        await asyncio.sleep(0)
        return "fine"

    assert failure(run(executor, exits)).type == "SystemExit"
    assert value(run(executor, fine)) == "fine"


def test_a_result_that_cannot_travel_is_dead_with_that_reason(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task
    def bad() -> Any:
        return {"rows": [object()]}

    settlement = run(executor, bad)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNENCODABLE_RESULT)
    assert "result['rows'][0]" in failure(settlement).message


def test_a_result_over_its_limit_is_dead_with_that_reason(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task(max_result_bytes=100)
    def long(length: int) -> str:
        return "x" * length

    assert value(run(executor, long, 90)) == "x" * 90
    settlement = run(executor, long, 101)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNENCODABLE_RESULT)
    assert "100" in failure(settlement).message


# --- steering -------------------------------------------------------------------------------------


def test_a_task_steers_its_own_end(app: TaskHarbor, executor: Executor) -> None:
    @app.task(backoff=Exponential(base=50, jitter="none"))
    def steer(how: str) -> None:
        try:
            match how:
                case "retry":
                    raise Retry
                case "retry at":
                    raise Retry("later", delay=3)
                case "reject":
                    raise Reject("never")
                case "snooze":
                    raise Snooze(60)
                case "cancel":
                    raise Cancel("not needed")
        except Exception as error:
            raise AssertionError("a broad except must not catch this") from error

    def ends(how: str) -> tuple[Any, ...]:
        settlement = run(executor, steer, how)
        return settlement.move, settlement.reason, settlement.delay

    assert ends("retry") == (Move.RETRY, Reason.RETRY_ASKED, 50)
    assert ends("retry at") == (Move.RETRY, Reason.RETRY_ASKED, 3)
    assert ends("reject") == (Move.DIE, Reason.REJECTED, 0)
    assert ends("snooze") == (Move.SNOOZE, Reason.SNOOZED, 60)
    assert ends("cancel") == (Move.CANCEL, Reason.TASK, 0)
    assert failure(run(executor, steer, "reject")).message == "never"
    assert failure(run(executor, steer, "cancel")).message == "not needed"


def test_a_retry_from_an_error_shows_that_error(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    def fetch() -> None:
        try:
            raise ConnectionError("down")
        except ConnectionError as error:
            raise Retry(delay=1) from error

    assert failure(run(executor, fetch)).type == "ConnectionError"


def test_steering_gets_out_of_a_task_group(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    async def parts() -> None:
        async def part() -> None:
            raise Snooze(9)

        async with asyncio.TaskGroup() as group:
            group.create_task(part())

    settlement = run(executor, parts)
    assert (settlement.move, settlement.delay) == (Move.SNOOZE, 9)


def test_a_retry_past_the_last_attempt_is_dead(app: TaskHarbor, executor: Executor) -> None:
    @app.task(max_attempts=2)
    def fetch() -> None:
        raise Retry(delay=1)

    settlement = run(executor, fetch, attempt=2)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.RETRY_ASKED)


# --- what can't be run ----------------------------------------------------------------------------


def test_an_unknown_task_is_snoozed_for_a_worker_that_knows_it(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task
    def known() -> None: ...

    settlement = run(executor, known, task="of.another.deploy")
    assert (settlement.move, settlement.reason) == (Move.SNOOZE, Reason.UNKNOWN_TASK)
    assert settlement.unknown


def test_an_unknown_task_is_dead_in_the_end(app: TaskHarbor, executor: Executor) -> None:
    @app.task(unknown_task_seconds=100)
    def known() -> None: ...

    settlement = run(executor, known, task="gone", unknown_since=NOW - 101)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNKNOWN_TASK)
    assert "'gone'" in failure(settlement).message


def test_a_newer_wire_version_is_snoozed_as_well(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    def known() -> None: ...

    newer = bytes([BODY_VERSION + 1]) + b"whatever comes then"
    settlement = run(executor, known, body=newer)
    assert (settlement.move, settlement.reason) == (Move.SNOOZE, Reason.UNKNOWN_VERSION)
    assert settlement.unknown


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xff",
        b"\x01",
        b"\x01\xc1",
        b"\x01\x94\xa1x\xc0\xc0\xc0",
        write_body(Call(b"")),
        write_body(Call(b"\x01\x93\x01\x02\x03")),
        write_body(Call(b"\x01\x01"), limit=None),
        write_body(Call(b"\x01\x92\x90\x80", policy=Policy("many", None, 1, 1))),  # type: ignore[arg-type]
    ],
    ids=range(9),
)
def test_corrupt_bytes_are_dead_at_once(app: TaskHarbor, executor: Executor, body: bytes) -> None:
    @app.task
    def known() -> None: ...

    settlement = run(executor, known, body=body)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNDECODABLE)
    assert failure(settlement).message


def test_a_corrupt_backoff_in_the_job_is_dead_not_a_crash(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task
    def broken() -> None:
        raise ValueError

    body = write_body(Call(codec.encode_call((), {}), policy=Policy(backoff=("cubic", 1))))
    settlement = run(executor, broken, body=body)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNDECODABLE)


@dataclass
class Leaving:
    """Exits when it is made or read, while ``doors`` are open."""

    number: int

    def __post_init__(self) -> None:
        if doors:
            raise SystemExit(3)

    def __getattribute__(self, name: str) -> Any:
        if doors and name == "number":
            raise SystemExit(4)
        return object.__getattribute__(self, name)


doors: list[str] = []


def test_an_argument_that_exits_while_it_is_made_is_undecodable(
    app: TaskHarbor, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    def takes(leaving: Leaving) -> None: ...

    job = reservation(takes, Leaving(1))
    monkeypatch.setitem(globals(), "doors", ["open"])
    settlement = executor.run(job, Line())
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNDECODABLE)
    assert failure(settlement).type == "SystemExit"


def test_a_result_that_exits_while_it_is_read_is_unencodable(
    app: TaskHarbor, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    def gives() -> Leaving:
        return leaving

    leaving = Leaving(1)
    monkeypatch.setitem(globals(), "doors", ["open"])
    settlement = run(executor, gives)
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNENCODABLE_RESULT)
    assert failure(settlement).type == "SystemExit"


def test_arguments_that_do_not_fit_their_annotation_are_undecodable(
    app: TaskHarbor, executor: Executor
) -> None:
    import dataclasses

    @dataclasses.dataclass
    class Row:
        number: int

    namespace: dict[str, Any] = {"Row": Row}
    exec("def read(row: Row) -> int:\n    return row.number", namespace)
    read = app.task(name="read")(namespace["read"])

    assert value(run(executor, read, {"number": 4})) == 4
    settlement = run(executor, read, {"nummer": 4})
    assert (settlement.move, settlement.reason) == (Move.DIE, Reason.UNDECODABLE)
    assert "'row'" in failure(settlement).message


def test_arguments_that_no_longer_fit_the_function_are_a_failure(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task(name="grown")
    def old(x: int) -> int:
        return x

    job = reservation(old, 1)
    del app.tasks["grown"]

    @app.task(name="grown")
    def new(x: int, y: int) -> int:
        return x + y

    settlement = executor.run(job, Line())
    assert settlement.move is Move.RETRY
    assert failure(settlement).type == "TypeError"


# --- the current job ------------------------------------------------------------------------------


def test_a_task_sees_its_job(app: TaskHarbor, executor: Executor) -> None:
    @app.task(timeout=60, max_attempts=4)
    def look() -> tuple[Any, ...]:
        job = current_job()
        job.progress(0.5, "half")
        job.save({"row": 3})
        return (
            job.id, job.task, job.queue, job.attempt, job.retries, job.max_attempts, job.fence,
            job.losses, job.enqueued_at, job.deadline, job.timeout, job.cancelled,
            dict(job.headers), job.saved,
        )  # fmt: skip

    line = Line()
    job = reservation(look.using(headers={"trace": "t"}), attempt=2, losses=1)
    seen = value(executor.run(job, line))
    assert seen == (
        job.id, look.name, "default", 2, 1, 4, 7,
        1, NOW - 5, NOW + 60, 60, False,
        {"trace": "t"}, {"row": 3},
    )  # fmt: skip
    assert line.written == [[0.5, "half"], {"row": 3}]


def test_what_an_earlier_attempt_saved_is_there(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    def resume() -> Any:
        return current_job().saved

    assert value(run(executor, resume)) is None
    assert value(run(executor, resume, saved=codec.encode({"row": 9}))) == {"row": 9}


def test_a_lost_lease_reaches_the_task_when_it_writes(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    def write() -> None:
        current_job().save(1)

    line = Line()
    line.lost = True
    settlement = executor.run(reservation(write), line)
    assert failure(settlement).type == "LeaseMismatch"


def test_check_raises_what_the_job_should_heed(app: TaskHarbor, executor: Executor) -> None:
    @app.task(timeout=60)
    def careful() -> str:
        current_job().check()
        return "went on"

    assert value(run(executor, careful)) == "went on"
    cancelled = Line()
    cancelled.cancelled = True
    heeded = executor.run(reservation(careful), cancelled)
    assert (heeded.move, heeded.reason) == (Move.CANCEL, Reason.OPERATOR)
    late = Line()
    late.now = lambda: NOW + 61  # type: ignore[method-assign]
    assert executor.run(reservation(careful), late).reason is Reason.TIMED_OUT


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_context_variables_do_not_leak_into_the_next_job(
    app: TaskHarbor, executor: Executor, kind: str
) -> None:
    def leak() -> str:
        before = variable.get()
        variable.set("leaked")
        return before

    async def leak_async() -> str:
        return leak()

    task = app.task(name="leak")(leak) if kind == "sync" else app.task(name="leak")(leak_async)
    assert [value(run(executor, task)) for _ in range(2)] == ["unset", "unset"]
    with pytest.raises(LookupError, match="outside of a task"):
        current_job()


# --- limits ---------------------------------------------------------------------------------------


@pytest.fixture
def limit() -> Iterator[Line]:
    """Interrupts, as a child's signal handler does, half a second after the attempt began."""
    line = Line(strike_after=0.5)

    def strike(*_: object) -> None:
        if line.interrupt is not None:
            line.interrupt()

    before = signal.signal(signal.SIGALRM, strike)
    yield line
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_soft_limit_interrupts_a_sync_task(
    app: TaskHarbor, executor: Executor, limit: Line
) -> None:
    cleaned = []

    @app.task(timeout=0.5, max_attempts=2)
    def slow() -> None:
        try:
            while True:
                try:
                    time.sleep(10)
                except Exception:  # noqa: BLE001 - such code is what the limit must get through
                    pass
        finally:
            cleaned.append(True)

    settlement = executor.run(reservation(slow), limit)
    assert (settlement.move, settlement.reason) == (Move.RETRY, Reason.TIMED_OUT)
    assert "time.sleep(10)" in failure(settlement).traceback
    assert cleaned == [True]
    assert limit.interrupt is None
    assert executor.run(reservation(slow, attempt=2), limit).move is Move.DIE


def test_the_soft_limit_cancels_an_async_task(app: TaskHarbor, executor: Executor) -> None:
    cleaned = []

    @app.task(timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cleaned.append(True)

    @app.task(timeout=0.05)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "done anyway"
        return "slept"

    settlement = run(executor, slow)
    assert settlement.reason is Reason.TIMED_OUT
    told = failure(settlement)
    assert told.type == "SoftTimeLimit"
    assert "await asyncio.sleep(10)" in told.traceback
    assert cleaned == [True]
    assert value(run(executor, stubborn)) == "done anyway"


def test_a_tasks_own_timeout_error_is_no_time_limit(app: TaskHarbor, executor: Executor) -> None:
    @app.task(timeout=10)
    async def waits() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)

    settlement = run(executor, waits)
    assert (settlement.reason, failure(settlement).type) == (Reason.RAISED, "TimeoutError")


def test_timeouts_are_retried_unless_excluded(app: TaskHarbor, executor: Executor) -> None:
    @app.task(timeout=0.01, retry_on=ValueError)
    async def slow() -> None:
        await asyncio.sleep(5)

    @app.task(timeout=0.01, no_retry_on=SoftTimeLimit)
    async def once() -> None:
        await asyncio.sleep(5)

    assert run(executor, slow).move is Move.RETRY
    assert run(executor, once).move is Move.DIE


# --- event loops and threads ----------------------------------------------------------------------


def test_async_tasks_of_one_thread_share_a_loop(app: TaskHarbor, executor: Executor) -> None:
    loops = []

    @app.task
    async def look() -> None:
        loops.append(asyncio.get_running_loop())

    run(executor, look)
    run(executor, look)
    threads = [threading.Thread(target=run, args=(executor, look)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loops[0] is loops[1]
    assert len({id(loop) for loop in loops}) == 3
    executor.close()
    assert all(loop.is_closed() for loop in loops)


def test_run_async_runs_jobs_of_both_kinds_together(app: TaskHarbor, executor: Executor) -> None:
    met = threading.Event()
    barrier: asyncio.Barrier

    @app.task
    async def meet(number: int) -> int:
        await barrier.wait()
        met.set()
        return number

    @app.task
    def wait_in_a_thread() -> tuple[bool, str]:
        return met.wait(90), current_job().id

    async def main() -> list[Settlement]:
        nonlocal barrier
        barrier = asyncio.Barrier(2)
        jobs = [reservation(wait_in_a_thread), reservation(meet, 1), reservation(meet, 2)]
        return await asyncio.gather(*(executor.run_async(job, Line()) for job in jobs))

    settlements = asyncio.run(main())
    assert value(settlements[0]) == (True, settlements[0].job_id)
    assert [value(each) for each in settlements[1:]] == [1, 2]


def test_cancelling_run_async_cancels_the_task_and_settles_nothing(
    app: TaskHarbor, executor: Executor
) -> None:
    ended = []

    @app.task
    async def long() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    async def main() -> None:
        running = asyncio.create_task(executor.run_async(reservation(long), Line()))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert ended == [True]


def test_run_async_survives_what_a_task_raises(app: TaskHarbor, executor: Executor) -> None:
    @app.task
    async def exits() -> None:
        sys.exit(3)

    @app.task
    def exits_in_a_thread() -> None:
        raise KeyboardInterrupt

    async def main() -> list[Settlement]:
        return [
            await executor.run_async(reservation(task), Line())
            for task in (exits, exits_in_a_thread)
        ]

    assert [failure(each).type for each in asyncio.run(main())] == [
        "SystemExit",
        "KeyboardInterrupt",
    ]


def test_backoff_of_the_test_is_what_the_executor_draws(
    app: TaskHarbor, executor: Executor
) -> None:
    @app.task(backoff=Exponential(base=10))
    def broken() -> None:
        raise ValueError

    expected = unpack(Exponential(base=10).pack()).delay(2, Random(1))
    assert run(executor, broken, attempt=2).delay == expected
