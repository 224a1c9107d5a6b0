"""arq on Redis, two workers that run up to 100 jobs at once."""

import asyncio
import os
import sys
from collections.abc import Iterable
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func

from peers.ticks import tick

COMMANDS = 2 * [
    [sys.executable, "-c", "from arq.cli import cli; cli()", "peers.arq_app.WorkerSettings"]
]


async def job(_: dict[str, Any]) -> None:
    tick()


class WorkerSettings:
    functions = (func(job, keep_result=3600 if os.environ["PEER_RESULTS"] == "yes" else 0),)
    redis_settings = RedisSettings.from_dsn(os.environ["PEER_URL"])
    max_jobs = 100
    log_results = False


def fill(jobs: int) -> None:
    async def send() -> None:
        pool = await create_pool(WorkerSettings.redis_settings)
        for first in range(0, jobs, 100):
            await asyncio.gather(*(pool.enqueue_job("job") for _ in range(min(100, jobs - first))))
        await pool.aclose()

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        pool = await create_pool(WorkerSettings.redis_settings)
        for _ in turns:
            await pool.enqueue_job("job")
        await pool.aclose()

    asyncio.run(send_all())
