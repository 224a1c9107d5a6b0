"""After kill -9 of the child that runs a job: when does the job's next attempt begin?"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.figures import Metric
from harness.processes import worker
from harness.stores import Store
from workload import killed_once

from measurements.common import Value, opened
from measurements.size import Size
from tests.waiting import wait_until

RECOVERY = Metric("recovery", "kill -9 of a child to the next attempt", "ms", "recovery")


def measure(store: Store, size: Size) -> Iterator[Value]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, opened(store) as url:
        mark = Path(directory) / "pid"
        with worker(url, BENCH_MARK=str(mark)):
            for _ in range(size.kills):
                mark.unlink(missing_ok=True)
                yield RECOVERY, kill_once(mark)


def kill_once(mark: Path) -> float:
    job = killed_once.delay()
    wait_until(lambda: mark.exists() and mark.read_text(), seconds=60, what="a start")
    killed = time.time()
    os.kill(int(mark.read_text()), signal.SIGKILL)
    return (job.get(timeout=120) - killed) * 1e3
