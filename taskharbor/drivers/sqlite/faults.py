"""From SQLite's error codes to TaskHarbor's errors, each with its remedy."""

from __future__ import annotations

import os
import sqlite3

from taskharbor.errors import (
    ConfigurationError,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TaskHarborError,
)

_PRIMARY = 0xFF
"""An extended result code has its primary code in the lowest byte."""


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection was in the way: to wait and try again is right."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translate(error: sqlite3.Error, path: str) -> TaskHarborError:
    """The error to raise ``from`` this one. ``path``: the database file."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return StoreUnavailable(
            f"{path} was changed by others since this transaction first read it, so it can't "
            "write; roll it back, and begin such transactions with BEGIN IMMEDIATE"
        )
    match _code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(
                f"{path} is locked by another program; end its transaction, or give a longer "
                "?busy_timeout= in the URL"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreReadOnly(
                f"{path} can't be written ({error}); give this user write permission for the file "
                "and for its directory, where SQLite keeps two more files"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return cannot_open(path, error)
        case sqlite3.SQLITE_FULL:
            return StoreFull(
                f"no room left for {path} ({error}); free space on its disk or raise the quota, "
                "then go on: what was stored before is intact"
            )
        case sqlite3.SQLITE_NOTADB:
            return StoreError(
                f"{path} is not an SQLite database; name another file in the URL, or move this "
                "one away"
            )
        case sqlite3.SQLITE_CORRUPT:
            return StoreError(
                f"{path} is damaged ({error}); stop all workers, then restore a backup or save "
                f"what is left with: sqlite3 {path} .recover"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(
                f"reading or writing {path} failed ({error}); look at its disk, "
                "at quotas and at file size limits"
            )
    return StoreError(f"SQLite refused a request on {path}: {error}")


def cannot_open(path: str, error: sqlite3.Error) -> TaskHarborError:
    """Why a file could not be opened or created, as far as the file system tells."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        return ConfigurationError(f"{path} is a directory; name a file in it, e.g. {path}/jobs.db")
    if not os.path.isdir(directory):
        return ConfigurationError(
            f"the directory {directory} does not exist; create it with: mkdir -p {directory}"
        )
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        return StoreReadOnly(
            f"{path} can't be written; give this user write permission for the file and for "
            f"{directory}, where SQLite keeps two more files"
        )
    return StoreUnavailable(f"{path} can't be opened: {error}")


def _code(error: sqlite3.Error) -> int:
    # Python's own errors about arguments have no code.
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY
