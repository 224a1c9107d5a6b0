"""pgqueuer with its batch size at 100, two processes; its log of finished jobs is its result."""

import asyncio
import os
import sys
from collections.abc import Iterable

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.models import Job

from peers.ticks import tick

# Not through its command line, whose default log level does not start with today's typer.
COMMANDS = 2 * [
    [sys.executable, "-c", "import asyncio; from peers.pgqueuer_app import run; asyncio.run(run())"]
]


async def create() -> PgQueuer:
    connection = await asyncpg.connect(os.environ["PEER_URL"])
    queue = PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("job")
    async def job(_: Job) -> None:
        tick()

    return queue


async def run() -> None:
    await (await create()).run(batch_size=100)


def prepare() -> None:
    async def install() -> None:
        connection = await asyncpg.connect(os.environ["PEER_URL"])
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    asyncio.run(install())


def fill(jobs: int) -> None:
    async def send() -> None:
        connection = await asyncpg.connect(os.environ["PEER_URL"])
        queries = Queries(AsyncpgDriver(connection))
        for first in range(0, jobs, 1000):
            count = min(1000, jobs - first)
            await queries.enqueue(["job"] * count, [None] * count, [0] * count)
        await connection.execute("ANALYZE")
        await connection.close()

    asyncio.run(send())


def send(turns: Iterable[None]) -> None:
    async def send_all() -> None:
        connection = await asyncpg.connect(os.environ["PEER_URL"])
        queries = Queries(AsyncpgDriver(connection))
        for _ in turns:
            await queries.enqueue("job", None)
        await connection.close()

    asyncio.run(send_all())
