"""Namespaces of their own, on servers that other tests use too."""

from collections.abc import Callable, Iterator

import pytest

from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.ids import new_id

Connect = Callable[..., RedisDriver]


@pytest.fixture
def connected() -> Iterator[Connect]:
    """Connect to a URL; closed after the test. Every call of a test shares one namespace."""
    drivers: list[RedisDriver] = []
    namespace = new_id()

    def connect_to(url: str, **options: object) -> RedisDriver:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        joint = "&" if "?" in url else "?"
        drivers.append(connect(f"{url}{joint}namespace={namespace}&{query}".rstrip("&")))
        return drivers[-1]

    yield connect_to
    for driver in drivers:
        driver.close()
