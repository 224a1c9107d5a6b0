"""Celery on Redis, acknowledging early (its default) or late (`PEER_MODE`)."""

import os
import sys
from collections.abc import Iterable

from celery import Celery

from peers.ticks import tick

COMMANDS = [
    [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "peers.celery_app:app",
        "worker",
        "-c",
        "2",
        "-l",
        "WARNING",
        "--without-gossip",
        "--without-mingle",
    ]
]

late = os.environ["PEER_MODE"] == "late"
app = Celery("peers.celery_app", broker=os.environ["PEER_URL"])
app.conf.update(
    task_acks_late=late,
    task_reject_on_worker_lost=late,
    task_ignore_result=os.environ["PEER_RESULTS"] != "yes",
    result_backend=os.environ["PEER_URL"] if os.environ["PEER_RESULTS"] == "yes" else None,
)


@app.task(name="peers.job")
def job() -> None:
    tick()


def fill(jobs: int) -> None:
    with app.producer_pool.acquire() as producer:
        for _ in range(jobs):
            job.apply_async(producer=producer)


def send(turns: Iterable[None]) -> None:
    with app.producer_pool.acquire() as producer:
        for _ in turns:
            job.apply_async(producer=producer)
