"""What every peer's task does, and when the next job is due where they come one at a time.

A task appends one byte, atomically, for whoever counts; with ``PEER_TIMED`` the time in its place.
"""

import os
import random
import struct
import time
from collections.abc import Iterator

TIME = struct.Struct("d")
WARM_UP = 5
"""Jobs before the first one that counts: they start what a worker starts for its first jobs."""
GAP_SECONDS = 0.1
"""On average; at random, so that nobody who polls is always met at the same point."""
WARM_UP_SECONDS = 120

_file = os.open(os.environ["PEER_TICKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_timed = os.environ.get("PEER_TIMED") == "yes"


def tick() -> None:
    os.write(_file, TIME.pack(time.time()) if _timed else b".")


class Turns:
    """One item for each job to be sent, when it is due; ``sent`` are the times just before that."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.sent: list[float] = []

    def __iter__(self) -> Iterator[None]:
        # Sleeps in a sender's event loop, too: that has nothing else to do meanwhile.
        for number in range(WARM_UP + self._jobs):
            if number == WARM_UP:
                _wait_for(WARM_UP)
            if number >= WARM_UP:
                time.sleep(random.expovariate(1 / GAP_SECONDS))
            self.sent.append(time.time())
            yield


def _wait_for(jobs: int) -> None:
    """Raises TimeoutError when so many have not run in time."""
    deadline = time.monotonic() + WARM_UP_SECONDS
    while os.stat(_file).st_size < jobs * TIME.size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the first {jobs} jobs have not run in {WARM_UP_SECONDS} seconds")
        time.sleep(0.01)
