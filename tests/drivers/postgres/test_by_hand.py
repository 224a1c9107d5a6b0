"""What docs/postgres.md says that one may look at, with no more than the right to look."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import psycopg

from taskharbor.drivers.base import JobFilter, Want
from taskharbor.drivers.postgres import connect
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import a_namespace, job, migrated
from tests.servers.postgres import PostgresServer

PAGE = Path(__file__).parents[3] / "docs" / "postgres.md"


def shown(namespace: str, job_id: str) -> list[str]:
    """The statements of the section, for a job of a namespace."""
    section = PAGE.read_text().partition("\n### By hand\n")[2].partition("\n### ")[0]
    block = "".join(re.findall(r"^    (?!--)(.*\n)", section, re.MULTILINE))
    named = block.replace("taskharbor.", f"{namespace}.").replace("'...'", f"'{job_id}'")
    return [statement for statement in named.split(";") if statement.strip()]


def test_who_may_read_the_tables_can_look_by_hand_and_with_the_driver(
    postgres_server: PostgresServer,
) -> None:
    with closing(migrated(postgres_server.url)) as driver:
        driver.enqueue([job("dead"), job("runs")])
        leases = driver.exchange("holder", (), Want(("default",), 2, 30.0)).reserved
        fences = {lease.id: lease.fence for lease in leases}
        driver.exchange("holder", [Settlement.die("dead", fences["dead"], error=b"error")])
        namespace, role = driver._store.address.namespace, a_namespace()
        with psycopg.connect(postgres_server.url, autocommit=True) as administrator:
            for statement in (
                f"CREATE ROLE {role} LOGIN",
                f"GRANT USAGE ON SCHEMA {namespace} TO {role}",
                f"GRANT SELECT ON ALL TABLES IN SCHEMA {namespace} TO {role}",
            ):
                administrator.execute(statement.encode())
        url = driver.url.replace("postgres@", f"{role}@")
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        everything, counts, running, dead = (
            connection.execute(statement.encode()).fetchall()
            for statement in shown(namespace, "runs")
        )
        assert [row[1] for row in everything] == ["runs"]
        assert sorted(counts) == [("default", "dead", 1), ("default", "running", 1)]
        assert [row[:3] for row in running] == [("runs", "demo.task", "holder")]
        assert [row[:4] for row in dead] == [("dead", "demo.task", "raised", 1)]
    with closing(connect(url)) as looks:
        (queue,) = looks.queues()
        assert (queue.counts[State.DEAD], queue.counts[State.RUNNING]) == (1, 1)
        assert [one.id for one in looks.list_jobs(JobFilter()).jobs] == ["runs", "dead"]
        found = looks.get("dead")
        assert found is not None
        assert found.error == b"error"
        assert looks.flow("none") is None
