"""dramatiq on Redis, two processes of its default eight threads."""

import os
import sys
from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from peers.ticks import tick

COMMANDS = [[sys.executable, "-m", "dramatiq", "peers.dramatiq_app", "--processes", "2"]]

broker = RedisBroker(url=os.environ["PEER_URL"])
results = os.environ["PEER_RESULTS"] == "yes"
if results:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["PEER_URL"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=results) if results else dramatiq.actor
def job() -> None:
    tick()


def fill(jobs: int) -> None:
    for _ in range(jobs):
        job.send()


def send(turns: Iterable[None]) -> None:
    for _ in turns:
        job.send()
