"""A memory cgroup of one's own, of either version: who takes more than its limit is killed by the
kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taskharbor.ids import new_id
from tests.waiting import wait_until

_ROOT = Path("/sys/fs/cgroup")


class MemoryCgroup:
    """What a process had before it came in counts elsewhere: only what it takes from then on counts
    here."""

    def __init__(self, path: Path, limit: str, events: str) -> None:
        self._path = path
        self._limit = limit
        self._events = events

    def set_limit(self, size: int) -> None:
        (self._path / self._limit).write_text(str(size))

    def add(self, pid: int) -> None:
        """With all its threads. Raises ProcessLookupError."""
        (self._path / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed for the limit."""
        lines = (self._path / self._events).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def remove(self) -> None:
        """When all in it have ended."""

        def gone() -> bool:
            with suppress(OSError):  # busy
                os.rmdir(self._path)
            return not self._path.exists()

        wait_until(gone, what=f"the end of all in {self._path}")


@contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup]:
    """Raises OSError where none may be made: it takes root, and a machine (or a container) whose
    memory controller is its own."""
    name = f"taskharbor-{new_id()}"
    if (_ROOT / "memory").is_dir():
        path, files = _ROOT / "memory" / name, ("memory.limit_in_bytes", "memory.oom_control")
    else:
        path, files = _ROOT / name, ("memory.max", "memory.events")
    path.mkdir()
    cgroup = MemoryCgroup(path, *files)
    try:
        yield cgroup
    finally:
        cgroup.remove()
