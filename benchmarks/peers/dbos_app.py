"""DBOS on Postgres: a workflow on a queue, two executors."""

import os
import sys
import threading
from collections.abc import Iterable

from dbos import DBOS, DBOSClient, DBOSConfig

from peers.ticks import tick

COMMANDS = [
    [sys.executable, "-c", "from peers.dbos_app import run; run()", executor]
    for executor in ("executor-1", "executor-2")
]

# psycopg 3 behind SQLAlchemy, as DBOS's documentation writes it.
URL = os.environ["PEER_URL"]
QUEUE = "jobs"


@DBOS.workflow(name="job")
def job() -> None:
    tick()


def launch(executor: str) -> None:
    config = DBOSConfig(
        name="peers",
        system_database_url=URL,
        executor_id=executor,
        application_version="1",
        log_level="ERROR",
        run_migrations=executor == "filler",
    )
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=100)


def run() -> None:
    launch(sys.argv[1])
    threading.Event().wait()


def prepare() -> None:
    # A process that is launched would run the jobs while it enqueues them.
    launch("filler")
    DBOS.destroy()


def fill(jobs: int) -> None:
    client = DBOSClient(system_database_url=URL)
    for _ in range(jobs):
        client.enqueue({"workflow_name": "job", "queue_name": QUEUE, "app_version": "1"})
    client.destroy()


def send(turns: Iterable[None]) -> None:
    client = DBOSClient(system_database_url=URL)
    for _ in turns:
        client.enqueue({"workflow_name": "job", "queue_name": QUEUE, "app_version": "1"})
    client.destroy()
