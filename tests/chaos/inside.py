"""What a storm changes inside the processes of a worker, from their first moment.

Imported by a ``sitecustomize`` module that only a storm puts on the path, so it comes before any
module of ours, in every process that is started with exec, and changes nothing unless the
environment says so.

* The wall clock, as Python reads it: ``time.time()`` and ``time.time_ns()`` are off by what a
  mapped file says at that moment. Our code reads it in no other way. Not changed: `datetime.now()`
  and what C libraries read, so a task's own use of those is not part of the experiment.
* A guard, switched off: see ``sabotage``.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLOCK = "CHAOS_CLOCK"
SABOTAGE = "CHAOS_SABOTAGE"
ROOT = Path(__file__).resolve().parents[2]
OFFSET = struct.Struct("d")


def _shift_clock(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    shared = mmap.mmap(descriptor, OFFSET.size, access=mmap.ACCESS_READ)
    os.close(descriptor)
    real, real_ns = time.time, time.time_ns

    def shifted() -> float:
        return real() + float(OFFSET.unpack_from(shared)[0])

    def shifted_ns() -> int:
        return real_ns() + int(OFFSET.unpack_from(shared)[0] * 1e9)

    time.time, time.time_ns = shifted, shifted_ns


def prepare(directory: Path) -> None:
    """Whoever has ``directory`` on its path imports this first."""
    (directory / "sitecustomize.py").write_text(f"import {__name__}\n")


@contextmanager
def sabotaged(directory: Path, name: str | None) -> Iterator[None]:
    """Every process that is started meanwhile has the guard of this name switched off: workers, and
    a server of ours. None: nothing is."""
    if name is None:
        yield
        return
    prepare(directory)
    before = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(directory), str(ROOT)])
    os.environ.update({SABOTAGE: name, "PYTHONPATH": paths})
    try:
        yield
    finally:
        del os.environ[SABOTAGE]
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


if CLOCK in os.environ:
    _shift_clock(os.environ[CLOCK])
if SABOTAGE in os.environ:
    from tests.chaos.sabotage import commit

    commit(os.environ[SABOTAGE])
