"""Oban on Postgres, two nodes that run ten jobs of the queue at once."""

import asyncio
import os
import sys
from collections.abc import Iterable

from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

from peers.ticks import tick

# Not through its command line: that finds workers only in modules with cron jobs.
COMMANDS = 2 * [
    [sys.executable, "-c", "import asyncio; from peers.oban_app import run; asyncio.run(run())"]
]


@worker(queue="default")
class TickWorker:
    async def process(self, _: object) -> None:
        tick()


async def run() -> None:
    pool = await Oban.create_pool(dsn=os.environ["PEER_URL"])
    async with Oban(pool=pool, queues={"default": 10}):
        await asyncio.Event().wait()


def prepare() -> None:
    async def create() -> None:
        async with AsyncConnectionPool(os.environ["PEER_URL"], open=False) as pool:
            await install(pool)

    asyncio.run(create())


def fill(jobs: int) -> None:
    async def send() -> None:
        async with AsyncConnectionPool(os.environ["PEER_URL"], open=False) as pool:
            oban = Oban(pool=pool)
            for first in range(0, jobs, 1000):
                await oban.enqueue_many(TickWorker.new({}) for _ in range(min(1000, jobs - first)))

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        async with AsyncConnectionPool(os.environ["PEER_URL"], open=False) as pool:
            oban = Oban(pool=pool)
            for _ in turns:
                await oban.enqueue(TickWorker.new({}))

    asyncio.run(send_all())
