"""Jobs in Postgres, moved by functions in a schema of their own: one round trip, one commit."""

from __future__ import annotations

from taskharbor.clock import Clock
from taskharbor.drivers.postgres.address import parse
from taskharbor.drivers.postgres.driver import PostgresDriver

__all__ = ["PostgresDriver", "connect"]


def connect(url: str, *, clock: Clock | None = None) -> PostgresDriver:
    """The driver for ``postgresql://user@host/database?namespace=taskharbor``; opens nothing."""
    return PostgresDriver(parse(url), clock)
