"""The stores that storms go over, with what can be done to each from outside."""

from __future__ import annotations

import os
import signal
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import psycopg

from taskharbor.drivers.base import InspectableDriver, Migratable
from taskharbor.drivers.memory import wire
from taskharbor.drivers.memory.place import Place
from taskharbor.drivers.registry import connect
from taskharbor.ids import new_id
from tests.proxy import TcpProxy
from tests.servers.postgres import PostgresServer, PostgresStandby
from tests.servers.process import ServerFailed
from tests.servers.redis import RedisReplica, RedisServer

Undo = Callable[[], object]


class Site(ABC):
    """One empty store. Use it as a context manager.

    ``judge`` leads past everything that can be cut. ``links`` are proxies before the server, if it
    can have any: one for each worker, the last for those who enqueue.
    """

    name: str
    linked: ClassVar[bool] = False
    """Whether it is reached over TCP, where a proxy can stand in between."""
    server_pid: int | None = None
    """The process that can be paused; None: the store has none."""

    def __init__(self, directory: Path, *, standby: bool = False) -> None:
        """``standby``: for a server, one more, which can take over."""
        self.directory = directory
        self.with_standby = standby
        self.links: list[TcpProxy] = []
        self.exit = ExitStack()

    @property
    @abstractmethod
    def url(self) -> str:
        """The straight way."""

    def url_for(self, link: int) -> str:
        """The way through a link, where there are links."""
        return self.links[link].url if self.links else self.url

    @abstractmethod
    def open(self) -> None:
        """Start what has to run."""

    def make_links(self, count: int) -> None:
        for _ in range(count if self.linked else 0):
            self.links.append(self.exit.enter_context(TcpProxy.before(self.url)))

    def connect(self) -> InspectableDriver:
        """A driver of the caller's own, on the straight way."""
        return connect(self.url)

    def heal(self) -> None:
        """End what was done to the links."""
        for link in self.links:
            link.heal()

    def __enter__(self) -> Self:
        self.open()
        with closing(self.connect()) as driver:
            if isinstance(driver, Migratable):
                driver.migrate()
        return self

    def __exit__(self, *_: object) -> None:
        self.exit.close()


class MemorySite(Site):
    name = "memory"

    def open(self) -> None:
        self._name = f"chaos-{new_id()}"
        keeper = self.connect()  # the server ends soon after the last of its clients
        self.exit.callback(keeper.close)
        self.server_pid = _server_pid(self._name)
        self.exit.callback(os.kill, self.server_pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"memory://{self._name}?linger=5&timeout=3"


def _server_pid(name: str) -> int:
    """What the server answers to a client's hello."""
    connection = Place.of(name).connect(5.0)
    assert connection is not None
    with connection:
        wire.send(connection, [wire.MAGIC, wire.PROTOCOL])
        status, pid = wire.receive(connection)
    assert status == "ok"
    return int(pid)


class SQLiteSite(Site):
    name = "sqlite"

    def open(self) -> None:
        """Nothing runs: it is a file."""

    @property
    def path(self) -> Path:
        return self.directory / "jobs.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}?busy_timeout=1"

    def lock(self) -> Undo:
        """Take the write lock, as a program that forgot to commit does."""
        other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            pass  # never free for so long: then it is contended enough
        return other.close


class ServerSite(Site):
    """A server, and perhaps its standby, behind one address."""

    linked = True
    server: RedisServer | PostgresServer
    standby: RedisReplica | PostgresStandby | None = None
    _url: str

    @property
    def url(self) -> str:
        return self._url

    def _move_in(self, url: str, standby: RedisReplica | PostgresStandby | None) -> None:
        """``url``: of the server that runs now."""
        self._url, self.standby = url, standby
        if standby is not None:
            self._address = self.exit.enter_context(TcpProxy.before(url))
            self._url = self._address.url

    def revive(self) -> None:
        """Start the server, unless it runs. Raises ServerFailed if it can't, or does not answer: it
        may be about to end."""
        if self.server.ended:
            self.server.kill()  # only to wait for it
        if not self.server.running:
            self.server.start()
        elif not self.server.is_ready():
            raise ServerFailed("it does not answer")

    def fail_over(self) -> None:
        """The server is killed, and its standby has its address from then on, with everything that
        was acknowledged. Raises ServerFailed if there is none that could."""
        if self.standby is None:
            raise ServerFailed("no standby is left")
        self.standby.take_over()
        self.server, self.standby = self.standby, None
        self._address.turn_to(self.server.url)


class RedisSite(ServerSite):
    name = "redis"
    server: RedisServer

    def open(self) -> None:
        # What a client was told must survive a kill, or the storm would only prove that it may not.
        self.server = self.exit.enter_context(RedisServer(aof="always"))
        standby = None
        if self.with_standby:
            standby = self.exit.enter_context(RedisReplica(self.server, aof="always"))
        self._move_in(self.server.url, standby)

    @property
    def server_pid(self) -> int:  # type: ignore[override]
        return self.server.pid

    def say(self, *command: Any) -> Any:
        with self.server.client() as client:
            return client.execute_command(*command)


_FEW = {"max_connections": "60"}


@cache
def _postgres() -> PostgresServer:
    """One for all storms of this process: making one takes seconds."""
    return PostgresServer(settings=_FEW).start()


class PostgresSite(ServerSite):
    name = "postgres"
    server: PostgresServer

    def open(self) -> None:
        standby = None
        if self.with_standby:
            self.server = self.exit.enter_context(PostgresServer(settings=_FEW))
            standby = self.exit.enter_context(PostgresStandby(self.server))
        else:
            self.server = _postgres()
        self._move_in(self.server.create_database(f"chaos_{new_id()}"), standby)

    @property
    def server_pid(self) -> int:  # type: ignore[override]
        return self.server.pid

    def say(self, statement: str) -> None:
        with psycopg.connect(self.server.url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def take_connections(self) -> Undo:
        """All that are left to ordinary users; those who have one keep it."""
        taken: list[psycopg.Connection] = []
        try:
            while len(taken) < 100:
                taken.append(psycopg.connect(self.server.url, connect_timeout=5))
        except psycopg.OperationalError:
            pass

        def give_back() -> None:
            for connection in taken:
                connection.close()

        return give_back


SITES: dict[str, type[Site]] = {
    site.name: site for site in (MemorySite, SQLiteSite, RedisSite, PostgresSite)
}
