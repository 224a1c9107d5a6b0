"""What an import left behind that does not survive a fork.

Seen are Python's threads and, where there is a /proc, open sockets. Not seen are threads that a C
library started without Python (the pools of numerical libraries, which mostly mind forks
themselves).
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


def leftovers(sockets_before: set[str]) -> list[str]:
    """What the import left behind that does not survive a fork, in words."""
    threads = [
        f"thread {thread.name!r}"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ]
    sockets = [f"open socket (file descriptor {fd})" for fd in open_sockets() - sockets_before]
    return threads + sorted(sockets)


def open_sockets() -> set[str]:
    """Descriptors of this process that are sockets; empty where there is no /proc."""
    found = set()
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            if os.readlink(entry).startswith("socket:"):
                found.add(entry.name)
        except OSError:  # the descriptor of the listing itself
            continue
    return found
