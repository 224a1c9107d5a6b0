"""Real servers for tests. `tests.servers.fixtures` is the pytest plugin that hands them out."""

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerFailed, ServerProcess, free_port, scratch_directory
from tests.servers.redis import RedisCluster, RedisServer
from tests.servers.sentinel import RedisSentinels

__all__ = [
    "PgBouncer",
    "PostgresServer",
    "RedisCluster",
    "RedisSentinels",
    "RedisServer",
    "ServerFailed",
    "ServerProcess",
    "free_port",
    "scratch_directory",
]
