"""How soon another task queue's idle workers take a job: jobs that come at random, ten a second.

At random and not one after the other: who polls for jobs would always be met at the same point,
just after the last one. The n-th job to start is taken for the n-th that was sent.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from struct import iter_unpack
from typing import NamedTuple

from measurements.waiting import percentile

from harness.environments import last_line
from harness.peers import (
    Failed,
    Run,
    environment_of,
    fill,
    server,
    told_by,
    wait_for,
    workers,
)

SEND_SECONDS = 300
END_SECONDS = 60
TIME = "d"  # as `peers.ticks` writes it

# Prints when each job was sent that is not for warming up, and how many of the others there were.
SEND = """
import json
from peers import {module} as peer
from peers.ticks import WARM_UP, Turns
turns = Turns({jobs})
peer.send(turns)
print(json.dumps([turns.sent[WARM_UP:], WARM_UP]))
"""


class Pickup(NamedTuple):
    """Milliseconds from before the enqueue to the job's first line."""

    p50: float
    p99: float


def pickup(run: Run) -> Pickup | None:
    """Of ``run.jobs`` jobs, on workers that have run some before. None when one ran twice: nobody
    can say then which start was whose. Raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, server(run.peer) as store:
        ticks = Path(directory) / "ticks"
        environment = {**environment_of(run, store, ticks), "PEER_TIMED": "yes"}
        ticks.write_bytes(b"")
        _, commands = fill(run._replace(jobs=0), environment)
        with workers(commands, environment, Path(directory)) as (log, _):
            sent, earlier = send(run, environment, log)
            wait_for(ticks, (earlier + run.jobs) * 8, END_SECONDS, log)
        started = sorted(time for (time,) in iter_unpack(TIME, ticks.read_bytes()))[earlier:]
    if len(started) > len(sent):
        return None
    waited = sorted((end - begin) * 1e3 for begin, end in zip(sent, started, strict=True))
    return Pickup(percentile(waited, 50), percentile(waited, 99))


def send(run: Run, environment: dict[str, str], log: Path) -> tuple[list[float], int]:
    try:
        sent, earlier = told_by(run, SEND, environment, "send", SEND_SECONDS)
    except Failed as error:
        # It waits for the first jobs, so its failure may be that of the workers.
        raise Failed(f"{error}; {last_line(log.read_text(errors='replace'))}") from error
    return sent, earlier
