"""``@app.task(transactional=True)``: what becomes of a job, and of what its task wrote."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from taskharbor import (
    AsyncResult,
    Cancel,
    Fixed,
    Reject,
    Retry,
    Snooze,
    TaskFailed,
    TaskHarbor,
    chord,
    current_job,
    testing,
)
from taskharbor.drivers.base import Want
from taskharbor.errors import ConfigurationError, JobNotRunning
from taskharbor.flow.plan import FlowState
from taskharbor.info import JobInfo
from taskharbor.lease import Guard, Reservation
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason, State
from taskharbor.worker.executor import Executor
from tests.drivers.postgres.support import migrated
from tests.servers.postgres import PostgresServer

Effects = list[str]


class Shop:
    """An app whose tasks write into a table of their own, and what is in it."""

    def __init__(self, url: str) -> None:
        self.driver = migrated(url)
        self.app = TaskHarbor(self.driver.url, backoff=Fixed(60))
        self.url = url
        self._table = f"{self.driver._store.address.schema}.effects"
        self.execute("CREATE TABLE effects (what text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")

    def write(self, connection: psycopg.Connection, what: str) -> None:
        connection.execute(f"INSERT INTO {self._table} VALUES (%s)".encode(), (what,))

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.replace("effects", self._table).encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def effects(self) -> Effects:
        return [what for (what,) in self.execute("SELECT what FROM effects ORDER BY what")]

    def terminate(self, connection: psycopg.Connection) -> None:
        (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        self.execute(f"SELECT pg_terminate_backend({pid}, 90000)")

    def reserve(self) -> Reservation:
        (job,) = self.driver.exchange("holder", (), Want(("default",), 1, 60.0)).reserved
        return job

    def run(self, function: Any, **options: Any) -> JobInfo:
        """One attempt at a job of ``function``."""
        task = self.app.task(transactional=True, name="demo.task", **options)(function)
        result: AsyncResult[Any] = task.delay()
        testing.drain(self.app)
        return result.info()


@pytest.fixture
def shop(postgres_server: PostgresServer) -> Iterator[Shop]:
    one = Shop(postgres_server.url)
    yield one
    one.app.close()
    one.driver.close()


def test_a_task_gets_its_transaction_and_commits_with_its_job(shop: Shop) -> None:
    @shop.app.task(transactional=True, name="demo.add")
    def add(connection: psycopg.Connection, x: int, *, y: int) -> int:
        shop.write(connection, f"{x} + {y}")
        assert current_job().connection is connection
        return x + y

    @shop.app.task(transactional=True, bind=True, name="demo.bound")
    def bound(self: Any, connection: psycopg.Connection, what: str) -> str:
        shop.write(connection, what)
        return f"{self.name}: {self.request.attempt}"

    results: list[Any] = [add.delay(1, y=2), bound.delay("bound")]
    testing.drain(shop.app)
    assert [result.get() for result in results] == [3, "demo.bound: 1"]
    assert shop.effects == ["1 + 2", "bound"]


@pytest.mark.parametrize(
    ("raised", "state", "reason"),
    [
        (LookupError("no"), State.SCHEDULED, Reason.RAISED),
        (Retry(delay=60), State.SCHEDULED, Reason.RETRY_ASKED),
        (Snooze(60), State.SCHEDULED, Reason.SNOOZED),
        (Reject("never"), State.DEAD, Reason.REJECTED),
        (Cancel("nobody"), State.CANCELLED, Reason.TASK),
        (SystemExit(1), State.SCHEDULED, Reason.RAISED),
    ],
)
def test_whatever_is_raised_undoes_the_effects(
    shop: Shop, raised: BaseException, state: State, reason: Reason
) -> None:
    def fail(connection: psycopg.Connection) -> None:
        shop.write(connection, "never")
        raise raised

    info = shop.run(fail)
    assert (info.state, info.reason, shop.effects) == (state, reason, [])


def test_a_result_that_can_t_be_encoded_undoes_the_effects(shop: Shop) -> None:
    def odd(connection: psycopg.Connection) -> object:
        shop.write(connection, "never")
        return object()

    info = shop.run(odd)
    assert (info.state, info.reason, shop.effects) == (State.DEAD, "unencodable_result", [])


def test_an_error_of_the_database_is_the_task_s(shop: Shop) -> None:
    """Also one that only the commit brings."""
    shop.execute("INSERT INTO effects VALUES ('taken')")

    def late(connection: psycopg.Connection) -> None:
        shop.write(connection, "taken")

    info = shop.run(late, no_retry_on=psycopg.errors.UniqueViolation)
    assert (info.state, info.reason) == (State.DEAD, "raised")
    assert info.error is not None
    assert "UniqueViolation" in info.error.type


def test_an_error_that_the_task_caught_is_explained(shop: Shop) -> None:
    def careless(connection: psycopg.Connection) -> None:
        try:
            connection.execute("SELECT 1 / 0")
        except psycopg.Error:
            pass

    info = shop.run(careless)
    assert (info.state, info.reason) == (State.SCHEDULED, "raised")
    assert info.error is not None
    assert "put what may fail into connection.transaction()" in info.error.traceback


@pytest.mark.parametrize("fails", [False, True])
def test_a_task_that_commits_by_itself_is_dead_and_not_run_again(shop: Shop, fails: bool) -> None:
    def own_way(connection: psycopg.Connection) -> None:
        shop.write(connection, "half")
        connection.execute("COMMIT")
        if fails:
            raise LookupError

    info = shop.run(own_way)
    assert (info.state, shop.effects) == (State.DEAD, ["half"])
    assert info.error is not None
    assert info.error.type.endswith("TransactionEnded")


def test_a_connection_that_breaks_is_a_loss_without_a_charge(shop: Shop) -> None:
    """The attempt never was: it is run again even at the last one."""

    @shop.app.task(transactional=True, name="demo.unlucky", max_attempts=1)
    def unlucky(connection: psycopg.Connection) -> str:
        shop.write(connection, f"{current_job().losses} losses")
        if current_job().losses < 2:
            shop.terminate(connection)
        return "done"

    result = unlucky.delay()
    testing.drain(shop.app)
    job = shop.driver.get(result.id)
    assert job is not None
    assert (result.get(), shop.effects) == ("done", ["2 losses"])
    assert (job.attempts, job.losses) == (1, 2)


def test_a_job_that_always_breaks_its_connection_is_dead_in_the_end(shop: Shop) -> None:
    def breaks(connection: psycopg.Connection) -> None:
        shop.terminate(connection)

    info = shop.run(breaks, max_losses=3)
    assert (info.state, info.reason) == (State.DEAD, "worker_lost")
    assert info.error is not None
    assert info.error.type.endswith("StoreUnavailable")


def test_a_store_that_gives_no_connection_puts_the_job_off(shop: Shop) -> None:
    @shop.app.task(transactional=True, name="demo.put_off", max_attempts=1)
    def put_off(connection: psycopg.Connection) -> None:
        raise AssertionError

    result = put_off.delay()
    job = shop.reserve()
    away = TaskHarbor(re.sub(r":\d+/", ":1/", shop.driver.url))  # nobody listens there
    away.tasks.update(shop.app.tasks)
    settlement = Executor(away).run(job, testing._Control(shop.driver, "holder", job))
    away.close()
    assert settlement.move is Move.SNOOZE
    assert 0.5 <= settlement.delay <= 1.5
    shop.driver.exchange("holder", [settlement])
    info = result.info()
    assert (info.state, info.attempt) == (State.SCHEDULED, 0)


def test_jobs_enqueued_in_the_transaction_share_its_fate(shop: Shop) -> None:
    @shop.app.task(name="demo.next")
    def follow(number: int) -> int:
        return number

    ids = []

    @shop.app.task(transactional=True, name="demo.first", max_attempts=2, backoff=Fixed(0))
    def first(connection: psycopg.Connection) -> None:
        ids.append(follow.apply_async((1,), connection=connection).id)
        if current_job().attempt == 1:
            raise LookupError

    first.delay()
    testing.drain(shop.app)
    assert [job is not None for job in shop.driver.results(ids)] == [False, True]


def test_members_and_callbacks_of_flows_can_be_transactional(shop: Shop) -> None:
    @shop.app.task(transactional=True, name="demo.member", max_attempts=2, backoff=Fixed(0))
    def member(connection: psycopg.Connection, number: int) -> int:
        job = current_job()
        shop.write(connection, f"member {number}, attempt {job.attempt}")
        if job.attempt == 1 and number == 1:
            raise LookupError
        return number

    @shop.app.task(transactional=True, name="demo.callback")
    def callback(connection: psycopg.Connection, numbers: list[int]) -> int:
        shop.write(connection, f"callback {numbers}")
        return sum(numbers)

    @shop.app.task(name="demo.plain")
    def plain(total: int) -> int:
        return 10 * total

    result = (chord([member.s(n) for n in range(3)], callback.s()) | plain.s()).delay()
    testing.drain(shop.app)
    assert result.get(timeout=0) == 30
    members = ["member 0, attempt 1", "member 1, attempt 2", "member 2, attempt 1"]
    assert shop.effects == ["callback [0, 1, 2]", *members]


def test_a_member_that_commits_by_itself_ends_its_flow(shop: Shop) -> None:
    @shop.app.task(transactional=True, name="demo.own_way")
    def own_way(connection: psycopg.Connection) -> None:
        connection.execute("COMMIT")

    @shop.app.task(name="demo.after")
    def after(nothing: None) -> None:
        raise AssertionError

    result = (own_way.s() | after.s()).delay()
    testing.drain(shop.app)
    assert result.state is FlowState.FAILED
    with pytest.raises(TaskFailed, match="did not keep to its transaction"):
        result.get(timeout=0)


def test_a_flow_enqueued_in_the_transaction_shares_its_fate(shop: Shop) -> None:
    @shop.app.task(name="demo.step")
    def step(number: int) -> int:
        return number + 1

    flows = []

    @shop.app.task(transactional=True, name="demo.starter", max_attempts=2, backoff=Fixed(0))
    def starter(connection: psycopg.Connection) -> None:
        flows.append((step.s(1) | step.s()).apply_async(connection=connection))
        if current_job().attempt == 1:
            raise LookupError

    starter.delay()
    testing.drain(shop.app)
    undone, kept = flows
    assert kept.get(timeout=0) == 3
    with pytest.raises(LookupError):
        undone.info()


def test_a_transactional_task_can_t_hand_its_work_to_a_flow(shop: Shop) -> None:
    @shop.app.task(name="demo.other")
    def other() -> None: ...

    def hands_over(connection: psycopg.Connection) -> Any:
        shop.write(connection, "never")
        return other.s() | other.si()

    info = shop.run(hands_over)
    assert (info.state, shop.effects) == (State.DEAD, [])
    assert info.error is not None
    assert "enqueue the flow with connection=" in info.error.message


def test_a_task_called_inside_another_shares_its_transaction(shop: Shop) -> None:
    @shop.app.task(transactional=True, name="demo.one")
    def one(connection: psycopg.Connection, what: str) -> str:
        shop.write(connection, what)
        return what

    def both(connection: psycopg.Connection) -> None:
        one("one")
        one("two")
        raise Reject("after all")

    assert shop.run(both).state is State.DEAD
    assert shop.effects == []
    with psycopg.connect(shop.url) as connection:
        assert one.function(connection, "by hand") == "by hand"
    assert shop.effects == ["by hand"]


def test_a_lease_lost_inside_undoes_the_effects(shop: Shop) -> None:
    @shop.app.task(transactional=True, name="demo.loser")
    def loser(connection: psycopg.Connection) -> None:
        shop.write(connection, "never")
        job = current_job()
        lost = Settlement.die(job.id, job.fence, error=None, guard=Guard.ANY)
        shop.driver.exchange("reaper", [lost])

    result = loser.delay()
    with pytest.raises(JobNotRunning):
        testing.drain(shop.app)
    assert (result.state, shop.effects) == (State.DEAD, [])


def test_each_thread_of_an_event_loop_has_a_transaction_of_its_own(shop: Shop) -> None:
    met = threading.Barrier(3)
    seen = set()

    @shop.app.task(transactional=True, name="demo.threaded")
    def threaded(connection: psycopg.Connection, number: int) -> int:
        shop.write(connection, str(number))
        seen.add(connection)
        met.wait(90)
        return number

    shop.app.enqueue_many([threaded.s(number) for number in range(3)])
    jobs = [shop.reserve() for _ in range(3)]
    controls = [testing._Control(shop.driver, "holder", job) for job in jobs]
    executor = Executor(shop.app)

    async def run() -> None:
        pairs = zip(jobs, controls, strict=True)
        await asyncio.gather(*(executor.run_async(job, control) for job, control in pairs))

    asyncio.run(run())
    executor.close()
    assert [control.settled for control in controls] == [True] * 3
    assert (len(seen), shop.effects) == (3, ["0", "1", "2"])


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[TaskHarbor]:
    app = TaskHarbor("memory://")
    yield app
    app.close()


def test_a_store_without_transactions_refuses_the_call(memory: TaskHarbor) -> None:
    @memory.task(transactional=True, name="demo.nowhere")
    def nowhere(connection: object) -> None:
        raise AssertionError

    with pytest.raises(ConfigurationError, match="use a store that can"):
        nowhere.delay()
    with pytest.raises(ConfigurationError, match=r"demo\.nowhere"):
        memory.enqueue_many([nowhere.s()])
    assert memory.driver.queues() == []


def test_a_job_from_before_the_option_is_dead_there(memory: TaskHarbor) -> None:
    @memory.task(name="demo.changed")
    def before() -> None: ...

    result = before.delay()
    del memory.tasks["demo.changed"]

    @memory.task(transactional=True, name="demo.changed")
    def after(connection: object) -> None:
        raise AssertionError

    testing.drain(memory)
    with pytest.raises(TaskFailed, match="transactional=True"):
        result.get(timeout=0)


def test_what_can_t_be_transactional_is_refused_where_it_is_written(memory: TaskHarbor) -> None:
    async def coroutine(connection: object) -> None: ...

    def nothing() -> None: ...

    def no_second(self: object) -> None: ...

    with pytest.raises(ConfigurationError, match="write def"):
        memory.task(transactional=True)(coroutine)
    with pytest.raises(ConfigurationError, match="must begin with 1 parameter "):
        memory.task(transactional=True)(nothing)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="must begin with 2 parameters"):
        memory.task(transactional=True, bind=True)(no_second)  # type: ignore[arg-type]


def test_outside_of_a_job_there_is_no_transaction(memory: TaskHarbor) -> None:
    @memory.task(transactional=True, name="demo.alone")
    def alone(connection: object) -> None:
        raise AssertionError

    @memory.task(name="demo.plain")
    def plain() -> None:
        alone()

    with pytest.raises(ConfigurationError, match=r"alone\.function"):
        alone()
    with pytest.raises(ConfigurationError, match=r"demo\.plain has no transaction"):
        plain()
