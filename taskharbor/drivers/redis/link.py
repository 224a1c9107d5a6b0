"""Which server has a key: the only one, the Sentinels' master, or a node of a Cluster.

In a Cluster the driver finds its way itself rather than through redis-py's cluster client. A key
that is absent while its slot moves is answered with ASK, and that client would run the script at
the new node, on the part of the shard that has arrived there. Here ASK is an error like others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Protocol

import redis
from redis.crc import key_slot
from redis.sentinel import Sentinel

from taskharbor.drivers.redis.address import Address, Node
from taskharbor.drivers.redis.faults import is_moved
from taskharbor.drivers.redis.server import Server


class Link(Protocol):
    """Safe to share between threads."""

    def server(self, key: str) -> Server:
        """The server that has ``key``. Raises redis' errors."""
        ...

    def look_again(self, error: redis.RedisError) -> bool:
        """After an error: forget what may be outdated. Whether another try makes sense at once,
        because the request was certainly not run."""
        ...

    def servers(self) -> list[Server]:
        """All that hold a part of the data, as far as it is known."""
        ...

    def close(self) -> None: ...


def link(address: Address) -> Link:
    """No connection is made before it is needed."""
    if address.kind == "cluster":
        return ClusterLink(address)
    if address.kind == "sentinel":
        return SingleLink(_behind_sentinels(address))
    if not address.nodes:
        return SingleLink(redis.Redis(**address.settings))
    ((host, port),) = address.nodes
    return SingleLink(redis.Redis(host=host, port=port, **address.settings))


def _behind_sentinels(address: Address) -> redis.Redis:
    sentinel = Sentinel(
        list(address.nodes), sentinel_kwargs=address.sentinel_settings, **address.settings
    )
    master: redis.Redis = sentinel.master_for(address.service)
    return master


class SingleLink:
    def __init__(self, client: redis.Redis) -> None:
        self._server = Server(client)

    def server(self, key: str) -> Server:
        return self._server

    def look_again(self, error: redis.RedisError) -> bool:
        # Behind a name or a virtual address the master may be elsewhere by now.
        if isinstance(error, redis.ReadOnlyError) or "READONLY" in str(error):
            self._server.forget()
        return False

    def servers(self) -> list[Server]:
        return [self._server]

    def close(self) -> None:
        self._server.close()


class ClusterLink:
    """A map of slots to nodes, read when it is first needed and after every sign of a change."""

    def __init__(self, address: Address) -> None:
        self._settings = address.settings
        self._seeds = address.nodes
        self._lock = threading.Lock()
        self._servers: dict[Node, Server] = {}
        self._owners: list[tuple[int, int, Node]] = []

    def server(self, key: str) -> Server:
        with self._lock:
            if not self._owners:
                self._owners = self._ask_around()
            slot = key_slot(key.encode())
            for first, last, node in self._owners:
                if first <= slot <= last:
                    return self._server_of(node)
        self.look_again(redis.exceptions.ClusterDownError("slot without a node"))
        raise redis.exceptions.ClusterDownError(f"CLUSTERDOWN no node has the slot {slot}")

    def look_again(self, error: redis.RedisError) -> bool:
        with self._lock:
            self._owners = []
        return is_moved(error)

    def servers(self) -> list[Server]:
        with self._lock:
            if not self._owners:
                self._owners = self._ask_around()
            return [self._server_of(node) for node in sorted({node for *_, node in self._owners})]

    def close(self) -> None:
        with self._lock:
            servers = list(self._servers.values())
            self._servers.clear()
        for server in servers:
            server.close()

    def _server_of(self, node: Node) -> Server:
        server = self._servers.get(node)
        if server is None:
            server = Server(redis.Redis(host=node[0], port=node[1], **self._settings))
            self._servers[node] = server
        return server

    def _ask_around(self) -> list[tuple[int, int, Node]]:
        """What the first node that answers says. One that sees no working cluster is not asked
        again before the others."""
        failure: redis.RedisError = redis.ConnectionError("no node of the cluster is known")
        nodes = dict.fromkeys((*self._servers, *self._seeds))
        for node in sorted(nodes, key=lambda node: self._server_of(node).is_silent):
            server = self._server_of(node)
            try:
                rows = server.client.execute_command("CLUSTER", "SLOTS")
            except redis.RedisError as error:
                if isinstance(error, redis.TimeoutError):
                    server.fell_silent()
                failure = error
                continue
            return list(_owners(rows, node))
        raise failure


def _owners(rows: list[Any], asked: Node) -> Iterable[tuple[int, int, Node]]:
    for first, last, (host, port, *_), *_ in rows:
        # A node that does not know its own name says nothing: it is the one that was asked.
        yield first, last, (host.decode() or asked[0], port)
