"""While somebody holds an old snapshot, nothing that is deleted is forgotten: index entries of all
that came and went stay where they were. Calls do not step over them, and miss nothing for that."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import JobFilter, Want
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.flow.plan import Edge, Flow, Node, Part
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import job, migrated, ran, set_turn
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

BRIEFLY = Retention(60.0, 60.0, 60.0)
ERRANDS = ("errands", "errands_pkey", "errands_of_flow")
UNKEPT = Retention(0.0, 0.0, 0.0)


@pytest.fixture
def driver(postgres_server: PostgresServer) -> Iterator[PostgresDriver]:
    driver = migrated(postgres_server.url)
    yield driver
    driver.close()


def states(driver: PostgresDriver, *names: str) -> list[State]:
    return [found.state for found in driver.results(names) if found is not None]


def entries_read(driver: PostgresDriver, relation: str) -> int:
    """What the driver's connection has read so far from an index, or in scans of a whole table."""
    name = f"'{driver._store.address.schema}.{relation}'::regclass"
    with driver._store.connections.lend() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        query = f"SELECT pg_stat_get_tuples_returned({name})".encode()
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_reserves_do_not_step_over_what_was_taken(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    driver.enqueue([job(f"j{number:05}") for number in range(20_000)])
    with postgres_server.held_snapshot():
        for _ in range(150):
            assert len(ran(driver, 100)) == 100
        before = entries_read(driver, "ready_pkey")
        for _ in range(10):
            assert len(ran(driver, 100)) == 100
        # At most a block of what was taken before, and the jobs themselves, for each reserve.
        assert entries_read(driver, "ready_pkey") - before <= 10 * (4096 + 100)
        (lost,) = driver.exchange("lost", (), Want(("default",), 1, 0.001)).reserved
        before = entries_read(driver, "leases_pkey")
        for _ in range(10):
            assert driver.held("lost") == [lost]
            assert driver.expired(10) == [lost]
            assert driver.list_jobs(JobFilter(state=State.RUNNING)).jobs[0].id == lost.id
        # 16 000 leases have come and gone. Those of the block in use and of the one before it are
        # looked at: by `held`, by the listing, and by `expired` twice.
        assert entries_read(driver, "leases_pkey") - before <= 10 * 4 * 2 * 4096
        assert entries_read(driver, "leases") == 0


@pytest.mark.parametrize(
    ("kept", "index", "most"),
    [(BRIEFLY, "ended_prune_at", 5000), (UNKEPT, "tombstones_prune_at", 2000)],
)
def test_prune_does_not_step_over_what_was_pruned(
    postgres_server: PostgresServer, kept: Retention, index: str, most: int
) -> None:
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    with postgres_server.held_snapshot():
        for turn in range(4):
            driver.enqueue([job(f"{turn}-{number}", retention=kept) for number in range(500)])
            while ran(driver, 100):
                clock.advance(0.1)
            clock.advance(60.0)
            before = entries_read(driver, index)
            while driver.prune(100):
                pass
            # (Each page would read past all that was pruned: 10 000 entries in the last turn. Once
            # a minute one does.)
            assert entries_read(driver, index) - before <= most
        assert driver.list_jobs(JobFilter()).jobs == []
    driver.close()


def test_promote_does_not_step_over_what_became_due(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    with postgres_server.held_snapshot():
        driver.enqueue([job(f"j{number:04}", delay=1.0 + number) for number in range(2000)])
        # One look from the beginning, and no more of them: they take ever longer.
        monkeypatch.setattr("taskharbor.drivers.postgres.places.SHARE", 1e-9)
        for _ in range(100):
            clock.advance(20.0)
            before = entries_read(driver, "scheduled_wake_at")
            assert driver.promote(100).moved == 20
        # What became due since the last call, twice, and the next one.
        assert entries_read(driver, "scheduled_wake_at") - before <= 100
    driver.close()


def test_waking_up_does_not_step_over_all_who_waited(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """Jobs that come one at a time, and whose results are waited for, leave two rows each."""

    def come_and_go(name: str) -> None:
        topics = ["w:default", f"d:{name}"]
        driver._store.rows("any_ready", topics=topics, queues=["default"])
        driver.enqueue([job(name)])
        assert ran(driver) == [name]

    with postgres_server.held_snapshot():
        for turn in range(1, 21):
            set_turn(driver, turn)
            before = entries_read(driver, "waiters_pkey")
            for number in range(50):
                come_and_go(f"{turn}-{number}")
            driver.prune(10)
        assert entries_read(driver, "waiters_pkey") - before <= 50 * 4 * 100


def test_pruning_flows_does_not_step_over_those_that_were_pruned(
    postgres_server: PostgresServer,
) -> None:
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    with postgres_server.held_snapshot():
        for turn in range(4):
            for number in range(200):
                name = f"{turn}-{number}"
                flow = Flow(name, 1, 0, retention=BRIEFLY)
                driver.enqueue_flow(Part(flow, (Node(job(f"{name}-a")),), 0, (), True))
            while ran(driver, 1):
                clock.advance(0.01)
            clock.advance(60.0)
            before = entries_read(driver, "flows_prune_at")
            while driver.prune(10):
                pass
            assert entries_read(driver, "flows_prune_at") - before <= 1000
        assert driver.list_flows().flows == []
    driver.close()


def test_settling_does_not_step_over_errands_that_were_done(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    schema = driver._store.address.schema
    with (
        postgres_server.held_snapshot(),
        psycopg.connect(postgres_server.url, autocommit=True) as other,
    ):
        fill = f"INSERT INTO {schema}.errands (flow) SELECT 'x' FROM generate_series(1, 20000)"
        other.execute(fill.encode())
        other.execute(f"DELETE FROM {schema}.errands".encode())
        driver.enqueue([job(f"j{number}") for number in range(10)])
        read = {name: entries_read(driver, name) for name in ERRANDS}
        for _ in range(10):
            ran(driver, 1)
        assert sum(entries_read(driver, name) - read[name] for name in ERRANDS) <= 10 * 2 * 1000


def test_an_errand_that_nobody_could_do_for_long_is_done_in_the_end(
    postgres_server: PostgresServer,
) -> None:
    """Somebody else had its flow, and then many more errands came."""
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    schema = driver._store.address.schema
    nodes = (Node(job("a", delay=60.0, expires_in=1.0)), Node(job("b"), 1))
    driver.enqueue_flow(Part(Flow("f", 2, 1), nodes, 0, (Edge("a", "b", 0),), True))
    clock.advance(10.0)
    with psycopg.connect(postgres_server.url) as other:
        other.execute(f"SELECT FROM {schema}.flows FOR UPDATE".encode())
        assert driver.promote(10).moved == 1
        other.execute(f"SELECT setval('{schema}.errands_number_seq', 20000)".encode())
    assert ran(driver) == []
    assert states(driver, "a", "b") == [State.CANCELLED, State.BLOCKED]
    driver.promote(10)
    assert states(driver, "a", "b") == [State.CANCELLED] * 2
    driver.close()


def test_what_came_late_to_its_place_is_promoted_all_the_same(
    postgres_server: PostgresServer,
) -> None:
    """Its transaction was open for longer than its delay, and promoting has gone on meanwhile."""
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    driver.enqueue([job("soon", delay=5.0)])
    with psycopg.connect(postgres_server.url) as slow:
        driver.enqueue([job("slow", delay=1.0)], connection=slow)
        clock.advance(10.0)
        assert driver.promote(10).moved == 1
    wait_until(lambda: driver.promote(10).moved == 1, what="it to be found")
    assert sorted(ran(driver)) == ["slow", "soon"]
    driver.close()


def test_what_expired_before_it_is_put_off_is_promoted_all_the_same(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its expiry lies before the place where promoting goes on."""
    monkeypatch.setattr("taskharbor.drivers.postgres.places.SHARE", 1e-9)
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    names = ["retried", "retried-with-others", "enqueued", "enqueued-with-others"]
    driver.enqueue([job(name, expires_in=2.0) for name in names[:2]])
    one, other = driver.exchange("holder", (), Want(("default",), 2, 600.0)).reserved
    clock.advance(10.0)
    assert driver.promote(10).moved == 0
    retries = [
        Settlement.retry(lost.id, lost.fence, delay=5.0, error=None) for lost in (one, other)
    ]
    driver.exchange("holder", [retries[0], retries[0]])  # one by one
    driver.exchange("holder", [retries[1]])
    driver.enqueue([job(names[2], delay=5.0, expires_at=clock.now() - 8.0)])
    driver.enqueue([job(names[3], delay=5.0, expires_at=clock.now() - 8.0), job("now")])
    assert driver.promote(10).moved == 4
    assert states(driver, *names) == [State.CANCELLED] * 4
    driver.close()
