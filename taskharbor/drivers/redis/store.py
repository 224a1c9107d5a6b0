"""Running a script where its shard lives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import redis
from redis.exceptions import NoScriptError

from taskharbor.clock import Clock
from taskharbor.drivers.redis import scripts, shards, wire
from taskharbor.drivers.redis.address import Address
from taskharbor.drivers.redis.faults import is_moved, translate
from taskharbor.drivers.redis.link import link
from taskharbor.drivers.redis.server import Server, packed
from taskharbor.drivers.redis.shard_count import ShardCount
from taskharbor.errors import ConfigurationError, StoreUnavailable

MOVES = 3
"""Times that a request follows a slot that has moved, before it gives up."""
SILENCE_SECONDS = 60.0
"""For how long after a timeout new jobs are kept from the shards of silent servers."""
_REPLICATED = frozenset({"enqueue", "enqueue_one", "requeue", "cancel", "delete"})
"""What nobody would repeat after a failover forgot it. A settlement that is forgotten runs the job
again, which is what at-least-once means."""
_READS = frozenset(
    ("flow", "flow_edges", "flow_nodes", "input_results", "inputs", "inspect", "list", "queues")
) | {"expired", "listen", "results"}
"""What needs the right number of shards, and stores nothing by it."""


class Store:
    """A namespace. Safe to share between threads; not across a fork."""

    def __init__(self, address: Address, clock: Clock | None) -> None:
        self.address = address
        self.shards = range(address.shards)
        self._clock = clock
        self._pid = os.getpid()
        self.link = link(address)
        self.shard_count = ShardCount(address, self._ask_shard_count, self._is_empty)
        self._prefixes = [address.prefix(shard) for shard in self.shards]
        if address.own_prefix not in self._prefixes:
            self._prefixes.append(address.own_prefix)
        self._own = self._prefixes.index(address.own_prefix)
        # Declared to the server and never written: while the slot moves it is not there, so the
        # script is refused before it begins.
        self._route_keys = [prefix + "-" for prefix in self._prefixes]
        self._places = [
            packed(b"1", key.encode(), prefix.encode())
            for key, prefix in zip(self._route_keys, self._prefixes, strict=True)
        ]
        self._beginnings: dict[tuple[int, str], bytes] = {}
        self._wait_ms = round(address.timeout_seconds * 500)
        self._silence_until = 0.0

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
            server = self.server(shard)
            if server.is_silent:
                self._silence_until = time.monotonic() + SILENCE_SECONDS
            if server.is_left_alone:
                return False
            if server.is_up():
                return True
            raise redis.ConnectionError("it can't be reached")
        except redis.RedisError as error:
            self.link.look_again(error)
            return False

    def answering(self, first: int) -> int:
        """The next shard, from ``first`` on, whose server is not known to be silent; else that."""
        if time.monotonic() >= self._silence_until:
            return first
        turns = (*self.shards[first:], *self.shards[:first])
        return next((shard for shard in turns if not self._is_silent(shard)), first)

    def _is_silent(self, shard: int) -> bool:
        try:
            return self.server(shard).is_silent
        except redis.RedisError:
            return True

    def _noticed(self, error: redis.RedisError) -> None:
        if isinstance(error, redis.TimeoutError):
            self._silence_until = time.monotonic() + SILENCE_SECONDS

    def reachable(self, turns: Sequence[int]) -> list[int]:
        """Those of ``turns`` whose servers are there; all, when none is: asking them says why."""
        if len(turns) == 1:
            return [*turns]
        return [shard for shard in turns if self.is_up(shard)] or [*turns]

    def run(self, shard: int, name: str, request: Any) -> Any:
        """The unpacked reply of a script. Raises StoreErrors and ConfigurationError."""
        return wire.unpack(self.run_packed(shard, name, wire.pack(request)))

    def run_packed(self, shard: int, name: str, request: bytes) -> bytes:
        self._confirm(name)
        return self._run_packed(shard, name, request)

    def _confirm(self, name: str) -> None:
        count, writes = self.shard_count, name not in _READS
        if time.monotonic() >= (count.sure_until if writes else count.looked_until):
            count.confirm(writes=writes)

    def _ask_shard_count(
        self, count: int, claim_seconds: float, empty: int | None
    ) -> tuple[int | None, bool]:
        request = wire.pack((count, wire.micros(claim_seconds), empty or False))
        known, in_use = wire.unpack(self._run_packed(self._own, "shard_count", request))
        return known or None, in_use

    def _is_empty(self, count: int) -> bool:
        with closing(Store(replace(self.address, shards=count), self._clock)) as other:
            requests = dict.fromkeys(other.shards, wire.pack(()))
            replies = other._run_each("occupied", requests).values()
        return not any(map(wire.unpack, replies))

    def _run_packed(self, shard: int, name: str, request: bytes) -> bytes:
        command = self._command(shard, name, request)
        replicas = self.address.wait_replicas if name in _REPLICATED else 0
        for attempt in range(1, MOVES + 1):
            try:
                server = self.server(shard)
                try:
                    return self._send(server, command, replicas)
                except NoScriptError:
                    by_text = scripts.load(name).by_text + self._arguments(shard, request)
                    return self._send(server, by_text, replicas)
            except redis.RedisError as error:
                self._noticed(error)
                if not self.link.look_again(error) or attempt == MOVES:
                    raise translate(error, self.address.url) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def run_each(self, name: str, requests: Mapping[int, bytes]) -> dict[int, bytes]:
        """The script in several shards: all are sent before any reply is read. Raises like ``run``,
        of several failures the first; what other shards were asked to do is then done."""
        self._confirm(name)
        return self._run_each(name, requests)

    def _run_each(self, name: str, requests: Mapping[int, bytes]) -> dict[int, bytes]:
        if len(requests) <= 1 or (self.address.wait_replicas and name in _REPLICATED):
            return {
                shard: self._run_packed(shard, name, request) for shard, request in requests.items()
            }
        replies: dict[int, bytes] = {}
        failures: list[redis.RedisError] = []
        silent: set[Server] = set()
        with ExitStack() as unanswered:
            for shard, server, connection in self._begin(name, requests, failures, unanswered):
                if server in silent:
                    connection.close()  # it was waited for once
                    continue
                try:
                    (replies[shard],) = server.finish(connection)
                except redis.RedisError as error:
                    if isinstance(error, redis.TimeoutError):
                        silent.add(server)
                    if not isinstance(error, NoScriptError) and not is_moved(error):
                        failures.append(error)
                    else:
                        self.link.look_again(error)  # it was not run: once more, below
            unanswered.pop_all()
        if failures:
            self._noticed(failures[0])
            self.link.look_again(failures[0])
            raise translate(failures[0], self.address.url) from failures[0]
        for shard in requests.keys() - replies.keys():
            replies[shard] = self._run_packed(shard, name, requests[shard])
        return replies

    def _begin(
        self,
        name: str,
        requests: Mapping[int, bytes],
        failures: list[redis.RedisError],
        unanswered: ExitStack,
    ) -> list[tuple[int, Server, Any]]:
        """Send what can be sent, until the first failure."""
        sent: list[tuple[int, Server, Any]] = []
        for shard, request in requests.items():
            try:
                server = self.server(shard)
                connection = server.begin(self._command(shard, name, request))
            except redis.RedisError as error:
                failures.append(error)
                break
            unanswered.callback(connection.close)
            sent.append((shard, server, connection))
        return sent

    def _command(self, shard: int, name: str, request: bytes) -> bytes:
        """Run a script by its hash. What all its calls begin with is put together once."""
        if self._clock is not None:
            return scripts.load(name).by_hash + self._arguments(shard, request)
        beginning = self._beginnings.get((shard, name))
        if beginning is None:
            beginning = scripts.load(name).by_hash + self._places[shard] + packed(b"")
            self._beginnings[shard, name] = beginning
        return b"%b$%d\r\n%b\r\n" % (beginning, len(request), request)

    def _arguments(self, shard: int, request: bytes) -> bytes:
        """KEYS and ARGV of every script, see ``layout.lua``."""
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

    def each_shard(self, name: str, request: Any, among: Sequence[int] | None = None) -> list[Any]:
        """The unpacked replies of ``among``, by default of all shards, in order."""
        where = self.shards if among is None else among
        replies = self.run_each(name, dict.fromkeys(where, wire.pack(request)))
        return [wire.unpack(replies[shard]) for shard in where]

    def by_shard(self, name: str, job_ids: Sequence[str], *rest: Any) -> list[Any]:
        """Run ``name`` with ``[ids, *rest]`` in each shard that has any of ``job_ids``; answers
        in their order."""
        if self.address.shards == 1:
            answers: list[Any] = self.run(0, name, (list(job_ids), *rest))
            return answers
        return self.scattered(
            name,
            job_ids,
            [self.shard_of(job_id) for job_id in job_ids],
            lambda some: wire.pack((some, *rest)),
            lambda reply, _: wire.unpack(reply),
        )

    def scattered(
        self,
        name: str,
        items: Sequence[Any],
        where: Sequence[int],
        pack: Callable[[Sequence[Any]], bytes],
        read: Callable[[bytes, Sequence[Any]], Sequence[Any]],
    ) -> list[Any]:
        """Run ``name`` in each shard of ``where`` with the ``items`` that belong there; the answers
        in the items' order."""
        places: dict[int, list[int]] = {}
        for place, shard in enumerate(where):
            places.setdefault(shard, []).append(place)
        mine = {shard: [items[place] for place in some] for shard, some in places.items()}
        requests = {shard: pack(some) for shard, some in mine.items()}
        answers: list[Any] = [None] * len(items)
        for shard, reply in self.run_each(name, requests).items():
            for place, answer in zip(places[shard], read(reply, mine[shard]), strict=True):
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
