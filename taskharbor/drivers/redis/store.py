"""Running a script where its shard lives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError

from taskharbor.clock import Clock
from taskharbor.drivers.redis import scripts, shards, wire
from taskharbor.drivers.redis.address import Address
from taskharbor.drivers.redis.faults import translate
from taskharbor.drivers.redis.link import link
from taskharbor.drivers.redis.server import Server, packed
from taskharbor.errors import ConfigurationError, StoreUnavailable

MOVES = 3
"""Times that a request follows a slot that has moved, before it gives up."""
_REPLICATED = frozenset({"enqueue", "requeue", "cancel", "delete"})
"""What nobody would repeat after a failover forgot it. A settlement that is forgotten runs the job
again, which is what at-least-once means."""


class Store:
    """A namespace. Safe to share between threads; not across a fork."""

    def __init__(self, address: Address, clock: Clock | None) -> None:
        self.address = address
        self.shards = range(address.shards)
        self._clock = clock
        self._pid = os.getpid()
        self.link = link(address)
        self._prefixes = [address.prefix(shard) for shard in self.shards]
        # Declared to the server and never written: while the slot moves it is not there, so the
        # script is refused before it begins.
        self._route_keys = [prefix + "-" for prefix in self._prefixes]
        self._places = [
            packed(b"1", key.encode(), prefix.encode())
            for key, prefix in zip(self._route_keys, self._prefixes, strict=True)
        ]
        self._wait_ms = round(address.timeout_seconds * 500)

    def prefix(self, shard: int) -> str:
        return self._prefixes[shard]

    def shard_of(self, job_id: str) -> int:
        return shards.shard_of(job_id, self.address.shards)

    def server(self, shard: int) -> Server:
        """The one that has ``shard``. Raises redis' errors."""
        self.check_process()
        return self.link.server(self._route_keys[shard])

    def is_up(self, shard: int) -> bool:
        """Whether there is a connection to the shard's server, or one can be made.

        A shard whose server is gone must not keep workers from the others. Only one that was not
        asked may be passed over: a reservation whose reply is lost has to be heard of.
        """
        try:
            if self.server(shard).is_up():
                return True
            raise redis.ConnectionError("it can't be reached")
        except redis.RedisError as error:
            self.link.look_again(error)
            return False

    def run(self, shard: int, name: str, request: Any) -> Any:
        """The unpacked reply of a script. Raises StoreErrors and ConfigurationError."""
        return wire.unpack(self.run_packed(shard, name, wire.pack(request)))

    def run_packed(self, shard: int, name: str, request: bytes) -> bytes:
        script = scripts.load(name)
        arguments = self._arguments(shard, request)
        replicas = self.address.wait_replicas if name in _REPLICATED else 0
        for attempt in range(1, MOVES + 1):
            try:
                server = self.server(shard)
                try:
                    return self._send(server, script.by_hash + arguments, replicas)
                except NoScriptError:
                    return self._send(server, script.by_text + arguments, replicas)
            except redis.RedisError as error:
                if not self.link.look_again(error) or attempt == MOVES:
                    raise translate(error, self.address.url) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _arguments(self, shard: int, request: bytes) -> bytes:
        """KEYS and ARGV of every script, see ``head.lua``."""
        now = b"" if self._clock is None else b"%d" % wire.micros(self._clock.now())
        return self._places[shard] + packed(now, request)

    def _send(self, server: Server, command: bytes, replicas: int) -> bytes:
        if not replicas:
            reply: bytes = server.call(command)
            return reply
        # WAIT counts what its own connection has written.
        waits = b"*3\r\n" + packed(b"WAIT", b"%d" % replicas, b"%d" % self._wait_ms)
        reply, confirmed = server.finish(server.begin(command + waits), replies=2)
        if confirmed < replicas:
            raise StoreUnavailable(
                f"Redis at {self.address.url} has stored it, but only {confirmed} of {replicas} "
                "replicas have confirmed it; send it again, or lower wait_replicas"
            )
        return reply

    def each_shard(self, name: str, request: Any) -> list[Any]:
        return [self.run(shard, name, request) for shard in self.shards]

    def by_shard(self, name: str, job_ids: Sequence[str], *rest: Any) -> list[Any]:
        """Run ``name`` with ``[ids, *rest]`` in each shard that has any of ``job_ids``; answers
        in their order."""
        if self.address.shards == 1:
            answers: list[Any] = self.run(0, name, (list(job_ids), *rest))
            return answers
        return self.scattered(
            job_ids,
            [self.shard_of(job_id) for job_id in job_ids],
            lambda shard, some: self.run(shard, name, (some, *rest)),
        )

    def scattered(self, items: Sequence[Any], where: Sequence[int], call: Any) -> list[Any]:
        """``call(shard, items)`` for each shard in ``where``; the answers in the items' order."""
        answers: list[Any] = [None] * len(items)
        for shard in sorted(set(where)):
            places = [place for place, other in enumerate(where) if other == shard]
            some = call(shard, [items[place] for place in places])
            for place, answer in zip(places, some, strict=True):
                answers[place] = answer
        return answers

    def check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ConfigurationError(
                f"the driver of {self.address.url} was made in process {self._pid} and can't be "
                "used after a fork; connect again in the child"
            )

    def close(self) -> None:
        self.link.close()
