"""How many connections a worker on Postgres has, whatever its threads do at the same time."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row

from taskharbor.ids import new_id
from tests.scenarios import shop
from tests.scenarios.outages import LEASE, shop_at
from tests.scenarios.worker import Worker
from tests.servers import PostgresServer
from tests.waiting import wait_until

SETTLED_SECONDS = 200.0
"""What a busy machine made it open beside the others is closed when that was not needed for a
minute."""
SESSIONS = """
    SELECT pid, query LIKE '%%.first_ready_at(%%' AS looks, query_start, wait_event_type
    FROM pg_stat_activity WHERE client_port = ANY (%s)
"""


@pytest.fixture
def namespace() -> str:
    return f"th_{new_id()}"


@pytest.fixture
def url(postgres_server: PostgresServer, namespace: str) -> str:
    return f"{postgres_server.url}?namespace={namespace}"


class Sessions:
    """Of one process, as the server sees them."""

    def __init__(self, server: PostgresServer, look: psycopg.Connection, pid: int) -> None:
        self._port = server.port
        self._process = psutil.Process(pid)
        self._cursor = look.cursor(row_factory=dict_row)

    def now(self) -> list[dict[str, Any]]:
        ours = [
            socket.laddr.port
            for socket in self._process.net_connections("tcp")
            if socket.status == psutil.CONN_ESTABLISHED and socket.raddr.port == self._port
        ]
        return self._cursor.execute(SESSIONS, [ours]).fetchall()

    def waits_for_a_lock(self) -> bool:
        return any(one["wait_event_type"] == "Lock" for one in self.now())

    def looks_again(self, known: set[datetime]) -> bool:
        return not self.looks() <= known

    def looks(self) -> set[datetime]:
        """When each began the last of its looks."""
        return {one["query_start"] for one in self.now() if one["looks"]}


def test_maintenance_works_on_one_connection_and_looks_on_the_one_that_listens(
    postgres_server: PostgresServer, url: str, namespace: str, tmp_path: Path
) -> None:
    """Also while its work takes long: jobs are picked up meanwhile."""
    with (
        shop_at(url),
        Worker(url, tmp_path, concurrency=1, **LEASE) as running,
        psycopg.connect(postgres_server.url, autocommit=True) as look,
        psycopg.connect(postgres_server.url) as blocker,
    ):
        sessions = Sessions(postgres_server, look, running.maintenance().pid)
        wait_until(lambda: len(sessions.now()) == 2, seconds=SETTLED_SECONDS, what="just two")
        blocker.execute(f"LOCK TABLE {namespace}.leaders".encode())
        wait_until(sessions.waits_for_a_lock, what="its work to be held up")
        for number in range(3):
            assert shop.noted.delay(number).get(timeout=90) == number
            known = sessions.looks()
            wait_until(partial(sessions.looks_again, known), what="the next look")
        assert len(sessions.now()) <= 2
