"""Migrations: by many at once, killed half-way, of another version."""

import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from taskharbor import TaskHarbor, chain, testing
from taskharbor.cli.root import cli
from taskharbor.drivers.postgres import PostgresDriver, connect, schema
from taskharbor.errors import SchemaMismatch
from tests.drivers.postgres.support import a_namespace, job, migrated
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

LATEST = schema.migrations()[-1].number
MIGRATE = (
    "import sys; from taskharbor.drivers.registry import connect; connect(sys.argv[1]).migrate()"
)


def migrating(url: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen([sys.executable, "-c", MIGRATE, url], env=environment)


def test_ten_processes_may_migrate_an_empty_database_at_once(
    postgres_server: PostgresServer,
) -> None:
    url = f"{postgres_server.url}?namespace={a_namespace()}"
    assert [process.wait(240) for process in [migrating(url) for _ in range(10)]] == [0] * 10
    driver = connect(url)
    assert driver.version() == LATEST
    assert driver.enqueue([job("a")])[0].created
    driver.close()


def test_a_migration_killed_half_way_leaves_nothing(postgres_server: PostgresServer) -> None:
    """A lock holds it up where it writes down its first step; there it is killed."""
    name = a_namespace()
    url = f"{postgres_server.url}?namespace={name}"
    steps = schema.migrations()
    with psycopg.connect(postgres_server.url) as blocker:
        blocker.execute(schema.script(f'"{name}"', []).encode())
        blocker.commit()
        blocker.execute(f'LOCK TABLE "{name}".migrations IN SHARE MODE'.encode())
        process = migrating(url)
        with psycopg.connect(postgres_server.url, autocommit=True) as watcher:
            waits = (
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass)"
            )
            wait_until(
                lambda: watcher.execute(waits, (f'"{name}".migrations',)).fetchone() == (True,),
                what="the migration to reach its first INSERT",
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
    driver = connect(url)
    assert driver.version() == 0
    assert driver.migrate() == [step.name for step in steps]
    assert driver.enqueue([job("a")])[0].created
    driver.close()


def test_without_a_schema_the_error_names_the_remedy(postgres_server: PostgresServer) -> None:
    driver = connect(f"{postgres_server.url}?namespace={a_namespace()}")
    with pytest.raises(SchemaMismatch, match="taskharbor migrate"):
        driver.enqueue([job("a")])
    driver.close()


def test_a_schema_newer_than_the_code_is_refused(postgres_server: PostgresServer) -> None:
    first = migrated(postgres_server.url)
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        insert = f"INSERT INTO {first._store.address.schema}.migrations VALUES (9999, 'later')"
        connection.execute(insert.encode())
    second = connect(first.url)
    for call in (second.migrate, second.queues, second.pending):
        with pytest.raises(SchemaMismatch, match="upgrade TaskHarbor"):
            call()
    first.close()
    second.close()


def test_the_script_does_what_migrate_does(postgres_server: PostgresServer) -> None:
    driver = connect(f"{postgres_server.url}?namespace={a_namespace()}")
    assert driver.pending() == [step.name for step in schema.migrations()]
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(driver.script().encode())
    assert (driver.version(), driver.pending(), driver.script()) == (LATEST, [], "")
    assert driver.enqueue([job("a")])[0].created
    driver.close()


def test_who_may_make_no_schema_migrates_the_one_that_was_made_for_it(
    postgres_server: PostgresServer,
) -> None:
    """Also with the script; and who works there needs no more than docs/postgres.md says."""
    own, scripted, clerk = a_namespace(), a_namespace(), a_namespace()
    with psycopg.connect(postgres_server.url, autocommit=True) as administrator:
        for role in (own, clerk):
            administrator.execute(f"CREATE ROLE {role} LOGIN".encode())
        for name in (own, scripted):
            administrator.execute(f"CREATE SCHEMA {name} AUTHORIZATION {own}".encode())
    url = postgres_server.url.replace("postgres@", f"{own}@")
    with closing(connect(f"{url}?namespace={own}")) as driver:
        assert driver.migrate()
        with psycopg.connect(url) as connection:
            connection.execute(rights(own, clerk).encode())
    with closing(connect(f"{url}?namespace={scripted}")) as driver:
        with psycopg.connect(url) as connection:
            connection.execute(driver.script().encode())
        assert driver.pending() == []
    app = TaskHarbor(f"{url.replace(own, clerk)}?namespace={own}")

    @app.task(name="demo.add")
    def add(a: int, b: int) -> int:
        return a + b

    assert isinstance(app.driver, PostgresDriver)
    assert app.driver.migrate() == []
    single, flow = add.delay(1, 2), chain(add.s(1, 1), add.s(1)).apply_async()
    testing.drain(app)
    assert (single.get(timeout=0), flow.get(timeout=0)) == (3, 3)
    assert (app.driver.prune(10), app.driver.held("holder")) == (0, [])
    app.close()


def rights(namespace: str, role: str) -> str:
    """The SQL of docs/postgres.md for a role that works in a namespace."""
    page = (Path(__file__).parents[3] / "docs" / "postgres.md").read_text()
    block = re.search(r"(?:^    GRANT .*\n)+", page, re.MULTILINE)
    assert block is not None
    return block[0].replace("taskharbor", namespace).replace("clerk", role)


def test_the_command_checks_prints_and_migrates(postgres_server: PostgresServer) -> None:
    url = f"{postgres_server.url}?namespace={a_namespace()}"

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["migrate", "--url", url, *words])

    steps = [step.name for step in schema.migrations()]
    check = run("--check")
    assert (check.exit_code, check.stdout.split()) == (1, steps)
    script = run("--sql").stdout
    assert run("--check").exit_code == 1  # looking changed nothing
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(script.encode())
    assert (run("--check").exit_code, run().stdout, run("--sql").stdout) == (
        0,
        "Nothing to do.\n",
        "",
    )
