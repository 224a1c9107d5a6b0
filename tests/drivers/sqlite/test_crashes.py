"""kill -9 at any moment leaves a file where every step is done or not done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from random import Random

from taskharbor.drivers.sqlite import SQLiteDriver, connect
from taskharbor.states import State
from tests.drivers.sqlite.audit import audit

ROUNDS = 12
_PROJECT = Path(__file__).parents[3]


def test_a_process_killed_at_any_moment_leaves_whole_steps(path: Path, url: str) -> None:
    seed = int(os.environ.get("TASKHARBOR_SEED", "1"))
    print(f"TASKHARBOR_SEED={seed}")
    rng = Random(seed)
    acknowledged = Acknowledged()
    number = 0
    while number < ROUNDS or len(acknowledged.enqueued) <= 100:  # a busy machine does less in each
        acknowledged.read(_run_and_kill(url, f"round{number}", 0.3 * rng.random()))
        audit(path)
        number += 1
    with closing(connect(url)) as driver:
        assert _states(driver, acknowledged.dead) <= {State.DEAD}
        assert None not in _states(driver, _kept(acknowledged.enqueued))
        assert _states(driver, _kept(acknowledged.succeeded)) == {State.SUCCEEDED}


class Acknowledged:
    """What the killed processes were told is done."""

    def __init__(self) -> None:
        self.enqueued: set[str] = set()
        self.succeeded: set[str] = set()
        self.dead: set[str] = set()

    def read(self, lines: list[str]) -> None:
        for word, *ids in (line.split() for line in lines):
            getattr(self, word).update(ids)


def _kept(job_ids: set[str]) -> set[str]:
    return {job_id for job_id in job_ids if job_id.startswith("kept")}


def _states(driver: SQLiteDriver, job_ids: set[str]) -> set[State | None]:
    return {outcome and outcome.state for outcome in driver.results(sorted(job_ids))}


def _run_and_kill(url: str, name: str, seconds: float) -> list[str]:
    """Its whole output lines; a torn last line is left out."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.drivers.sqlite.churn", url, name],
        cwd=_PROJECT,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        rest = process.stdout.read()
    output = (first + rest).decode()
    return output[: output.rfind("\n") + 1].splitlines()
