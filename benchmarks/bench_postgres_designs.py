"""One table with partial indexes, or narrow tables beside the archive? Both, in turns, in one run.

    python benchmarks/bench_postgres_designs.py                    # 20,000 and 200,000 jobs
    python benchmarks/bench_postgres_designs.py --jobs 20000 --rounds 5

Each design (``benchmarks/designs``) settles a batch and claims the next (SKIP LOCKED) in one call
of one function: one round trip, one commit. Two processes drain the whole table, which was analyzed
before. Beside the rate stand three figures that other work on the machine hardly moves: the CPU
that the server spent on a job, the WAL that it wrote for one, and how large the tables get.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import LiteralString, NamedTuple

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.processes import cpu, family

from taskharbor.ids import new_id
from tests.servers.postgres import PostgresServer

DESIGNS = ("one_table", "split_tables")
DIRECTORY = Path(__file__).with_name("designs")
BATCH = 100
PROCESSES = 2
EXCHANGE = "SELECT * FROM exchange(%s::bigint[], %s::bigint[], %s::bytea[], %s)"

_processes = get_context("spawn")


class Figures(NamedTuple):
    """Jobs a second; of one job, microseconds of CPU and bytes."""

    rate: float
    server_cpu: float
    wal: float
    size: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with PostgresServer(durable=True) as server:
        for jobs in options.jobs:
            runs: dict[str, list[Figures]] = {design: [] for design in DESIGNS}
            for _ in range(options.rounds):
                for design in DESIGNS:
                    runs[design].append(measure(server, design, jobs))
            for design, figures in runs.items():
                show(design, jobs, figures)


def show(design: str, jobs: int, figures: list[Figures]) -> None:
    median = Figures(*map(statistics.median, zip(*figures, strict=True)))
    print(
        f"{design:13} {jobs:8,} jobs: {median.rate:7,.0f} jobs/s, "
        f"server {median.server_cpu:5.1f} µs of CPU, {median.wal:5,.0f} bytes of WAL, "
        f"{median.size:5,.0f} bytes on disk (of one job, medians)",
        flush=True,
    )


def measure(server: PostgresServer, design: str, jobs: int) -> Figures:
    name = f"bench_{new_id()}"
    url = server.create_database(name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(DIRECTORY.joinpath(f"{design}.sql").read_bytes())
        connection.execute("SELECT fill(%s)", [jobs])
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        seconds, spent, wal = drained(server, connection, url)
        if connection.execute(EXCHANGE, ([], [], [], 1)).fetchone() is not None:
            raise RuntimeError(f"{design}: jobs were left")
        size = number(connection, "SELECT pg_database_size(current_database())")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    return Figures(jobs / seconds, spent / jobs * 1e6, wal / jobs, size / jobs)


def drained(
    server: PostgresServer, connection: psycopg.Connection, url: str
) -> tuple[float, float, float]:
    """Seconds, CPU seconds of the server, bytes of WAL."""
    at_start, at_end = _processes.Barrier(PROCESSES + 1), _processes.Barrier(PROCESSES + 1)
    children = [
        _processes.Process(target=drain, args=(url, at_start, at_end)) for _ in range(PROCESSES)
    ]
    for child in children:
        child.start()
    at_start.wait(60)
    before, wal, begin = cpu(family(server.pid)), written(connection), time.perf_counter()
    at_end.wait(900)  # the connections are still open: what their backends used is not lost
    seconds = time.perf_counter() - begin
    spent = cpu(family(server.pid)) - before
    bytes_ = written(connection) - wal
    at_end.wait(60)
    for child in children:
        child.join()
    return seconds, spent, bytes_


def written(connection: psycopg.Connection) -> float:
    """Bytes of WAL since the server was made."""
    return number(connection, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")


def number(connection: psycopg.Connection, query: LiteralString) -> float:
    ((value,),) = connection.execute(query).fetchall()
    return float(value)


def drain(url: str, at_start: Barrier, at_end: Barrier) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        at_start.wait(60)
        seqs: list[int] = []
        fences: list[int] = []
        while True:
            results = [b"\x01\xc0"] * len(seqs)
            found = connection.execute(EXCHANGE, (seqs, fences, results, BATCH)).fetchall()
            seqs, fences = [row[0] for row in found], [row[1] for row in found]
            if not found:
                break
        at_end.wait(900)
        at_end.wait(60)


if __name__ == "__main__":
    main()
