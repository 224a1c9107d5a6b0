"""A Redis master with a replica, watched by three Sentinels that fail over."""

from contextlib import ExitStack
from typing import Self

from tests.servers.redis import RedisServer, is_synced
from tests.waiting import wait_until

SERVICE = "taskharbor"
QUORUM = 2

CONFIGURATION = """\
port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor {service} 127.0.0.1 {master_port} {quorum}
sentinel down-after-milliseconds {service} {down_after_milliseconds}
sentinel failover-timeout {service} 5000
"""


class SentinelProcess(RedisServer):
    """One Sentinel; it rewrites its own configuration, so a restart remembers the last failover."""

    name = "sentinel"

    def __init__(
        self, master: RedisServer, *, binary: str | None, down_after_seconds: float
    ) -> None:
        super().__init__(binary=binary)
        self._master = master
        self._down_after_seconds = down_after_seconds

    def command(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        if f"port {self.port}\n" not in (path.read_text() if path.exists() else ""):
            path.write_text(
                CONFIGURATION.format(
                    port=self.port,
                    directory=self.directory,
                    service=SERVICE,
                    master_port=self._master.port,
                    quorum=QUORUM,
                    down_after_milliseconds=int(self._down_after_seconds * 1000),
                )
            )
        return [self._binary, str(path), "--sentinel"]


class RedisSentinels:
    """Use it as a context manager. `addresses` are the Sentinels', `SERVICE` is the master's name.

    `master` and `replica` are named for the roles they start with. A dead master is noticed after
    `down_after_seconds`; the failover takes a second or two more.
    """

    def __init__(self, *, binary: str | None = None, down_after_seconds: float = 1.0) -> None:
        self.master = RedisServer(binary=binary)
        self.replica = RedisServer(binary=binary)
        self._binary = binary
        self._down_after_seconds = down_after_seconds
        self.sentinels: list[SentinelProcess] = []
        self._exit = ExitStack()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each Sentinel."""
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    def start(self) -> Self:
        """Start all and return when every Sentinel knows the replica and the others."""
        self._exit.enter_context(self.master)
        self._exit.enter_context(self.replica)
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", self.master.port)
        wait_until(lambda: is_synced(self.replica), what="the replica to sync")
        for _ in range(3):
            sentinel = SentinelProcess(
                self.master, binary=self._binary, down_after_seconds=self._down_after_seconds
            )
            self.sentinels.append(self._exit.enter_context(sentinel))
        wait_until(self._all_know, what="the Sentinels to know each other")
        return self

    def stop(self) -> None:
        """Stop all and remove their data."""
        self._exit.close()

    def current_master_port(self) -> int:
        """Where the first Sentinel says the master is now."""
        with self.sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return int(port)

    def _all_know(self) -> bool:
        return all(map(_knows_everyone, self.sentinels))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _knows_everyone(sentinel: SentinelProcess) -> bool:
    with sentinel.client() as client:
        view = client.sentinel_master(SERVICE)
    return bool(view["num-slaves"] == 1 and view["num-other-sentinels"] == 2)
