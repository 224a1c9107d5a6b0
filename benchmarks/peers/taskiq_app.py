"""taskiq on Redis streams: acknowledged after the task, others' unacknowledged ones are claimed."""

import asyncio
import os
import sys
from collections.abc import Iterable

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from peers.ticks import tick

COMMANDS = [
    [
        sys.executable,
        "-m",
        "taskiq",
        "worker",
        "peers.taskiq_app:broker",
        "--workers",
        "2",
        "--log-level",
        "WARNING",
        "--max-prefetch",
        "100",
    ]
]

broker = RedisStreamBroker(url=os.environ["PEER_URL"], consumer_id="0")
if os.environ["PEER_RESULTS"] == "yes":
    broker = broker.with_result_backend(
        RedisAsyncResultBackend(os.environ["PEER_URL"], result_ex_time=3600)
    )


@broker.task
async def job() -> None:
    tick()


def fill(jobs: int) -> None:
    async def send() -> None:
        await broker.startup()
        for first in range(0, jobs, 100):
            await asyncio.gather(*(job.kiq() for _ in range(min(100, jobs - first))))
        await broker.shutdown()

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        await broker.startup()
        for _ in turns:
            await job.kiq()
        await broker.shutdown()

    asyncio.run(send_all())
