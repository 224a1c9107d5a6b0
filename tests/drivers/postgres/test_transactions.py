"""An attempt's transaction: what it writes and its settle are there together, or neither is."""

# ruff: noqa: PT012 (what is expected is raised on leaving the transaction)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Thread

import psycopg
import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Renewal, Transactional, Want
from taskharbor.drivers.postgres import PostgresDriver, connect, connections
from taskharbor.errors import (
    JobNotRunning,
    LeaseExpired,
    LeaseMismatch,
    StoreUnavailable,
    TransactionEnded,
)
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State
from tests.drivers.postgres.support import beside, job, migrated
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[PostgresDriver]:
    """With a table ``effects`` in its schema, for what a task does."""
    one = migrated(request.getfixturevalue(getattr(request, "param", "postgres_server")).url)
    run(one, "CREATE TABLE effects (what text)")
    yield one
    one.close()


through_a_pooler_too = pytest.mark.parametrize(
    "driver",
    ["postgres_server", pytest.param("pgbouncer_server", marks=pytest.mark.system_servers)],
    indirect=True,
)


def run(driver: PostgresDriver, statement: str) -> list[tuple[object, ...]]:
    """A statement of somebody else, with ``effects`` in the driver's schema."""
    named = statement.replace("effects", f"{driver._store.address.schema}.effects")
    with psycopg.connect(driver._store.address.conninfo, autocommit=True) as connection:
        cursor = connection.execute(named.encode())
        return cursor.fetchall() if cursor.description else []


def effect(driver: PostgresDriver, connection: psycopg.Connection, what: str) -> None:
    schema = driver._store.address.schema
    connection.execute(f"INSERT INTO {schema}.effects VALUES (%s)".encode(), (what,))


def effects(driver: PostgresDriver) -> list[object]:
    return [what for (what,) in run(driver, "SELECT what FROM effects ORDER BY what")]


def reserve(driver: PostgresDriver, name: str = "a", seconds: float = 30.0) -> Reservation:
    driver.enqueue([job(name)])
    (reserved,) = driver.exchange("holder", (), Want(("default",), 1, seconds)).reserved
    return reserved


def state(driver: PostgresDriver, name: str = "a") -> State:
    found = driver.get(name)
    assert found is not None
    return found.state


@through_a_pooler_too
def test_the_effects_and_the_success_come_together(driver: PostgresDriver) -> None:
    assert isinstance(driver, Transactional)
    reserved = reserve(driver)
    with driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "done")
        transaction.succeed(b"result")
        assert (effects(driver), state(driver)) == ([], State.RUNNING)
    assert effects(driver) == ["done"]
    found = driver.get("a")
    assert found is not None
    assert (found.state, found.result, found.attempts) == (State.SUCCEEDED, b"result", 1)
    assert driver.held("holder") == []
    again = Settlement.succeed("a", reserved.fence, b"result")
    assert driver.exchange("holder", [again]).settled[0].verdict is Verdict.ALREADY


@through_a_pooler_too
def test_without_a_success_nothing_stays_and_the_lease_goes_on(driver: PostgresDriver) -> None:
    reserved = reserve(driver)
    with driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "never")
        transaction.verify()
    with pytest.raises(LookupError), driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "never")
        raise LookupError
    assert (effects(driver), state(driver)) == ([], State.RUNNING)
    retry = Settlement.retry("a", reserved.fence, delay=0.0, error=None)
    assert driver.exchange("holder", [retry]).settled[0].verdict is Verdict.APPLIED


def test_what_the_commit_would_check_is_checked_before_the_settle(driver: PostgresDriver) -> None:
    """Whoever wants the rows that the settle locks need not wait for the task's own work."""
    run(driver, "ALTER TABLE effects ADD UNIQUE (what) DEFERRABLE INITIALLY DEFERRED")
    run(driver, "INSERT INTO effects VALUES ('once')")
    reserved = reserve(driver)
    with driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "once")
        with pytest.raises(psycopg.errors.UniqueViolation):
            transaction.succeed(None)
        lost = Settlement.retry("a", reserved.fence, delay=0.0, error=None)
        assert driver.exchange("holder", [lost]).settled[0].verdict is Verdict.APPLIED
    assert (effects(driver), state(driver)) == (["once"], State.READY)


def test_a_settle_that_is_held_up_gives_up_in_time(
    driver: PostgresDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's own statements may take long; that of the settle may not, nor those after it."""
    monkeypatch.setattr(connections, "CANCEL_SECONDS", 60.0)
    reserved = reserve(driver)
    schema = driver._store.address.schema
    with (
        closing(beside(driver, answer_seconds="2")) as hurried,
        psycopg.connect(driver._store.address.conninfo) as blocker,
    ):
        blocker.execute(f"SELECT FROM {schema}.leases FOR UPDATE".encode())
        with pytest.raises(StoreUnavailable, match="no answer"), hurried.begin(reserved) as attempt:
            attempt.connection.execute("SELECT pg_sleep(2.3)")
            effect(driver, attempt.connection, "undone")
            attempt.succeed(None)
        # The statement does not wait on, with the locks of what the task did.
        alone = "SELECT count(*) FROM pg_locks WHERE relation = 'effects'::regclass"
        wait_until(lambda: run(driver, alone) == [(0,)], what="its locks to go")
    with driver.begin(reserved) as attempt:
        effect(driver, attempt.connection, "done")
        attempt.succeed(None)
    assert (effects(driver), state(driver)) == (["done"], State.SUCCEEDED)


# --- leases that were lost ------------------------------------------------------------------------


def test_a_lease_lost_before_does_not_begin(driver: PostgresDriver) -> None:
    first = reserve(driver)
    driver.exchange("holder", [Settlement.release("a", first.fence)])
    with pytest.raises(JobNotRunning), driver.begin(first):
        raise AssertionError
    (second,) = driver.exchange("other", (), Want(("default",), 1, 30.0)).reserved
    with pytest.raises(LeaseMismatch), driver.begin(first):
        raise AssertionError
    assert state(driver) is State.RUNNING
    assert second.fence > first.fence


def test_an_expired_lease_does_not_begin(driver: PostgresDriver) -> None:
    reserved = reserve(driver, seconds=0.05)
    wait_until(lambda: driver.expired(1), what="the end of the lease")
    with pytest.raises(LeaseExpired), driver.begin(reserved):
        raise AssertionError


@through_a_pooler_too
def test_a_lease_that_expires_inside_rolls_back(driver: PostgresDriver) -> None:
    reserved = reserve(driver, seconds=1.0)
    with pytest.raises(LeaseExpired), driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "late")
        wait_until(lambda: driver.expired(1), what="the end of the lease")
        transaction.succeed(None)
    assert (effects(driver), state(driver)) == ([], State.RUNNING)
    assert [lost.id for lost in driver.expired(1)] == ["a"]


@through_a_pooler_too
def test_a_job_that_another_worker_did_is_not_done_twice(driver: PostgresDriver) -> None:
    first = reserve(driver)
    with pytest.raises(LeaseMismatch), driver.begin(first) as transaction:
        effect(driver, transaction.connection, "first")
        lost = Settlement.retry("a", first.fence, delay=0.0, error=None, guard=Guard.ANY)
        driver.exchange("reaper", [lost])
        (second,) = driver.exchange("other", (), Want(("default",), 1, 30.0)).reserved
        with driver.begin(second) as other:
            effect(driver, other.connection, "second")
            other.succeed(None)
        transaction.succeed(None)
    assert (effects(driver), state(driver)) == (["second"], State.SUCCEEDED)


def test_a_worker_that_was_taken_for_dead_does_not_hear_already(driver: PostgresDriver) -> None:
    """Maintenance settles a lost attempt by the attempt's own fence."""
    reserved = reserve(driver)
    with pytest.raises(JobNotRunning), driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "undead")
        lost = Settlement.die(
            "a", reserved.fence, error=None, reason=Reason.WORKER_LOST, guard=Guard.ANY
        )
        driver.exchange("reaper", [lost])
        transaction.succeed(None)
    assert (effects(driver), state(driver)) == ([], State.DEAD)


def test_the_reaper_waits_for_a_commit_that_is_under_way(driver: PostgresDriver) -> None:
    clock = ManualClock()
    answers = []
    with closing(beside(driver, clock=clock)) as timed:
        reserved = reserve(timed, seconds=30.0)
        lost = Settlement.retry("a", reserved.fence, delay=0.0, error=None, guard=Guard.EXPIRED)

        def reap() -> None:
            answers.extend(timed.exchange("reaper", [lost]).settled)

        with timed.begin(reserved) as transaction:
            effect(driver, transaction.connection, "in time")
            transaction.succeed(None)
            clock.advance(31.0)
            assert [one.id for one in timed.expired(1)] == ["a"]
            reaper = Thread(target=reap)
            reaper.start()
            wait_until(lambda: waits_for_a_lock(driver), what="the reaper to wait")
        reaper.join()
    assert [answer.verdict for answer in answers] == [Verdict.NOT_RUNNING]
    assert (effects(driver), state(driver)) == (["in time"], State.SUCCEEDED)


def waits_for_a_lock(driver: PostgresDriver) -> bool:
    schema = driver._store.address.namespace
    query = f"""SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%'"""
    return run(driver, query) != [(0,)]


@through_a_pooler_too
def test_heartbeats_go_through_a_long_transaction(driver: PostgresDriver) -> None:
    """The settle is the first and last to lock anything of the job."""
    clock = ManualClock()
    with closing(beside(driver, clock=clock)) as timed:
        reserved = reserve(timed, seconds=30.0)
        with timed.begin(reserved) as transaction:
            effect(driver, transaction.connection, "long")
            # One that waited for the transaction's locks would do so for ever.
            for _ in range(5):
                clock.advance(20.0)
                renewal = Renewal("a", reserved.fence, saved=b"half")
                (extended,) = timed.extend("holder", [renewal], 30.0)
                assert extended.verdict is Verdict.APPLIED
                assert timed.cancel(["a"]) == ["requested"]
            transaction.succeed(None)
    assert (effects(driver), state(driver)) == (["long"], State.SUCCEEDED)


# --- tasks that do not keep to their transaction --------------------------------------------------


@through_a_pooler_too
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
def test_a_task_that_ends_the_transaction_can_t_succeed(driver: PostgresDriver, end: str) -> None:
    with (
        pytest.raises(TransactionEnded, match="did not keep to its transaction"),
        driver.begin(reserve(driver)) as transaction,
    ):
        effect(driver, transaction.connection, "first")
        transaction.connection.execute(end.encode())
        effect(driver, transaction.connection, "second")
        transaction.succeed(None)
    assert effects(driver) == ([] if end == "ROLLBACK" else ["first"])
    assert state(driver) is State.RUNNING


@pytest.mark.parametrize(
    "then", ["SELECT 1", "INSERT INTO effects VALUES ('second')", "SELECT no_such_column", None]
)
def test_a_task_that_commits_and_then_fails_is_found_out(
    driver: PostgresDriver, then: str | None
) -> None:
    """To run it again would do the first part twice."""
    with driver.begin(reserve(driver)) as transaction:
        effect(driver, transaction.connection, "first")
        transaction.connection.execute("COMMIT")
        if then is not None:
            named = then.replace("effects", f"{driver._store.address.schema}.effects")
            try:
                transaction.connection.execute(named.encode())
            except psycopg.errors.UndefinedColumn:
                pass
        with pytest.raises(TransactionEnded):
            transaction.verify()
    assert (effects(driver), state(driver)) == (["first"], State.RUNNING)


def leave_a_stream(connection: psycopg.Connection) -> object:
    rows = connection.cursor().stream("SELECT generate_series(1, 100000)")
    next(rows)
    return rows


def leave_a_copy(connection: psycopg.Connection) -> object:
    copy = connection.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT")
    copy.__enter__().read()
    return copy


def leave_a_pipeline(connection: psycopg.Connection) -> object:
    pipeline = connection.pipeline()
    pipeline.__enter__()
    return pipeline


@pytest.mark.parametrize("leave", [leave_a_stream, leave_a_copy, leave_a_pipeline])
def test_what_a_task_left_half_done_is_refused(
    driver: PostgresDriver, leave: Callable[[psycopg.Connection], object]
) -> None:
    """Its worker would wait for it in the same thread, with a heartbeat that keeps the lease."""
    reserved = reserve(driver)
    with closing(beside(driver, answer_seconds="3.5")) as hurried:
        with (
            pytest.raises(psycopg.ProgrammingError, match="half done"),
            hurried.begin(reserved) as transaction,
        ):
            effect(driver, transaction.connection, "never")
            left = leave(transaction.connection)
            transaction.succeed(None)
        with hurried.begin(reserved) as transaction:
            effect(driver, transaction.connection, "never")
            left = leave(transaction.connection)
            transaction.verify()
        del left
    with driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "done")
        transaction.succeed(None)
    assert (effects(driver), state(driver)) == (["done"], State.SUCCEEDED)


def test_a_task_that_prepares_its_transaction_is_found_out(driver: PostgresDriver) -> None:
    """It is still to be committed, by whoever finds it."""
    with driver.begin(reserve(driver)) as transaction:
        effect(driver, transaction.connection, "prepared")
        transaction.connection.execute("PREPARE TRANSACTION 'left behind'")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            transaction.connection.execute("SELECT no_such_column")
        with pytest.raises(TransactionEnded):
            transaction.verify()
    run(driver, "COMMIT PREPARED 'left behind'")
    assert (effects(driver), state(driver)) == (["prepared"], State.RUNNING)


def test_commit_and_rollback_of_the_connection_are_refused(driver: PostgresDriver) -> None:
    with driver.begin(reserve(driver)) as transaction:
        with pytest.raises(psycopg.ProgrammingError, match="forbidden"):
            transaction.connection.commit()
        with pytest.raises(psycopg.ProgrammingError, match="forbidden"):
            transaction.connection.rollback()
        transaction.succeed(None)
    assert state(driver) is State.SUCCEEDED


def test_a_savepoint_of_the_task_is_its_own_affair(driver: PostgresDriver) -> None:
    with driver.begin(reserve(driver)) as transaction:
        effect(driver, transaction.connection, "kept")
        with pytest.raises(psycopg.errors.DivisionByZero), transaction.connection.transaction():
            effect(driver, transaction.connection, "dropped")
            transaction.connection.execute("SELECT 1 / 0")
        with transaction.connection.transaction():
            effect(driver, transaction.connection, "kept too")
        transaction.succeed(None)
    assert (effects(driver), state(driver)) == (["kept", "kept too"], State.SUCCEEDED)


def test_an_error_that_was_caught_without_a_savepoint_is_told(driver: PostgresDriver) -> None:
    with (
        pytest.raises(psycopg.errors.InFailedSqlTransaction) as caught,
        driver.begin(reserve(driver)) as transaction,
    ):
        with pytest.raises(psycopg.errors.DivisionByZero):
            transaction.connection.execute("SELECT 1 / 0")
        transaction.succeed(None)
    assert "caught an error" in caught.value.__notes__[0]
    assert state(driver) is State.RUNNING


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_another_isolation_is_refused(driver: PostgresDriver, level: str) -> None:
    with driver.begin(reserve(driver)) as transaction:
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            transaction.connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        transaction.verify()
    (reserved,) = driver.held("holder")
    with pytest.raises(TransactionEnded), driver.begin(reserved) as transaction:
        begin = f"COMMIT; BEGIN ISOLATION LEVEL {level}"
        transaction.connection.execute(begin.encode())
        transaction.succeed(None)
    assert state(driver) is State.RUNNING


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_the_server_s_own_function_refuses_another_isolation(
    driver: PostgresDriver, level: str
) -> None:
    """Whoever calls it: a client in another language, say."""
    reserved = reserve(driver)
    with psycopg.connect(driver._store.address.conninfo) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        lease = {"now": None, "id": "a", "fence": reserved.fence}
        ((verdict, number),) = driver._store.fetch(connection, "begin_attempt", **lease)
        assert verdict == "applied"
        with pytest.raises(psycopg.Error, match="READ COMMITTED"):
            driver._store.fetch(connection, "settle_attempt", xact=number, result=None, **lease)
        connection.rollback()
    assert state(driver) is State.RUNNING


def test_the_defaults_of_the_session_do_not_matter(postgres_server: PostgresServer) -> None:
    options = "-c%20default_transaction_isolation=serializable"
    driver = migrated(postgres_server.url, options=options)
    with driver.begin(reserve(driver)) as transaction:
        transaction.succeed(None)
    assert state(driver) is State.SUCCEEDED
    driver.close()


def test_what_a_job_sets_for_the_session_ends_with_it(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    with driver.begin(reserve(driver)) as transaction:
        first = transaction.connection
        first.execute("SET ROLE pg_read_all_data")
        first.execute("RESET ROLE")
        first.execute("SET search_path = elsewhere")
        first.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        first.execute("SELECT pg_advisory_lock(7)")
        first.execute("CREATE TEMP TABLE scratch (x int)")
        first.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        first.cursor_factory = psycopg.RawCursor
        transaction.succeed(None)
    with driver.begin(reserve(driver, "b")) as transaction:
        second = transaction.connection
        assert second is first
        assert second.execute("SELECT %s", (1,)).fetchone() == (1,)
        assert second.execute("SHOW search_path").fetchone() == ('"$user", public',)
        assert second.execute("SELECT to_regclass('scratch')").fetchone() == (None,)
        locks = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )
        assert second.execute(locks.encode()).fetchone() == (0,)
        transaction.succeed(None)
    assert state(driver, "b") is State.SUCCEEDED
    driver.close()


# --- broken connections ---------------------------------------------------------------------------


def terminate(driver: PostgresDriver, connection: psycopg.Connection) -> None:
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    run(driver, f"SELECT pg_terminate_backend({pid}, 90000)")


@through_a_pooler_too
def test_a_connection_that_breaks_undoes_all(driver: PostgresDriver) -> None:
    reserved = reserve(driver)
    with pytest.raises(StoreUnavailable), driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "undone")
        terminate(driver, transaction.connection)
        transaction.succeed(None)
    with pytest.raises(StoreUnavailable), driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "undone")
        terminate(driver, transaction.connection)
        with pytest.raises(psycopg.OperationalError):
            transaction.connection.execute("SELECT 1")
        transaction.verify()
    with pytest.raises(StoreUnavailable), driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "undone")
        transaction.succeed(None)
        terminate(driver, transaction.connection)
    assert (effects(driver), state(driver)) == ([], State.RUNNING)
    with driver.begin(reserved) as transaction:
        effect(driver, transaction.connection, "done")
        transaction.succeed(None)
    assert (effects(driver), state(driver)) == (["done"], State.SUCCEEDED)


def test_a_connection_that_died_while_it_waited_costs_nothing(driver: PostgresDriver) -> None:
    with driver.begin(reserve(driver)) as transaction:
        connection = transaction.connection
        transaction.succeed(None)
    terminate(driver, connection)
    with driver.begin(reserve(driver, "b")) as transaction:
        assert transaction.connection is not connection
        transaction.succeed(None)
    assert state(driver, "b") is State.SUCCEEDED


def test_a_server_that_is_away_says_so(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    reserved = reserve(driver)
    away = connect(driver.url.replace(str(postgres_server.port), "1"))
    with pytest.raises(StoreUnavailable), away.begin(reserved):
        raise AssertionError
    away.close()
    driver.close()
