"""The least that a job can cost on Redis: a loop over batches of a list. It loses what it holds."""

import os
import sys
from collections.abc import Iterable

import msgpack
from redis import Redis

from peers.ticks import tick

COMMANDS = 2 * [[sys.executable, "-c", "from peers.redis_loop import run; run()"]]

BATCH = 100
KEPT_SECONDS = 3600
TASKS = {"job": tick}

results = os.environ["PEER_RESULTS"] == "yes"


def run() -> None:
    redis = Redis.from_url(os.environ["PEER_URL"])
    done: list[bytes] = []
    while True:
        pipeline = redis.pipeline(transaction=False)
        for job_id in done:
            pipeline.set(b"result:" + job_id, b"\xc0", ex=KEPT_SECONDS)
        pipeline.lpop("jobs", BATCH)
        taken = pipeline.execute()[-1] or []
        done = []
        for body in taken:
            job_id, task = msgpack.unpackb(body)
            TASKS[task]()
            if results:
                done.append(job_id.encode())


def fill(jobs: int) -> None:
    redis = Redis.from_url(os.environ["PEER_URL"])
    for first in range(0, jobs, 1000):
        numbers = range(first, min(first + 1000, jobs))
        redis.rpush("jobs", *(msgpack.packb([f"{number:026}", "job"]) for number in numbers))


def send(turns: Iterable[None]) -> None:
    redis = Redis.from_url(os.environ["PEER_URL"])
    for number, _ in enumerate(turns):
        redis.rpush("jobs", msgpack.packb([f"{number:026}", "job"]))
