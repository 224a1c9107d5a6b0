"""What a URL says: which file, and how to treat it.

``sqlite:///jobs.db`` is relative to the working directory, ``sqlite:////var/lib/jobs.db``
absolute. Options: ``?synchronous=normal|full``, ``?busy_timeout=SECONDS``.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from taskharbor.errors import ConfigurationError

Synchronous = Literal["normal", "full"]
BUSY_TIMEOUT_SECONDS = 10.0
"""Far longer than any of our transactions: only a foreign program can hold the lock so long."""

_EXAMPLE = "write for example sqlite:///taskharbor.db or sqlite:////var/lib/app/taskharbor.db"


@dataclass(frozen=True, slots=True)
class Address:
    """``path`` is absolute, so that it stays right when the process changes its directory.

    ``synchronous`` normal: a commit survives the death of any process, and may be lost with
    the machine's power; full: it survives that too. ``busy_timeout``: seconds to wait for the
    write lock.
    """

    url: str
    path: str
    synchronous: Synchronous = "normal"
    busy_timeout: float = BUSY_TIMEOUT_SECONDS


def parse(url: str) -> Address:
    """Raises ConfigurationError saying what is wrong with the URL."""
    parts = urlsplit(url)
    if ":memory:" in (parts.netloc, parts.path.lstrip("/")):
        raise ConfigurationError(
            f"{url} would be a private database for every thread, where no worker finds a job; "
            "use memory:// for jobs that live in memory"
        )
    if parts.netloc:
        raise ConfigurationError(
            f"{url} names a host ({parts.netloc!r}), but SQLite is a file: {_EXAMPLE}"
        )
    if parts.fragment:
        raise ConfigurationError(f"{url} has a '#'; write %23 for one in a file's name")
    name = unquote(parts.path[1:])
    if not name or name.endswith("/") or "\x00" in name:
        raise ConfigurationError(f"{url} names no file; {_EXAMPLE}")
    synchronous, busy_timeout = _options(url, parts.query)
    return Address(url, os.path.abspath(name), synchronous, busy_timeout)


def _options(url: str, query: str) -> tuple[Synchronous, float]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal").lower()
    if synchronous not in ("normal", "full"):
        raise ConfigurationError(
            f"synchronous={synchronous} in {url}; use 'normal' (survives a crash of any process) "
            "or 'full' (survives power loss too)"
        )
    seconds = options.pop("busy_timeout", str(BUSY_TIMEOUT_SECONDS))
    if options:
        raise ConfigurationError(
            f"unknown option {next(iter(options))!r} in {url}; known are synchronous, busy_timeout"
        )
    return cast(Synchronous, synchronous), _seconds(url, seconds)


def _seconds(url: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise ConfigurationError(
            f"busy_timeout={text} in {url}; use a number of seconds from 0 to 3600"
        )
    return seconds
