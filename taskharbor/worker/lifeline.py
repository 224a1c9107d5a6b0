"""How the processes of a worker die together.

On Linux the kernel kills a process when its parent dies (PR_SET_PDEATHSIG), whatever the process
is doing: a task that holds the GIL, too. The signal is forgotten over fork, so every process asks
for it itself; the parent may have died just before, so every process then looks at its parent.

Elsewhere (macOS) there is no such signal: the generation and maintenance see the end of their
channel, and a child's heartbeat thread sees that its parent changed. A child whose task holds the
GIL all the time is then only killed by its generation, and outlives a generation that was itself
killed with SIGKILL until the task lets go.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Literal

from taskharbor.worker.config import ExitCode

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_OURS = frozenset(code for code in ExitCode if code >= 64)  # below, it may be a task's os._exit
_LINUX = sys.platform == "linux"

# Loaded before any fork: between fork and the death signal no time is lost with dlopen.
_libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None


def die_with_parent(parent: int) -> None:
    """From now on this process is killed when its parent, process ``parent``, dies; ends this
    process at once with ``ExitCode.ORPHANED`` if that has happened already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(ExitCode.ORPHANED)


def name_process(name: str) -> None:
    """What ``ps -o comm`` and ``top`` call this process: at most 15 characters. Linux only."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name.encode()[:15])


ProcessState = Literal["running", "stopped", "gone"]


def process_state(pid: int) -> ProcessState:
    """``stopped`` by a signal or a debugger; ``gone`` = dead, perhaps not yet waited for.

    Where there is no /proc, a live process counts as running: one that was stopped with SIGSTOP
    can't be told from one that holds the GIL.
    """
    if _LINUX:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return "gone"
        # The name, in parentheses, may hold anything, so look behind the last one.
        letter = stat[stat.rindex(b")") + 2 :][:1]
        if letter in b"ZX":
            return "gone"
        return "stopped" if letter in b"Tt" else "running"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return "running"


def describe_code(code: int) -> str:
    """An exit code (negative: a signal's number) in words, for errors and logs:
    ``was killed by SIGKILL``."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}"
    ours = code in _OURS and f" ({ExitCode(code).name.lower().replace('_', ' ')})"
    return f"exited with code {code}{ours or ''}"
