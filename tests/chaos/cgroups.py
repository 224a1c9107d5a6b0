"""A memory cgroup of one's own, of either version: who takes more than its limit is killed by the
kernel.

Version 2 after the kernel's Documentation/admin-guide/cgroup-v2.rst. A cgroup has a memory limit
only if its parent has the controller in ``cgroup.subtree_control``; that is a thing of those
cgroups that have no processes of their own, and who may change it is decided by who owns the files
(delegation). So ours is made beside our own processes' one, below the next ancestor that gives its
children a limit; where none does, the ancestors are asked to, from the top.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from taskharbor.ids import new_id
from tests.waiting import wait_until

_MOUNTS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


class Files(NamedTuple):
    """``swap``: what is to be set so that nobody escapes into swap, where the kernel has it, and
    whether to the limit itself (version 1 counts both together) or to 0."""

    limit: str
    events: str
    swap: str
    swap_is_limit: bool


V1 = Files("memory.limit_in_bytes", "memory.oom_control", "memory.memsw.limit_in_bytes", True)
V2 = Files("memory.max", "memory.events", "memory.swap.max", False)


class MemoryCgroup:
    """What a process had before it came in counts elsewhere: only what it takes from then on counts
    here."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files

    def set_limit(self, size: int) -> None:
        write(self._path / self._files.limit, str(size))
        swap = self._path / self._files.swap
        if swap.exists():
            write(swap, str(size if self._files.swap_is_limit else 0))

    def add(self, pid: int) -> None:
        """With all its threads. Raises ProcessLookupError."""
        write(self._path / "cgroup.procs", str(pid))

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed for the limit."""
        lines = (self._path / self._files.events).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def remove(self) -> None:
        """When all in it have ended."""

        def gone() -> bool:
            with suppress(OSError):  # busy
                os.rmdir(self._path)
            return not self._path.exists()

        wait_until(gone, what=f"the end of all in {self._path}")


@contextmanager
def memory_cgroup(mounts: Path = _MOUNTS, own: Path = _OWN) -> Iterator[MemoryCgroup]:
    """Raises OSError where none may be made: it takes root, or a cgroup that was delegated to our
    user, and a machine (or a container) that hands out the memory controller."""
    parent, files = _parent(mounts, own.read_text())
    path = parent / f"taskharbor-{new_id()}"
    os.mkdir(path)
    cgroup = MemoryCgroup(path, files)
    try:
        yield cgroup
    finally:
        cgroup.remove()


def _parent(mounts: Path, own: str) -> tuple[Path, Files]:
    """Where to make it. ``own``: what /proc says of a process' cgroups."""
    for root in (mounts, mounts / "unified"):
        if "memory" in _words(root / "cgroup.controllers"):
            return _sharing_ancestor(root, _own_path(own)), V2
    return mounts / "memory", V1


def _own_path(own: str) -> str:
    """In version 2, from the root of the hierarchy; "/" where that is not to be seen from here."""
    for line in own.splitlines():
        if line.startswith("0::"):
            path = line.removeprefix("0::").removesuffix(" (deleted)")
            return "/" if path.startswith("/..") else path
    return "/"


def _sharing_ancestor(root: Path, own: str) -> Path:
    """The next ancestor of our own cgroup that gives its children a memory limit."""
    ancestors = [root, *(root / part for part in _prefixes(own))][:-1] or [root]
    for ancestor in reversed(ancestors):
        if "memory" in _words(ancestor / "cgroup.subtree_control"):
            return ancestor
    refusals = []
    for ancestor in ancestors:  # each may hand out only what it was given
        try:
            write(ancestor / "cgroup.subtree_control", "+memory")
        except OSError as error:
            refusals.append(f"{ancestor}: {error.strerror}")
            break
    else:
        return ancestors[-1]
    raise OSError(
        f"no cgroup above ours hands out the memory controller ({'; '.join(refusals)}); run this "
        "as root, and where a container's first cgroup has processes, move them into one below it"
    )


def _prefixes(path: str) -> Iterator[Path]:
    """ "/a/b" -> "a", "a/b"."""
    whole = Path(path.lstrip("/"))
    yield from (*reversed(whole.parents[:-1]), *([whole] if whole.parts else []))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []


def write(path: Path, text: str) -> None:
    """To a file that is there: a cgroup's files are made by the kernel. In one call."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
