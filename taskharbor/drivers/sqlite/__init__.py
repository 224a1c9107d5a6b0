"""SQLite: the embedded default. One file, no server, all processes of one machine."""

from __future__ import annotations

from taskharbor.clock import Clock
from taskharbor.drivers.sqlite.address import parse
from taskharbor.drivers.sqlite.driver import SQLiteDriver


def connect(url: str, *, clock: Clock | None = None) -> SQLiteDriver:
    """Open, and if need be create or migrate, the file that ``url`` names (see ``address``).

    Raises ConfigurationError for a URL or a path that can't work, SchemaMismatch for a file of a
    newer TaskHarbor, StoreReadOnly, StoreFull, StoreUnavailable, and StoreError for a file that
    is damaged or no database.
    """
    return SQLiteDriver(parse(url), clock)


__all__ = ["SQLiteDriver", "connect"]
