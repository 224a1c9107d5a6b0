"""The shared table: what every child is doing, readable after it died.

One file-backed mapping made by the supervisor. Each child writes its own row; the supervisor reads
them all. A row is a heartbeat and a number of slots, one per job that the child may run at once:

    row   = beat (double) | slot 0 | slot 1 | …
    slot  = phase (1 byte) | crc32 of the record | record
    record = fence | started_at | hard_deadline | length of the id | id

Guarantees. ``started`` returns before the job's payload is touched, and the page belongs to the
kernel: a SIGKILL at any moment loses nothing that was written. The phase is one byte and written
last, so a write cut short shows the old phase over a record whose checksum is wrong; such a
*torn* slot reads as started, because to call a job that ran "never started" would be the worse
mistake. Jobs that are not in any slot have not been started.

Assumption: one writer per slot at a time. Times are seconds of ``boot_time()``, which goes on while
the machine is suspended.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Self
from zlib import crc32

from taskharbor import defaults

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BEAT = struct.Struct("=d")
_RECORD = struct.Struct(f"=QddH{defaults.MAX_NAME_CHARS}s")
_HEAD_BYTES = 8  # phase, padding, checksum: keeps the record aligned
_PUT = struct.Struct(f"=I{_RECORD.size}s")
_PUT_OFFSET = 4
_SLOT_BYTES = (_HEAD_BYTES + _RECORD.size + 7) // 8 * 8
_EMPTY, _STARTED, _FINISHED = 0, 1, 2
_NEVER = 0.0
_READ_TRIES = 5


def boot_time() -> float:
    """Seconds on the clock of the table: boot time, on macOS the monotonic clock."""
    return time.clock_gettime(_CLOCK)


class Phase(IntEnum):
    STARTED = _STARTED
    FINISHED = _FINISHED


@dataclass(frozen=True, slots=True)
class SlotState:
    """One used slot. ``hard_deadline`` None: the job has no time limit.

    ``torn``: the write was cut short; the other fields are what could be read and may be wrong.
    """

    job_id: str
    fence: int
    phase: Phase
    started_at: float
    hard_deadline: float | None
    torn: bool = False


@dataclass(frozen=True, slots=True)
class ChildState:
    """One row. ``slots`` has only used ones, in no promised order."""

    last_beat: float
    slots: tuple[SlotState, ...]

    @property
    def started(self) -> tuple[SlotState, ...]:
        return tuple(slot for slot in self.slots if slot.phase is Phase.STARTED)

    def overdue(self, now: float) -> tuple[SlotState, ...]:
        """Started jobs whose hard deadline has passed."""
        return tuple(
            slot
            for slot in self.started
            if not slot.torn and slot.hard_deadline is not None and slot.hard_deadline <= now
        )


class ChildTable:
    """One child's row, to write. Methods cost well under a microsecond; see the module."""

    __slots__ = ("_beat_at", "_memory", "_offsets")

    def __init__(self, memory: mmap.mmap, offset: int, slots: int) -> None:
        self._memory = memory
        self._beat_at = offset
        self._offsets = [offset + _BEAT.size + slot * _SLOT_BYTES for slot in range(slots)]

    def started(
        self,
        slot: int,
        job_id: str,
        fence: int,
        started_at: float,
        hard_deadline: float | None = None,
    ) -> None:
        """The slot's job is about to run. To be called before its payload is touched."""
        record = _RECORD.pack(
            fence, started_at, hard_deadline or _NEVER, len(job_id), job_id.encode()
        )
        offset = self._offsets[slot]
        _PUT.pack_into(self._memory, offset + _PUT_OFFSET, crc32(record), record)
        self._memory[offset] = _STARTED

    def finished(self, slot: int) -> None:
        """The slot's job has ended; its settlement may still be on the way."""
        self._memory[self._offsets[slot]] = _FINISHED

    def beat(self, now: float) -> None:
        """A sign of life at ``now`` (``boot_time()``)."""
        _BEAT.pack_into(self._memory, self._beat_at, now)


class SharedTable:
    """All rows, to read; made by the supervisor, mapped again by who is given ``fd``."""

    __slots__ = ("_memory", "_row_bytes", "children", "fd", "slots")

    def __init__(self, children: int, slots: int, *, fd: int | None = None) -> None:
        self.children = children
        self.slots = slots
        self._row_bytes = _BEAT.size + slots * _SLOT_BYTES
        size = children * self._row_bytes
        self.fd = _anonymous_file(size) if fd is None else fd
        self._memory = mmap.mmap(self.fd, size)

    def child(self, index: int) -> ChildTable:
        self._check(index)
        return ChildTable(self._memory, index * self._row_bytes, self.slots)

    def clear(self, index: int, now: float) -> None:
        """Make the row ready for a new child: nothing run, last sign of life ``now``."""
        self._check(index)
        start = index * self._row_bytes
        self._memory[start : start + self._row_bytes] = bytes(self._row_bytes)
        _BEAT.pack_into(self._memory, start, now)

    def read(self, index: int) -> ChildState:
        """The row as it is now. A slot that its live child is just writing is read again, so
        ``torn`` all but means that the child died while it wrote."""
        self._check(index)
        start = index * self._row_bytes
        (last_beat,) = _BEAT.unpack_from(self._memory, start)
        states = (
            self._read_slot(start + _BEAT.size + slot * _SLOT_BYTES) for slot in range(self.slots)
        )
        return ChildState(last_beat, tuple(state for state in states if state is not None))

    def _read_slot(self, offset: int) -> SlotState | None:
        for _ in range(_READ_TRIES):
            phase = self._memory[offset]
            checksum, record = _PUT.unpack_from(self._memory, offset + _PUT_OFFSET)
            if phase == _EMPTY and checksum == 0:
                return None
            if crc32(record) == checksum and phase != _EMPTY:
                return _slot_state(record, Phase(phase), torn=False)
        return _slot_state(record, Phase.STARTED, torn=True)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.children:
            raise IndexError(f"the table has rows 0 to {self.children - 1}, not {index}")

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _slot_state(record: bytes, phase: Phase, *, torn: bool) -> SlotState:
    fence, started_at, hard_deadline, length, name = _RECORD.unpack(record)
    job_id = name[:length].decode("ascii", errors="replace")
    return SlotState(job_id, fence, phase, started_at, hard_deadline or None, torn)


def _anonymous_file(size: int) -> int:
    """A file that no directory knows and that goes with its last descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("taskharbor-table")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
