"""What the tests of the Postgres driver share."""

from __future__ import annotations

from typing import Any

from taskharbor.clock import Clock
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.ids import new_id
from taskharbor.message import Call, Message, write_body

BODY = write_body(Call(b"payload"))


def a_namespace() -> str:
    return "th_" + new_id()


def migrated(url: str, *, clock: Clock | None = None, **options: str) -> PostgresDriver:
    """A driver on a schema of its own."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    driver = connect(f"{url}?namespace={a_namespace()}&{query}".rstrip("&"), clock=clock)
    driver.migrate()
    return driver


def job(job_id: str, **fields: Any) -> Message:
    return Message(id=job_id, task="demo.task", body=BODY, **fields)
