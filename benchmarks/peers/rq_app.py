"""RQ on Redis: a pool of two workers that fork for each job, as it does by default."""

import os
import sys
from collections.abc import Iterable

from redis import Redis
from rq import Queue, Retry

from peers.ticks import tick

COMMANDS = [
    [
        sys.executable,
        "-c",
        "from rq.cli import main; main()",
        "worker-pool",
        "-n",
        "2",
        "-u",
        os.environ["PEER_URL"],
        "-q",
        "default",
    ]
]

# RQ's own default keeps a result for 500 seconds, 0 keeps none.
RESULT_SECONDS = 500 if os.environ["PEER_RESULTS"] == "yes" else 0
AT_ONCE = 1000


def job() -> None:
    tick()


def fill(jobs: int) -> None:
    queue = Queue(connection=Redis.from_url(os.environ["PEER_URL"]))
    for first in range(0, jobs, AT_ONCE):
        queue.enqueue_many(
            [
                Queue.prepare_data(job, result_ttl=RESULT_SECONDS, retry=Retry(max=3))
                for _ in range(min(AT_ONCE, jobs - first))
            ]
        )


def send(turns: Iterable[None]) -> None:
    queue = Queue(connection=Redis.from_url(os.environ["PEER_URL"]))
    for _ in turns:
        queue.enqueue(job, result_ttl=RESULT_SECONDS, retry=Retry(max=3))
