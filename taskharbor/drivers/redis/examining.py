"""Whether the servers are set up to keep jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from taskharbor.drivers.base import Remark
from taskharbor.drivers.redis.address import Address
from taskharbor.drivers.redis.faults import translate
from taskharbor.drivers.redis.store import Store

OLDEST = (6, 2)


def examine(store: Store) -> list[Remark]:
    """One remark for each thing that is not as it should be, on each server. Raises StoreErrors."""
    store.check_process()
    try:
        infos = [server.client.info() for server in store.link.servers()]
    except redis.RedisError as error:
        store.link.look_again(error)
        raise translate(error, store.address.url) from error
    return [remark for info in infos for remark in remarks_on(info, store.address)]


def remarks_on(info: dict[str, Any], address: Address) -> Iterator[Remark]:
    """``info``: what the server says of itself."""
    version = str(info["redis_version"])
    who = f"the Redis {version} on port {info.get('tcp_port', '?')}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        yield Remark("version", f"{who} is too old", "upgrade it to 6.2 or later", fatal=True)
    if info.get("role") == "slave":
        remedy = "name the master in the URL, or use redis+sentinel://"
        yield Remark("role", f"{who} is a replica and can't be written to", remedy, fatal=True)
    if info.get("cluster_enabled") and address.kind != "cluster":
        remedy = "write redis+cluster:// in the URL"
        yield Remark("cluster", f"{who} is a node of a Cluster", remedy, fatal=True)
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Remark(
            "eviction",
            f"{who} may throw jobs away when memory is short: maxmemory-policy is {policy}",
            "set maxmemory-policy to noeviction; caches belong on another server",
        )
    if not info.get("aof_enabled"):
        yield Remark(
            "durability",
            f"{who} keeps no append-only file: a crash loses what came after the last snapshot",
            "set appendonly to yes",
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Remark(
            "durability",
            f"{who} could not write its append-only file",
            "look into its log, and make room on its disk",
            fatal=True,
        )
    if info.get("connected_slaves", 0) < address.wait_replicas:
        yield Remark(
            "replicas",
            f"{who} has {info['connected_slaves']} replicas, fewer than wait_replicas: every "
            "enqueue fails",
            "connect replicas, or lower wait_replicas in the URL",
            fatal=True,
        )
