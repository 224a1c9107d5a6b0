"""Servers that are not set up to keep jobs are told apart, with what to do about it."""

import pytest

from taskharbor.cli.checks import Level, examine
from taskharbor.conformance.support import put
from taskharbor.drivers.base import Remark
from taskharbor.drivers.redis import RedisDriver
from taskharbor.drivers.redis.address import parse
from taskharbor.drivers.redis.examining import remarks_on
from taskharbor.errors import ConfigurationError
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisCluster, RedisServer, is_synced
from tests.waiting import wait_until


def subjects(driver: RedisDriver) -> dict[str, Remark]:
    return {remark.subject: remark for remark in driver.examine()}


def works(driver: RedisDriver) -> bool:
    try:
        put(driver, "a")
    except ConfigurationError:
        return False
    return True


def test_a_well_set_server_has_no_remarks(connected: Connect) -> None:
    with RedisServer(aof="everysec") as server:
        assert subjects(connected(server.url)) == {}


def test_eviction_no_file_and_missing_replicas_are_remarked(connected: Connect) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        found = subjects(connected(server.url, wait_replicas=1))
        assert found.keys() == {"eviction", "durability", "replicas"}
        assert "noeviction" in found["eviction"].remedy
        assert "appendonly" in found["durability"].remedy
        assert found["replicas"].fatal
        reported = {one.check: one for one in examine(server.url, None)}
        assert reported["eviction"].level is Level.WARN
        assert "noeviction" in (reported["eviction"].remedy or "")


def test_a_server_that_is_too_old_is_remarked(redis_server: RedisServer) -> None:
    """No such server is at hand: what a real one says, with another number."""
    address = parse(redis_server.url)
    with redis_server.client() as client:
        info = client.info()
    for version, old in [("5.0.14", True), ("6.0.20", True), ("6.2.0", False), ("10.0.1", False)]:
        found = {one.subject: one for one in remarks_on(info | {"redis_version": version}, address)}
        assert ("version" in found) is old
        assert not old or (found["version"].fatal and "6.2" in found["version"].remedy)


def test_a_replica_is_remarked(connected: Connect) -> None:
    with RedisServer() as master, RedisServer() as replica:
        with replica.client() as client:
            client.replicaof("127.0.0.1", master.port)
        wait_until(lambda: is_synced(replica))
        assert subjects(connected(replica.url))["role"].fatal


def test_a_cluster_under_a_plain_url_is_told(
    connected: Connect, redis_cluster: RedisCluster
) -> None:
    drivers = [connected(node.url) for node in redis_cluster.masters]
    assert all("cluster" in subjects(driver) for driver in drivers)
    stranger = next(driver for driver in drivers if not works(driver))
    with pytest.raises(ConfigurationError, match=r"redis\+cluster"):
        put(stranger, "a")


def test_every_master_of_a_cluster_is_looked_at(
    connected: Connect, redis_cluster: RedisCluster
) -> None:
    remarks = connected(redis_cluster.url).examine()
    assert [remark.subject for remark in remarks] == ["durability"] * 3


def test_a_single_server_under_a_cluster_url_is_told(connected: Connect, redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="Cluster"):
        put(connected(redis_url.replace("redis:", "redis+cluster:")), "a")
