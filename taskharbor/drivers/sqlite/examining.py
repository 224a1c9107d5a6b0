"""Whether the file lies and the system is set up so that jobs are safe and fast."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from taskharbor.drivers.base import Remark
from taskharbor.drivers.sqlite.transaction import Store
from taskharbor.drivers.sqlite.wake import Watch

REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
    | {"fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "fuse.rclone", "virtiofs"}
)
_ESCAPE = re.compile(r"\\([0-7]{3})")
LONG_LOG_BYTES = 256 << 20
"""Sixteen times what a log should come to before it is moved into the database."""
CLOCK_AHEAD_SECONDS = 60.0


def examine(store: Store) -> list[Remark]:
    return [*_place(store.address.path), *_log(store.address.path), *_ear(store), *_clock(store)]


def _place(path: str) -> Iterator[Remark]:
    kind = file_system(path)
    if kind in REMOTE:
        yield Remark(
            "file system",
            f"{path} is on {kind}: SQLite's locks and its shared memory don't work between the "
            "machines that see it, and jobs get lost",
            "move it to a local disk; for workers on several machines use Redis or Postgres",
        )


def file_system(path: str, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the file system that holds ``path``; None where that can't be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, found = "", None
    for _, point, kind, *_ in (line.split(" ") for line in lines):
        # Spaces and such in a mount point are written as octal escapes.
        folder = _ESCAPE.sub(lambda code: chr(int(code[1], 8)), point)
        inside = os.path.commonpath((path, folder)) == folder
        # Of two mounts on one point the later one is seen.
        if inside and len(folder) >= len(best):
            best, found = folder, kind
    return found


def _log(path: str) -> Iterator[Remark]:
    try:
        size = os.path.getsize(f"{path}-wal")
    except OSError:
        return
    if size > LONG_LOG_BYTES:
        yield Remark(
            "log",
            f"{path}-wal has grown to {size >> 20:,} MiB: a reader that never ends keeps it from "
            "being moved into the database",
            "end what has had the file open for long: an sqlite3 shell, a backup, a debugger",
        )


def _ear(store: Store) -> Iterator[Remark]:
    if sys.platform == "linux" and Watch(store.address.path).is_deaf:
        yield Remark(
            "wake-ups",
            "the system has no inotify instance left, so idle workers look for jobs every few "
            "milliseconds instead of being woken",
            "raise the limit: sysctl fs.inotify.max_user_instances=1024",
        )


def _clock(store: Store) -> Iterator[Remark]:
    with store.reading() as tx:
        ahead = tx.now - store.wall()
    if ahead > CLOCK_AHEAD_SECONDS:
        yield Remark(
            "clock",
            f"the store's time stands still for another {ahead:,.0f} s, and with it leases and "
            "schedules: this machine's clock was set back",
            "set the clock right; if it had been wrong before, stop all workers and run: sqlite3 "
            f"{store.address.path} \"UPDATE th_store SET now = strftime('%s')\"",
        )
