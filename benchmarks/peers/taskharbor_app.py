"""TaskHarbor, with and without results."""

import os
import sys
from collections.abc import Iterable

from peers.ticks import tick
from taskharbor import TaskHarbor
from taskharbor.drivers.base import Migratable

COMMANDS = [
    [
        sys.executable,
        "-m",
        "taskharbor",
        "worker",
        "-A",
        "peers.taskharbor_app",
        "-c",
        "2",
        "-l",
        "warning",
    ]
]

app = TaskHarbor(os.environ["PEER_URL"])


@app.task(store_result=os.environ["PEER_RESULTS"] == "yes")
def job() -> None:
    tick()


def prepare() -> None:
    if isinstance(app.driver, Migratable):
        app.driver.migrate()


def fill(jobs: int) -> None:
    app.enqueue_many([job.s() for _ in range(jobs)])


def send(turns: Iterable[None]) -> None:
    for _ in turns:
        job.delay()
