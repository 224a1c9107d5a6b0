"""What the tests of the Postgres driver share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskharbor.clock import Clock
from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.ids import new_id
from taskharbor.message import Call, Message, write_body
from taskharbor.settlement import Settlement

BODY = write_body(Call(b"payload"))
PATIENT = {"connect_timeout": "60", "answer_seconds": "60"}
"""A machine that is busy with other tests is slow, not away."""


def a_namespace() -> str:
    return "th_" + new_id()


def migrated(url: str, *, clock: Clock | None = None, **options: str) -> PostgresDriver:
    """A driver on a schema of its own."""
    query = _query(PATIENT | options)
    driver = connect(f"{url}?namespace={a_namespace()}&{query}", clock=clock)
    driver.migrate()
    return driver


def beside(
    driver: PostgresDriver, *, url: str = "", clock: Clock | None = None, **options: str
) -> PostgresDriver:
    """Another driver on the schema of ``driver``, over ``url`` if that one leads there as well."""
    own, _, query = driver.url.partition("?")
    # (Of two values for one option the last one holds.)
    return connect(f"{url or own}?{query}&{_query(options)}".rstrip("&"), clock=clock)


def _query(options: Mapping[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in options.items())


def job(job_id: str, **fields: Any) -> Message:
    return Message(id=job_id, task="demo.task", body=BODY, **fields)


def ran(driver: PostgresDriver, limit: int = 10) -> list[str]:
    """The ids of jobs that were in line, and have succeeded now."""
    reserved = driver.exchange("holder", (), Want(("default",), limit, 30.0)).reserved
    driver.exchange("holder", [Settlement.succeed(one.id, one.fence, None) for one in reserved])
    return [one.id for one in reserved]


def set_turn(driver: PostgresDriver, turn: int) -> None:
    """That of waiters, from now on: it does not change by itself any more."""
    name = f"{driver._store.address.schema}.turn()"
    body = f"RETURNS bigint LANGUAGE sql STABLE AS 'SELECT {turn}::bigint'"
    with driver._store.connections.lend() as connection:
        connection.execute(f"CREATE OR REPLACE FUNCTION {name} {body}".encode())
