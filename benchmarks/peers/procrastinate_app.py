"""procrastinate on Postgres, two workers of ten jobs at once."""

import asyncio
import os
import sys
from collections.abc import Iterable

from procrastinate import App, PsycopgConnector

from peers.ticks import tick

COMMANDS = 2 * [
    [
        sys.executable,
        "-m",
        "procrastinate",
        "--app",
        "peers.procrastinate_app.app",
        "worker",
        "--concurrency",
        "10",
    ]
]

app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_URL"]))


@app.task(name="job")
async def job() -> None:
    tick()


def prepare() -> None:
    async def install() -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(install())


def fill(jobs: int) -> None:
    async def send() -> None:
        async with app.open_async():
            for first in range(0, jobs, 1000):
                await job.batch_defer_async(*({} for _ in range(min(1000, jobs - first))))

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        async with app.open_async():
            for _ in turns:
                await job.defer_async()

    asyncio.run(send_all())
