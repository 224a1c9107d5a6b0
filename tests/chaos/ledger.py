"""What the tasks did, written where no crash of theirs can take it back.

Each process appends to a file of its own, one line at a time, and has it on the disk before it goes
on: an effect that happened is in the ledger, and a line is never mixed with another process's.
Times are CLOCK_BOOTTIME, which all processes of the machine share and nobody sets.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from taskharbor import current_job
from taskharbor.errors import LeaseError, StoreError

DIRECTORY = "CHAOS_LEDGER"
"""The environment variable that names the ledger's directory."""


class What(StrEnum):
    BEGIN = "begin"
    """The task's code runs."""
    HELD = "held"
    """The store said, between ``sent_at`` and ``at``, that the lease is valid."""
    END = "end"
    """The task's code is about to return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. ``process`` is the pid with the moment of its first line: pids come again."""

    what: What
    job: str
    fence: int
    attempt: int
    process: str
    at: float
    sent_at: float | None = None


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Writer:
    """This process's file in ``directory``. A fork must make its own."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        self.process = f"{self.pid}-{boot_time():.6f}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(directory / f"{self.process}.jsonl", flags, 0o600)

    def write(self, entry: Entry) -> None:
        """On the disk when it returns. Raises OSError; then the line may be there or not, but no
        part of it is, which the next one would follow."""
        line = json.dumps(asdict(entry)).encode() + b"\n"
        before = os.fstat(self._fd).st_size
        if os.write(self._fd, line) < len(line):  # the disk was full in the middle of it
            os.ftruncate(self._fd, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._fd)


_writer: Writer | None = None


def note(what: What, *, sent_at: float | None = None) -> None:
    """A line about the job that this code runs in."""
    global _writer  # noqa: PLW0603 - one file for each process
    if _writer is None or _writer.pid != os.getpid():
        _writer = Writer(Path(os.environ[DIRECTORY]))
    job = current_job()
    _writer.write(
        Entry(
            what=what,
            job=job.id,
            fence=job.fence,
            attempt=job.attempt,
            process=_writer.process,
            at=boot_time(),
            sent_at=sent_at,
        )
    )


@contextmanager
def effect() -> Iterator[None]:
    """What a task does stands inside. The end is noted only if it came to that."""
    note(What.BEGIN)
    yield
    note(What.END)


def prove_lease() -> None:
    """Ask the store whether the lease is still ours, by a write that only its owner may do."""
    sent_at = boot_time()
    try:
        current_job().save("still mine")
    except (LeaseError, StoreError):
        return  # lost, or nobody knows: no proof either way
    note(What.HELD, sent_at=sent_at)


def read(directory: Path) -> list[Entry]:
    """All lines of all processes by time, without those that a kill cut short."""
    entries = []
    for path in directory.glob("*.jsonl"):
        text = path.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            fields = json.loads(line)
            entries.append(Entry(**{**fields, "what": What(fields["what"])}))
    return sorted(entries, key=lambda entry: entry.at)
