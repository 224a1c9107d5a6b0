"""The processes below a process, without a look at all others of the machine.

Scenarios ask for them again and again; psutil reads `/proc/*/stat` for every answer, which on a
busy machine costs more than what the test waits for.
"""

from __future__ import annotations

from pathlib import Path

import psutil


def family(process: psutil.Process) -> list[psutil.Process]:
    """``process`` and its living descendants, parents before their children.

    Raises psutil.NoSuchProcess. A process whose parent has ended is nobody's descendant.
    """
    if not Path("/proc/thread-self/children").exists():  # not Linux
        return [process, *process.children(recursive=True)]
    found = [process]
    for parent in found:
        for pid in _children(parent.pid):
            try:
                found.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
    return found


def _children(pid: int) -> list[int]:
    """Every thread has children of its own; one that ends hands them to another one."""
    pids: dict[int, None] = {}
    try:
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            pids |= dict.fromkeys(map(int, listed.read_text().split()))
    except OSError:
        pass  # gone in the meantime
    return list(pids)
