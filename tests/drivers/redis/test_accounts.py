"""The rights that docs/redis.md says an account needs are enough."""

from collections.abc import Iterator

import pytest

from taskharbor.conformance.support import apply, put, take_one
from taskharbor.drivers.base import JobFilter
from taskharbor.drivers.redis import connect
from taskharbor.errors import ConfigurationError
from taskharbor.settlement import Settlement
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisServer

RIGHTS = ("~{th*", "&*", "+@all", "-@admin", "-@dangerous", "+info")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_the_documented_rights_are_enough(server: RedisServer, connected: Connect) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">secret", *RIGHTS)
    url = server.url.replace("//", "//shop:secret@")
    driver = connect(url)
    put(driver, "a", "b")
    driver.wait(["default"], 0.05)
    apply(driver, Settlement.succeed("a", take_one(driver).fence, b"r"))
    driver.wait_results(["b"], 0.05)
    driver.pause("default")
    driver.resume("default")
    driver.promote(1)
    driver.prune(1)
    assert len(driver.list_jobs(JobFilter()).jobs) == 2
    driver.close()
    with pytest.raises(ConfigurationError, match="rights"):
        put(connected(url), "a")  # another namespace
