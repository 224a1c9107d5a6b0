"""Jobs in Redis, moved by Lua scripts: each step of the contract is one script, so it is atomic."""

from __future__ import annotations

from taskharbor.clock import Clock
from taskharbor.drivers.redis.address import parse
from taskharbor.drivers.redis.driver import RedisDriver

__all__ = ["RedisDriver", "connect"]


def connect(url: str, *, clock: Clock | None = None) -> RedisDriver:
    """The driver for ``redis://``, ``rediss://``, ``redis+sentinel://``, ``redis+cluster://`` or
    ``unix://`` (docs/redis.md has the options). It connects when it is first called.

    Raises ConfigurationError, naming the part of the URL that can't be used.
    """
    return RedisDriver(parse(url), clock)
