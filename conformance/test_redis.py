"""The Redis driver, on servers whose append-only file survives a kill: Redis 6.2, Redis 7, and a
namespace in shards over a Cluster of three nodes.

With --long also the two that lie between: shards on one server, and one shard in a Cluster.
"""

import re
from collections.abc import Iterator
from itertools import count

import pytest

from taskharbor.conformance import (
    Conformance,
    Durable,
    Harness,
    ScheduleHints,
    ShardedFlowing,
    Shared,
    SharedFlowing,
)
from taskharbor.drivers.redis import scripts
from taskharbor.drivers.redis.shards import hashed
from taskharbor.ids import new_id
from tests.servers.redis import RedisCluster, RedisServer, debian_binary
from tests.waiting import wait_until

# no: every write is handed to the kernel before its reply, so that only a power cut loses it.
# (everysec holds writes back, up to two seconds, while a fsync takes long: a kill at that moment
# loses what was acknowledged.)
AOF = "no"

# What one call moves of flows, and how many edges of a job are stored together.
_PAGE = re.compile(rb"local PAGE = \d+")
_EDGES = re.compile(rb"local PAGE_EDGES = \d+")

SHARDS = 6

PATIENCE_SECONDS = 60
"""A server that a busy machine stalls is slow, not gone."""


class NamespaceHarness(Harness):
    """A namespace of its own, in ``shards``. It moves in scripts."""

    def __init__(self, url: str, shards: int) -> None:
        super().__init__(f"{url}?namespace={new_id()}&shards={shards}&timeout={PATIENCE_SECONDS}")
        self._shards = shards
        self._patches = pytest.MonkeyPatch()

    def beside(self, name: str) -> str:
        names = (f"{name}-{number}" for number in count())
        return next(one for one in names if hashed(one, self._shards) == self._shards - 1)

    def page_flows_by(self, size: int) -> None:
        read = scripts._read

        def with_page(name: str) -> bytes:
            text = _PAGE.sub(b"local PAGE = %d" % size, read(name))
            return _EDGES.sub(b"local PAGE_EDGES = %d" % min(size, 64), text)

        assert b"local PAGE = %d " % size in with_page("flows")
        assert b"local PAGE_EDGES = %d\n" % min(size, 64) in with_page("flows")
        self._patches.setattr(scripts, "_read", with_page)
        scripts.load.cache_clear()

    def close(self) -> None:
        super().close()
        self._patches.undo()
        scripts.load.cache_clear()


class RedisHarness(NamespaceHarness):
    def __init__(self, server: RedisServer, shards: int = 1) -> None:
        super().__init__(server.url, shards)
        self._server = server

    def crash(self) -> None:
        self._server.kill()
        self.disconnect()
        self._server.start()


class ClusterHarness(NamespaceHarness):
    """The namespace's slots are those that its name says."""

    def __init__(self, cluster: RedisCluster, shards: int) -> None:
        super().__init__(cluster.url, shards)
        self._cluster = cluster

    def crash(self) -> None:
        for node in self._cluster.nodes:
            node.kill()
        self.disconnect()
        for node in self._cluster.nodes:
            node.start()
        wait_until(self._works, what="the cluster to work again")

    def _works(self) -> bool:
        for node in self._cluster.nodes:
            with node.client() as client:
                if client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    return False
        return True


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(aof=AOF) as server:
        yield server


@pytest.fixture(scope="module")
def server7() -> Iterator[RedisServer]:
    with RedisServer(binary=debian_binary(), aof=AOF) as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster(aof=AOF) as cluster:
        yield cluster


class TestRedis(Conformance, Shared, Durable, ScheduleHints, SharedFlowing):
    @pytest.fixture
    def harness(self, server: RedisServer) -> Harness:
        return RedisHarness(server)


@pytest.mark.system_servers
class TestRedis7(Conformance, Shared, Durable, ScheduleHints, SharedFlowing):
    @pytest.fixture
    def harness(self, server7: RedisServer) -> Harness:
        return RedisHarness(server7)


class TestRedisCluster(Conformance, Shared, Durable, ScheduleHints, SharedFlowing, ShardedFlowing):
    @pytest.fixture
    def harness(self, cluster: RedisCluster) -> Harness:
        return ClusterHarness(cluster, SHARDS)


@pytest.mark.long
class TestRedisClusterOneShard(Conformance, Shared, Durable, ScheduleHints, SharedFlowing):
    @pytest.fixture
    def harness(self, cluster: RedisCluster) -> Harness:
        return ClusterHarness(cluster, 1)


@pytest.mark.long
class TestRedisShards(Conformance, Shared, Durable, ScheduleHints, SharedFlowing, ShardedFlowing):
    @pytest.fixture
    def harness(self, server: RedisServer) -> Harness:
        return RedisHarness(server, SHARDS)
