"""``--reload``: has one of the app's source files changed?"""

from __future__ import annotations

import os
from collections.abc import Iterable

LOOK_SECONDS = 0.5


class FileWatch:
    """Compares modification times. Polling, because it works on every file system, containers'
    mounts included, and costs a stat per file."""

    __slots__ = ("_seen",)

    def __init__(self, files: Iterable[str]) -> None:
        self._seen = {file: _modified_at(file) for file in files}

    def changed(self) -> list[str]:
        """Files that were changed, created or removed since the last call."""
        now = {file: _modified_at(file) for file in self._seen}
        changed = [file for file, modified_at in now.items() if modified_at != self._seen[file]]
        self._seen = now
        return changed


def _modified_at(file: str) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None
