"""TaskHarbor beside other task queues, in one run: ``nox -s benchmark-peers``.

Each system drains the same no-op jobs with two worker processes on a server of its own, started
here with default durability, in turns: the first round of all, the second round of all, and so on.
What is compared is the rate from the first job done to the last. Only systems that keep a job whose
worker was killed are here; see each module of ``peers`` for its settings.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]


class Entry(NamedTuple):
    store: str
    module: str
    jobs: int  # fewer for slower systems: the rate does not depend on it


ENTRIES = [
    Entry("redis", "taskharbor_app", 40_000),
    Entry("redis", "taskiq_app", 10_000),
    Entry("redis", "dramatiq_app", 6_000),
    Entry("redis", "celery_app", 2_000),
    Entry("postgres", "taskharbor_app", 20_000),
    Entry("postgres", "pgqueuer_app", 20_000),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("stores", nargs="*", default=["redis", "postgres"])
    options = parser.parse_args()
    for store in options.stores:
        for results in ("no", "yes") if store == "redis" else ("yes",):
            compare(store, results, options.rounds)


def compare(store: str, results: str, rounds: int) -> None:
    entries = [entry for entry in ENTRIES if entry.store == store]
    rates: dict[str, list[float]] = {entry.module: [] for entry in entries}
    for _ in range(rounds):
        for entry in entries:
            rates[entry.module].append(measure(entry, results))
    print(f"\n{store}, results kept: {results}; {rounds} rounds, 2 worker processes")
    print(f"{'':24}{'median jobs/s':>14}{'lowest':>10}{'highest':>10}{'ours, times':>14}")
    ours = statistics.median(rates["taskharbor_app"])
    for module, found in rates.items():
        middle = statistics.median(found)
        name = module.removesuffix("_app")
        numbers = f"{middle:14,.0f}{min(found):10,.0f}{max(found):10,.0f}{ours / middle:14.1f}"
        print(f"{name:24}{numbers}", flush=True)


def measure(entry: Entry, results: str) -> float:
    with tempfile.TemporaryDirectory() as directory, server(entry.store) as url:
        ticks = Path(directory) / "ticks"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
            "PEER_URL": url,
            "PEER_RESULTS": results,
            "PEER_TICKS": str(ticks),
        }
        module = f"peers.{entry.module}"
        fill = f"from {module} import fill; fill({entry.jobs})"
        commands = f"import json; from {module} import COMMANDS; print(json.dumps(COMMANDS))"
        subprocess.run([sys.executable, "-c", fill], env=environment, check=True)
        listed = subprocess.run(
            [sys.executable, "-c", commands], env=environment, check=True, capture_output=True
        )
        ticks.write_bytes(b"")
        with workers(json.loads(listed.stdout), environment):
            return rate(ticks, entry.jobs)


def rate(ticks: Path, jobs: int) -> float:
    first = wait_until(lambda: ticks.stat().st_size, seconds=60, what="the first job")
    begin = time.perf_counter()
    wait_until(lambda: ticks.stat().st_size >= jobs, seconds=300, what="the last job")
    return (jobs - first) / (time.perf_counter() - begin)


@contextmanager
def workers(commands: list[list[str]], environment: dict[str, str]) -> Iterator[None]:
    processes = [
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def server(store: str) -> Iterator[str]:
    if store == "redis":
        with RedisServer(aof="everysec") as redis:
            yield redis.url
    else:
        with PostgresServer(durable=True) as postgres:
            yield postgres.url


if __name__ == "__main__":
    main()
