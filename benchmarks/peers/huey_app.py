"""huey on Redis or SQLite, two consumers with one process worker each."""

import os
import sys
from collections.abc import Iterable

from huey import RedisHuey, SqliteHuey

from peers.ticks import tick

COMMANDS = 2 * [
    [
        sys.executable,
        "-m",
        "huey.bin.huey_consumer",
        "peers.huey_app.huey",
        "-w",
        "1",
        "-k",
        "process",
        "-q",
    ]
]

URL = os.environ["PEER_URL"]
results = os.environ["PEER_RESULTS"] == "yes"
if URL.startswith("redis:"):
    huey = RedisHuey("peers", url=URL, results=results, store_none=results)
else:
    huey = SqliteHuey(
        "peers", filename=URL.removeprefix("sqlite:///"), results=results, store_none=results
    )


@huey.task()
def job() -> None:
    tick()


def fill(jobs: int) -> None:
    for _ in range(jobs):
        job()


def send(turns: Iterable[None]) -> None:
    for _ in turns:
        job()
