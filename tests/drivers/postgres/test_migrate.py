"""Migrations: by many at once, killed half-way, of another version."""

import os
import signal
import subprocess
import sys

import psycopg
import pytest
from click.testing import CliRunner, Result

from taskharbor.cli.root import cli
from taskharbor.drivers.postgres import connect, schema
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
