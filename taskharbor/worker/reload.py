"""``--reload``: has one of the app's source files changed?"""

from __future__ import annotations

import os
from collections.abc import Iterable

LOOK_SECONDS = 0.5


class FileWatch:
    """Compares modification times. Polling, because it works on every file system, containers'
    mounts included, and costs a stat per file. Times are the monotonic clock."""

    __slots__ = ("_seen", "look_at")

    def __init__(self, files: Iterable[str], now: float) -> None:
        self._seen = {file: _modified_at(file) for file in files}
        self.look_at = now + LOOK_SECONDS

    def changed(self, now: float) -> list[str]:
        """Files that were changed, created or removed since the last look; none before it is time
        for the next."""
        if now < self.look_at:
            return []
        self.look_at = now + LOOK_SECONDS
        seen = {file: _modified_at(file) for file in self._seen}
        changed = [file for file, modified_at in seen.items() if modified_at != self._seen[file]]
        self._seen = seen
        return changed


def _modified_at(file: str) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None
