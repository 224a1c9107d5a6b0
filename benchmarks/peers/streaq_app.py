"""streaQ on Redis streams, two workers of 16 tasks at once (its default)."""

import asyncio
import os
import sys
from collections.abc import Iterable

from streaq import Worker

from peers.ticks import tick

COMMANDS = [[sys.executable, "-m", "streaq", "run", "peers.streaq_app:worker", "--workers", "2"]]

worker = Worker(redis_url=os.environ["PEER_URL"], concurrency=16)


@worker.task(ttl=300 if os.environ["PEER_RESULTS"] == "yes" else 0, silent=True)
async def job() -> None:
    tick()


def fill(jobs: int) -> None:
    async def send() -> None:
        async with worker:
            for first in range(0, jobs, 1000):
                await worker.enqueue_many([job.enqueue() for _ in range(min(1000, jobs - first))])

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        async with worker:
            for _ in turns:
                await job.enqueue()

    asyncio.run(send_all())
