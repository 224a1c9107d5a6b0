"""The stores that are measured, each on a server of its own with its default durability.

SQLite ``synchronous=normal``, Redis AOF ``everysec``, Postgres ``fsync`` and ``synchronous_commit``
on. A measurement gets an empty store, and what it left is removed when it ends: a store full of
earlier measurements would be what the later ones measure.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import psutil
import psycopg
from psycopg import sql

from harness.processes import cpu, family
from taskharbor import TaskHarbor
from taskharbor.drivers.base import Migratable
from taskharbor.ids import new_id
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until


class Store(NamedTuple):
    """``fresh()`` opens an empty store and gives its URL; ``cpu(url)`` is how many CPU seconds the
    store's own processes have used, 0 where the store lives in the worker."""

    name: str
    version: str
    fresh: Callable[[], AbstractContextManager[str]]
    cpu: Callable[[str], float]


@contextmanager
def memory() -> Iterator[Store]:
    @contextmanager
    def fresh() -> Iterator[str]:
        name = f"bench-{new_id()}"
        yield f"memory://{name}?linger=1"
        wait_until(lambda: not servers(name), seconds=60, what="the memory server's end")

    def servers(name: str) -> list[psutil.Process]:
        found = psutil.process_iter(["cmdline"])
        return [
            process
            for process in found
            if {"taskharbor.drivers.memory.server", name} <= set(process.info["cmdline"] or ())
        ]

    yield Store("memory", "", fresh, lambda url: cpu(servers(url.split("//")[1].partition("?")[0])))


@contextmanager
def sqlite() -> Iterator[Store]:
    @contextmanager
    def fresh() -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            yield f"sqlite:///{directory}/jobs.db"

    yield Store("sqlite", sqlite3.sqlite_version, fresh, lambda _: 0.0)


@contextmanager
def redis() -> Iterator[Store]:
    with RedisServer(aof="everysec") as server:

        @contextmanager
        def fresh() -> Iterator[str]:
            yield server.url
            with server.client(reply_seconds=60) as client:
                client.flushall()

        with server.client() as client:
            version = str(client.info("server")["redis_version"])
        yield Store("redis", version, fresh, lambda _: cpu([psutil.Process(server.pid)]))


@contextmanager
def postgres() -> Iterator[Store]:
    with PostgresServer(durable=True) as server:

        @contextmanager
        def fresh() -> Iterator[str]:
            name = f"bench_{new_id()}"
            url = server.create_database(name)
            migrated = TaskHarbor(url, name=name)
            assert isinstance(migrated.driver, Migratable)
            migrated.driver.migrate()
            migrated.close()
            yield url
            with psycopg.connect(server.url, autocommit=True) as connection:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))

        with psycopg.connect(server.url) as connection:
            version = connection.info.parameter_status("server_version") or ""
        yield Store("postgres", version, fresh, lambda _: cpu(family(server.pid)))


STORES: dict[str, Callable[[], AbstractContextManager[Store]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
    "postgres": postgres,
}
