"""Opening the file: settings that all our connections have, and the schema.

Which settings: measured at settle and reserve of 100, other page sizes (8 and 16 KiB), page caches
(2 to 32 MiB), memory mapping and checkpoint intervals (1000 to 10 000 pages) made no difference
beyond the noise.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any

from taskharbor.drivers.sqlite import faults, schema
from taskharbor.drivers.sqlite.address import Address
from taskharbor.drivers.sqlite.patience import Patience
from taskharbor.errors import ConfigurationError

PAGE_CACHE_KIB = 8 * 1024
CHECKPOINT_PAGES = 4000
"""The log is moved into the database when it is about 16 MB: less often than SQLite's 1000
pages, because a checkpoint writes each changed page once, however often it changed."""
LOG_LIMIT_BYTES = 64 << 20
"""What is left of the log's file after a rush."""


def open_connection(address: Address) -> sqlite3.Connection:
    """A connection set up as all of ours are, to a file whose schema is ours."""
    _create(address.path)
    try:
        connection = sqlite3.connect(
            address.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise faults.translate(error, address.path) from error
    try:
        _set_up(connection, address)
        schema.migrate(connection, address)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise faults.translate(error, address.path) from error
        raise
    return connection


def _create(path: str) -> None:
    """Make a file that is not there readable by its owner alone: it holds what jobs are called
    with. SQLite gives the files beside it the same rights; one that is there keeps its own."""
    # To close a descriptor of a file gives up this process' locks on it: nobody has any on a new
    # one.
    with suppress(OSError):  # it is there, or SQLite says what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _set_up(connection: sqlite3.Connection, address: Address) -> None:
    # Whatever looks at the file may find it locked, by who makes it, or who recovers it after a
    # crash; SQLite's own busy handler is not asked in all of these places.
    patience = Patience(address.busy_timeout)

    def pragma(text: str) -> Any:
        row = patience.retry(lambda: connection.execute(f"PRAGMA {text}").fetchone())
        return None if row is None else row[0]

    if pragma("journal_mode") != "wal":
        # Only a file without tables takes this: it lets `prune` give room back to the disk.
        pragma("auto_vacuum = incremental")
        mode = pragma("journal_mode = wal")
        if mode != "wal":
            raise ConfigurationError(
                f"the file system of {address.path} can't do what SQLite's write-ahead log needs "
                f"(it stays in mode {mode!r}); put the file on a local disk"
            )
    pragma(f"synchronous = {address.synchronous}")
    pragma(f"cache_size = -{PAGE_CACHE_KIB}")
    pragma(f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
    pragma(f"journal_size_limit = {LOG_LIMIT_BYTES}")
    pragma("temp_store = memory")
