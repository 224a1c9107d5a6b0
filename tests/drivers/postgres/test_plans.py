"""How the server carries out every call of a worker: by index, whatever the sizes and statistics.

Plans of statements inside functions are seen through auto_explain, sent as notices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from taskharbor.drivers.base import JobFilter, Renewal, Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.flow.plan import Edge, Flow, Node, Part
from taskharbor.lease import Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer

BATCH = 50
MOST_ROWS = 20 * BATCH
"""What a node of a plan may look at for a batch. A block of ready has up to 4096 entries, but those
of jobs already taken don't count as rows."""
GROW = {
    "jobs", "ready", "scheduled", "blocked", "ended", "carried", "attempts", "keys", "members",
    "leases", "edges", "waiters",
}  # fmt: skip
"""Tables that have a row for each job, or more; leases and waiters still have one until a vacuum
comes by."""
EXPLAIN = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_analyze = on;
SET auto_explain.log_format = json;
SET auto_explain.log_level = notice
"""
# As the functions would have stored them, in a second instead of a minute.
FILL = """
INSERT INTO {s}.jobs SELECT n, 'old-' || n, 'default', 'demo.task', 0, 1, 1, NULL, 1e9, 1e9, 1e9,
    NULL, NULL, '', '' FROM (SELECT nextval('{s}.seqs') AS n FROM generate_series(1, {rows})) g;
CREATE TEMP VIEW old AS SELECT seq FROM {s}.jobs WHERE id LIKE 'old-%';
INSERT INTO {s}.ready SELECT 'default', 0, seq, NULL, 1, 'enqueued' FROM old WHERE seq % 2 = 0;
INSERT INTO {s}.blocks SELECT DISTINCT 'default', 0, seq >> 12 FROM old WHERE seq % 2 = 0;
INSERT INTO {s}.scheduled SELECT seq, 4e9, 'enqueued' FROM old WHERE seq % 4 = 1;
INSERT INTO {s}.ended SELECT seq, 'dead', 'raised', 1,
    CASE WHEN seq % 16 = 3 THEN extract(epoch FROM clock_timestamp()) ELSE 4e9 END, 1
    FROM old WHERE seq % 4 = 3;
INSERT INTO {s}.carried (seq) SELECT seq FROM old
"""


class Plans:
    """The plans of what ``driver`` sends, while they are watched."""

    def __init__(self, driver: PostgresDriver) -> None:
        self._driver = driver
        with driver._store.connections.lend() as connection:
            connection.execute(EXPLAIN)
            connection.add_notice_handler(self._hear)
        self._plans: list[Any] = []

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if text.startswith("duration:"):
            self._plans.append(json.loads(text[text.index("{") :]))

    def check(self, call: Callable[[], Any]) -> Any:
        self._plans.clear()
        result = call()
        assert self._plans, "nothing was explained"
        for plan in self._plans:
            for node in _nodes(plan["Plan"]):
                seen = f"{plan['Query Text']}\n{json.dumps(node, indent=1)[:2000]}"
                if node.get("Relation Name") in GROW and node["Node Type"] != "ModifyTable":
                    assert node["Node Type"] != "Seq Scan", seen
                    # An index read from end to end, as seems cheap where there are few rows.
                    assert "Index" not in node["Node Type"] or "Index Cond" in node, seen
                    assert _looked_at(node) <= MOST_ROWS, seen
        return result


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _looked_at(node: dict[str, Any]) -> float:
    each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return float(each * node["Actual Loops"])


@pytest.fixture(params=[10_000, 1_000_000])
def driver(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Any:
    driver = migrated(postgres_server.url)
    schema = driver._store.address.schema
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(FILL.format(s=schema, rows=request.param).encode())
    yield driver
    driver.close()


def test_every_call_of_a_worker_goes_by_index(driver: PostgresDriver) -> None:
    """Before the tables are analyzed, and after that."""
    plans = Plans(driver)
    _all_calls(driver, plans.check, "new")
    with driver._store.connections.lend() as connection:
        connection.execute("ANALYZE")
    _all_calls(driver, plans.check, "newer")


def test_plans_from_before_there_was_anything_serve_as_well(
    postgres_server: PostgresServer,
) -> None:
    """As after a night in which all was pruned, and vacuumed: a session keeps its plans."""
    driver = migrated(postgres_server.url)
    plans = Plans(driver)
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        schema = driver._store.address.schema
        for table in GROW:
            connection.execute(f"VACUUM ANALYZE {schema}.{table}".encode())
        _all_calls(driver, lambda call: call(), "first")
        connection.execute(FILL.format(s=schema, rows=20_000).encode())
    _all_calls(driver, plans.check, "second")
    driver.close()


def test_few_rows_among_many_dead_ones_are_looked_for_one_by_one(
    postgres_server: PostgresServer,
) -> None:
    """As under a held snapshot: statistics say that there are none, in a table of many pages."""
    driver = migrated(postgres_server.url)
    schema = driver._store.address.schema
    with (
        postgres_server.held_snapshot(),
        psycopg.connect(postgres_server.url, autocommit=True) as connection,
    ):
        connection.execute(FILL.format(s=schema, rows=20_000).encode())
        connection.execute(
            f"INSERT INTO {schema}.leases SELECT seq, seq, '', 1, 1, 1 FROM old".encode()
        )
        connection.execute(
            f"INSERT INTO {schema}.members (seq, flow, number, label, errback, tolerated, pending,"
            " delay) SELECT seq, 'old', seq, '', false, false, 0, 0 FROM old".encode()
        )
        connection.execute(
            f"INSERT INTO {schema}.edges SELECT seq, 0, seq, 'success' FROM old".encode()
        )
        for table in GROW | {"blocks"}:
            connection.execute(f"DELETE FROM {schema}.{table}".encode())
            connection.execute(f"VACUUM ANALYZE {schema}.{table}".encode())
        plans = Plans(driver)
        _all_calls(driver, plans.check, "first")
        _calls_of_a_flow(driver, plans.check)
    driver.close()


def _calls_of_a_flow(driver: PostgresDriver, check: Callable[[Callable[[], Any]], Any]) -> None:
    check(lambda: driver.enqueue_flow(_gathered("flow", 3)))
    first = Want(("flow",), 1, 30.0)
    for _ in range(2):
        leases = driver.exchange("name", (), first).reserved
        check(partial(driver.exchange, "name", _failures(leases)))
        check(lambda: driver.promote(BATCH))
        check(partial(driver.requeue, [lease.id for lease in leases]))
    for inputs in (driver.inputs, driver.input_results):
        check(partial(inputs, "flow-last"))
    for page in (driver.flow_nodes, driver.flow_edges):
        check(partial(page, "flow"))
    check(lambda: driver.cancel_flow("flow"))
    check(lambda: driver.promote(BATCH))
    check(lambda: driver.delete_flow("flow"))
    check(lambda: driver.prune(BATCH))


def _all_calls(
    driver: PostgresDriver, check: Callable[[Callable[[], Any]], Any], name: str
) -> None:
    new = [job(f"{name}-{n}", idempotency_key=f"{name}{n}") for n in range(BATCH)]
    check(lambda: driver.enqueue(new))
    check(lambda: driver.enqueue(new))
    want = Want(("default",), BATCH // 5, 30.0)
    leases = check(lambda: driver.exchange(name, (), want)).reserved
    assert len(leases) == BATCH // 5
    renewals = [Renewal(lease.id, lease.fence, b"progress") for lease in leases]
    check(lambda: driver.extend(name, renewals, 60.0))
    leases = check(lambda: driver.exchange(name, _successes(leases), want)).reserved
    twice = _failures(leases) * 2  # the second time each is refused
    leases = check(lambda: driver.exchange(name, twice, want)).reserved
    check(lambda: driver.exchange(name, _failures(leases), want))
    check(lambda: driver.promote(BATCH))
    assert check(lambda: driver.prune(BATCH)) == (0 if name == "first" else BATCH)
    check(lambda: driver.expired(BATCH))
    check(lambda: driver.held(name))
    for state in (State.RUNNING, State.SCHEDULED, State.DEAD):
        check(partial(driver.list_jobs, JobFilter(state=state), cursor="999999999", limit=BATCH))
    ids = [lease.id for lease in leases]
    check(lambda: driver.results(ids))
    check(lambda: driver.cancel(ids))
    check(lambda: driver.requeue(ids))
    check(lambda: driver.delete(ids))
    check(lambda: driver.retire(name))
    queues = {"topics": ["w:default", "w:other"], "queues": ["default", "other"]}
    check(lambda: driver._store.rows("any_ready", **queues))


def test_a_settle_looks_at_its_own_leases_alone(postgres_server: PostgresServer) -> None:
    """Also when the last vacuum came at a moment without any: it read all leases per settlement."""
    driver = migrated(postgres_server.url)
    driver.enqueue([job(f"job-{number}") for number in range(MOST_ROWS + BATCH)])
    driver.exchange("other", (), Want(("default",), MOST_ROWS, 600.0))
    leases = driver.exchange("holder", (), Want(("default",), BATCH, 600.0)).reserved
    driver.close()
    few_rows = "UPDATE pg_class SET reltuples = 0, relpages = 400 WHERE oid = ANY (%s::regclass[])"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        schema = driver._store.address.schema
        connection.execute(few_rows, [[f"{schema}.leases", f"{schema}.leases_pkey"]])
    driver = connect(driver.url)
    settled = Plans(driver).check(lambda: driver.exchange("holder", _successes(leases)))
    assert all(one.verdict is Verdict.APPLIED for one in settled.settled)
    driver.close()


def test_a_batch_of_members_ends_without_a_look_at_the_rest_of_their_flow(
    postgres_server: PostgresServer,
) -> None:
    """Also in a session whose plans are from when there was hardly a flow: it read all members, and
    all that had ended, for each batch."""
    driver = migrated(postgres_server.url)
    plans = Plans(driver)
    for name, members in (("small", 3 * BATCH), ("large", 3 * MOST_ROWS)):
        driver.enqueue_flow(_gathered(name, members))
        exchange = partial(driver.exchange, "holder", want=Want((name,), BATCH, 600.0))
        leases = plans.check(partial(exchange, ())).reserved
        for ends in (_successes, _failures):
            answer = plans.check(partial(exchange, ends(leases)))
            assert {one.verdict for one in answer.settled} == {Verdict.APPLIED}
            leases = answer.reserved
            assert len(leases) == BATCH
        last, size = f"{name}-last", members + 1
        assert len(plans.check(partial(driver.inputs, last, limit=BATCH))) == BATCH
        assert len(plans.check(partial(driver.input_results, last, limit=BATCH))) == BATCH
        assert len(plans.check(partial(driver.flow_nodes, name, limit=BATCH))) == BATCH
        edges = partial(driver.flow_edges, name, cursor=f"{size - 1}.0", limit=BATCH)
        assert len(plans.check(edges).edges) == BATCH
    driver.close()


def _gathered(name: str, members: int) -> Part:
    """So many jobs, in a queue of the flow's name, and one that waits for all of them."""
    nodes = [Node(job(f"{name}-{number}", queue=name)) for number in range(members)]
    nodes.append(Node(job(f"{name}-last", queue=name), members))
    ids = [node.message.id for node in nodes]
    edges = [Edge(source, ids[-1], place) for place, source in enumerate(ids[:-1])]
    return Part(Flow(name, members + 1, members), tuple(nodes), 0, tuple(edges), True)


def _successes(leases: list[Reservation]) -> list[Settlement]:
    return [Settlement.succeed(lease.id, lease.fence, b"result") for lease in leases]


def _failures(leases: list[Reservation]) -> list[Settlement]:
    return [
        Settlement.die(lease.id, lease.fence, error=b"error")
        if number % 2
        else Settlement.retry(lease.id, lease.fence, delay=60.0, error=b"error")
        for number, lease in enumerate(leases)
    ]
