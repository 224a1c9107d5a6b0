"""Jobs in Redis, moved by Lua scripts: each step of the contract is one script, so it is atomic."""

from __future__ import annotations

from taskharbor.clock import Clock
from taskharbor.drivers.redis.driver import RedisDriver

__all__ = ["RedisDriver", "connect"]


def connect(url: str, *, clock: Clock | None = None) -> RedisDriver:
    """The driver for ``redis://host:port/db?namespace=th``."""
    return RedisDriver(url, clock)
