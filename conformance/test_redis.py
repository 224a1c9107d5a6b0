"""The Redis driver, on a server whose append-only file survives a kill."""

from collections.abc import Iterator

import pytest

from taskharbor.conformance import Conformance, Durable, Harness, Shared
from taskharbor.ids import new_id
from tests.servers.redis import RedisServer


class RedisHarness(Harness):
    """A namespace of its own on ``server``."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(f"{server.url}?namespace={new_id()}")
        self._server = server

    def crash(self) -> None:
        self._server.kill()
        self.close()
        self._server.start()


@pytest.fixture(scope="module")
def aof_server() -> Iterator[RedisServer]:
    # no: every write is handed to the kernel before its reply, so that only a power cut loses it.
    # (everysec holds writes back, up to two seconds, while a fsync takes long: a kill at that
    # moment loses what was acknowledged.)
    with RedisServer(aof="no") as server:
        yield server


class TestRedis(Conformance, Shared, Durable):
    @pytest.fixture
    def harness(self, aof_server: RedisServer) -> Harness:
        return RedisHarness(aof_server)
