"""One drain by another task queue: a server, the jobs, its workers, the rate."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from peers.catalogue import Peer

from harness.environments import last_line
from harness.processes import BENCHMARKS, cpu_of_families
from tests.servers.postgres import PostgresServer, wheel_binaries
from tests.servers.redis import RedisServer, debian_binary, wheel_binary

FILL_SECONDS = 300
START_SECONDS = 60
DRAIN_SECONDS = 300
_LOOK_SECONDS = 0.005

# Prints what the fill took, from the first call to the last reply, and how to start the workers.
FILL = """
import json, time
from peers import {module} as peer
if hasattr(peer, "prepare"):
    peer.prepare()
begin = time.perf_counter()
peer.fill({jobs})
print(json.dumps([time.perf_counter() - begin, peer.COMMANDS]))
"""


class Failed(Exception):
    """The peer ran, and did not do its jobs; the message has its own last words."""


class Run(NamedTuple):
    peer: Peer
    python: str
    jobs: int
    results: bool


class Store(NamedTuple):
    """``pids``: of its server; none where the store lives in the workers."""

    url: str
    pids: tuple[int, ...] = ()


class Cost(NamedTuple):
    """CPU seconds for 1,000 jobs. ``store`` None: it lives in the workers."""

    workers: float
    store: float | None


class Drained(NamedTuple):
    """Jobs a second: drained by two workers, enqueued by one process. ``cost`` None: the jobs were
    done before it could be measured."""

    rate: float
    enqueued: float
    cost: Cost | None


class Meter:
    """Of what workers and store use from its making on."""

    def __init__(self, workers: list[int], store: Store, ticks: Path) -> None:
        self._pids = (workers, store.pids)
        self._ticks = ticks
        self._begun = self._spent()
        self._first = ticks.stat().st_size

    def cost(self) -> Cost | None:
        jobs = self._ticks.stat().st_size - self._first
        if jobs == 0:
            return None
        workers, store = (
            1000 * (now - begun) / jobs
            for now, begun in zip(self._spent(), self._begun, strict=True)
        )
        return Cost(workers, store if self._pids[1] else None)

    def _spent(self) -> list[float]:
        return [cpu_of_families(pids) for pids in self._pids]


def drain(run: Run) -> Drained:
    """Raises `Failed` when the jobs cannot be enqueued or are not done in time."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, server(run.peer) as store:
        ticks = Path(directory) / "ticks"
        environment = environment_of(run, store, ticks)
        seconds, commands = fill(run, environment)
        ticks.write_bytes(b"")
        with workers(commands, environment, Path(directory)) as (log, pids):
            return measured(run.jobs, ticks, log, lambda: Meter(pids, store, ticks), seconds)


def environment_of(run: Run, store: Store, ticks: Path) -> dict[str, str]:
    own = BENCHMARKS.parent if not run.peer.requirements else None
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in (BENCHMARKS, own) if path),
        "PEER_URL": store.url,
        "PEER_RESULTS": "yes" if run.results else "no",
        "PEER_MODE": run.peer.mode,
        "PEER_TICKS": str(ticks),
    }


def fill(run: Run, environment: dict[str, str]) -> tuple[float, list[list[str]]]:
    """Seconds, and how to start the workers. Without jobs it only makes what they need."""
    seconds, commands = told_by(run, FILL, environment, "enqueue", FILL_SECONDS)
    return seconds, commands


def told_by(
    run: Run, script: str, environment: dict[str, str], what: str, seconds: float
) -> list[Any]:
    """What ``script`` prints at last, in JSON, when the peer's Python has run it. ``what`` it does,
    for the message of `Failed`, which is raised when it fails or takes longer than ``seconds``."""
    code = script.format(module=run.peer.module, jobs=run.jobs)
    try:
        done = subprocess.run(
            [run.python, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{what}: {run.jobs} jobs took more than {seconds} seconds") from error
    if done.returncode != 0:
        raise Failed(f"{what}: {last_line(done.stderr)}")
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def measured(
    jobs: int, ticks: Path, log: Path, meter: Callable[[], Meter], fill_seconds: float
) -> Drained:
    first = wait_for(ticks, 1, START_SECONDS, log)
    begin = time.perf_counter()
    meter_ = meter()  # not before the first job: the start of a worker is no cost of a job
    last = wait_for(ticks, jobs, DRAIN_SECONDS, log)
    seconds = time.perf_counter() - begin
    if first >= jobs:
        raise Failed(f"all {jobs} jobs were done before the first look: too few to measure")
    return Drained((last - first) / seconds, jobs / fill_seconds, meter_.cost())


def wait_for(ticks: Path, jobs: int, seconds: float, log: Path) -> int:
    deadline = time.monotonic() + seconds
    while (done := ticks.stat().st_size) < jobs:
        if time.monotonic() > deadline:
            words = last_line(log.read_text(errors="replace"))
            raise Failed(f"{done} of {jobs} jobs done within {seconds:.0f} seconds; {words}")
        time.sleep(_LOOK_SECONDS)
    return done


@contextmanager
def workers(
    commands: list[list[str]], environment: dict[str, str], directory: Path
) -> Iterator[tuple[Path, list[int]]]:
    """Yields the file of what they say, and their process ids. In the end they are killed, with all
    that they started."""
    path = directory / "workers.log"
    with path.open("wb") as log:
        processes = [
            subprocess.Popen(
                command,
                env=environment,
                cwd=directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for command in commands
        ]
        try:
            yield path, [process.pid for process in processes]
        finally:
            for process in processes:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:  # it ended by itself, with nothing left of its group
                    pass
                process.wait()


@contextmanager
def server(peer: Peer) -> Iterator[Store]:
    if peer.store == "redis":
        binary = debian_binary() if peer.newest_redis else None
        with RedisServer(binary=binary, aof="everysec") as redis:
            yield Store(redis.url, (redis.pid,))
    elif peer.store == "postgres":
        with PostgresServer(durable=True) as postgres:
            yield Store(postgres.url, (postgres.pid,))
    else:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            yield Store(f"sqlite:///{directory}/jobs.db")


def server_versions(stores: set[str]) -> dict[str, str]:
    """Of the stores' servers, as their programs tell them."""
    programs = {"redis": wheel_binary, "postgres": lambda: str(wheel_binaries() / "postgres")}
    versions = {"sqlite": sqlite3.sqlite_version} if "sqlite" in stores else {}
    for store, program in programs.items():
        if store in stores:
            said = subprocess.run(
                [program(), "--version"], capture_output=True, text=True, check=True
            )
            number = re.search(r"\d+(\.\d+)+", said.stdout)
            versions[store] = number[0] if number else said.stdout.strip()
    return versions
