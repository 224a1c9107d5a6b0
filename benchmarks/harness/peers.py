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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from peers.catalogue import Peer

from harness.environments import last_line
from harness.processes import BENCHMARKS
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


class Drained(NamedTuple):
    """Jobs a second: drained by two workers, enqueued by one process."""

    rate: float
    enqueued: float


def drain(run: Run) -> Drained:
    """Raises `Failed` when the jobs cannot be enqueued or are not done in time."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, server(run.peer) as url:
        ticks = Path(directory) / "ticks"
        own = BENCHMARKS.parent if not run.peer.requirements else None
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(path) for path in (BENCHMARKS, own) if path),
            "PEER_URL": url,
            "PEER_RESULTS": "yes" if run.results else "no",
            "PEER_MODE": run.peer.mode,
            "PEER_TICKS": str(ticks),
        }
        seconds, commands = fill(run, environment)
        ticks.write_bytes(b"")
        with workers(commands, environment, Path(directory)) as log:
            return Drained(rate(ticks, run.jobs, log), run.jobs / seconds)


def fill(run: Run, environment: dict[str, str]) -> tuple[float, list[list[str]]]:
    code = FILL.format(module=run.peer.module, jobs=run.jobs)
    try:
        done = subprocess.run(
            [run.python, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=FILL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{run.jobs} jobs not enqueued within {FILL_SECONDS} seconds") from error
    if done.returncode != 0:
        raise Failed(f"enqueue: {last_line(done.stderr)}")
    seconds, commands = json.loads(done.stdout.splitlines()[-1])
    return seconds, commands


def rate(ticks: Path, jobs: int, log: Path) -> float:
    first = wait_for(ticks, 1, START_SECONDS, log)
    begin = time.perf_counter()
    last = wait_for(ticks, jobs, DRAIN_SECONDS, log)
    if first >= jobs:
        raise Failed(f"all {jobs} jobs were done before the first look: too few to measure")
    return (last - first) / (time.perf_counter() - begin)


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
) -> Iterator[Path]:
    """Yields the file of what they say. In the end they are killed, with all they started."""
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
            yield path
        finally:
            for process in processes:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:  # it ended by itself, with nothing left of its group
                    pass
                process.wait()


@contextmanager
def server(peer: Peer) -> Iterator[str]:
    if peer.store == "redis":
        binary = debian_binary() if peer.newest_redis else None
        with RedisServer(binary=binary, aof="everysec") as redis:
            yield redis.url
    elif peer.store == "postgres":
        with PostgresServer(durable=True) as postgres:
            yield postgres.url
    else:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            yield f"sqlite:///{directory}/jobs.db"


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
