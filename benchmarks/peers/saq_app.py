"""SAQ on Redis, two workers of ten jobs at once (its default), with retries for killed workers."""

import asyncio
import os
import sys
from collections.abc import Iterable
from typing import Any

from saq import Queue

from peers.ticks import tick

COMMANDS = [
    [sys.executable, "-m", "saq", "peers.saq_app.settings", "--workers", "2", "--quiet"],
]

# SAQ's ttl: seconds that a result is kept; -1 keeps none.
RESULT_SECONDS = 600 if os.environ["PEER_RESULTS"] == "yes" else -1

queue = Queue.from_url(os.environ["PEER_URL"])


async def job(_: dict[str, Any]) -> None:
    tick()


settings = {"queue": queue, "functions": [job], "concurrency": 10}


def fill(jobs: int) -> None:
    async def send() -> None:
        for first in range(0, jobs, 100):
            await asyncio.gather(
                *(
                    queue.enqueue("job", retries=5, ttl=RESULT_SECONDS)
                    for _ in range(min(100, jobs - first))
                )
            )
        await queue.disconnect()

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        for _ in turns:
            await queue.enqueue("job", retries=5, ttl=RESULT_SECONDS)
        await queue.disconnect()

    asyncio.run(send_all())
