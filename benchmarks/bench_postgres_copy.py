"""Batches into the driver's own tables: unnest of arrays, as the driver does it, or COPY. In turns.

    python benchmarks/bench_postgres_copy.py
    python benchmarks/bench_postgres_copy.py --jobs 100000 --rounds 5

``unnest`` is the driver's enqueue: a call of one function. ``COPY`` writes the same rows of `jobs`
and `ready` in binary, packed by hand with all that is equal in every row packed once, and then
counts them; it takes five round trips, and knows no duplicates: an id that is taken fails the
batch. ``bare`` is COPY of the two columns that differ into a table with one index. Figures are jobs
a second, and microseconds of CPU of one job in the client and in the server.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_postgres import fresh, messages
from harness.processes import cpu, family

from taskharbor.drivers.postgres import connect
from taskharbor.message import Message
from tests.servers.postgres import PostgresServer

BATCH = 10_000
HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
NULL = struct.pack("!i", -1)
Load = Callable[[list[Message]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {"unnest": [], "COPY": [], "bare": []}
    with PostgresServer(durable=True) as server:
        for _ in range(options.rounds):
            for way, figures in found.items():
                figures.append(measure(server, way, options.jobs))
    for way, figures in found.items():
        rate, client, backend = map(statistics.median, zip(*figures, strict=True))
        print(f"{way:7} {rate:8,.0f} jobs/s, client {client:5.2f} µs, server {backend:5.2f} µs")


def measure(server: PostgresServer, way: str, jobs: int) -> tuple[float, float, float]:
    with fresh(server) as url, psycopg.connect(server.url, autocommit=True) as connection:
        driver = connect(url)
        schema = sql.Identifier(url.rpartition("=")[2])
        connection.execute("CREATE TABLE IF NOT EXISTS bare_copy (id text PRIMARY KEY, body bytea)")
        load: Load = {
            "unnest": driver.enqueue,
            "COPY": lambda batch: copy_jobs(connection, schema, batch),
            "bare": lambda batch: copy_bare(connection, batch),
        }[way]
        load(messages(BATCH))
        batches = [messages(BATCH) for _ in range(jobs // BATCH)]
        spent, own, begin = cpu(family(server.pid)), time.process_time(), time.perf_counter()
        for batch in batches:
            load(batch)
        seconds, own = time.perf_counter() - begin, time.process_time() - own
        spent = cpu(family(server.pid)) - spent
        if way == "COPY":
            (ready,) = (queue.counts for queue in driver.queues())
            assert sum(ready.values()) == jobs + BATCH
        driver.close()
    return jobs / seconds, own / jobs * 1e6, spent / jobs * 1e6


def copy_jobs(connection: psycopg.Connection, schema: sql.Identifier, batch: list[Message]) -> None:
    """``batch`` is of one task with the same options, due now."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT nextval({}::regclass), extract(epoch FROM clock_timestamp())::float8"
                " FROM generate_series(1, %s)"
            ).format(sql.Literal(f"{schema.as_string()}.seqs")),
            [len(batch)],
            binary=True,
        )
        rows = cursor.fetchall()
        now = rows[0][1]
        keys = [struct.pack("!iq", 8, seq) for seq, _ in rows]
        first = batch[0]
        name, rank = field(first.queue.encode()), struct.pack("!ih", 2, -first.priority)
        keeps = b"".join(map(number, first.retention))
        middle = name + field(first.task.encode()) + struct.pack("!ih", 2, first.priority)
        middle += number(now) + number(now) + NULL + keeps + NULL + NULL + field(first.digest)
        with cursor.copy(sql.SQL("COPY {}.jobs FROM STDIN BINARY").format(schema)) as copy:
            copy.write(HEADER)
            for key, message in zip(keys, batch, strict=True):
                ident = field(message.id.encode())
                copy.write(b"\0\x10" + key + ident + middle + field(message.body) + NULL)
            copy.write(TRAILER)
        before = b"\0\x06" + name + rank
        after = NULL + number(now) + field(b"enqueued")
        with cursor.copy(sql.SQL("COPY {}.ready FROM STDIN BINARY").format(schema)) as copy:
            copy.write(HEADER + b"".join([before + key + after for key in keys]) + TRAILER)
        cursor.execute(
            sql.SQL(
                "SELECT {schema}.count(%s, 'ready', %s), {schema}.blocks_open(%s, %s, %s)"
            ).format(schema=schema),
            columns_of(rows, first),
        )


def columns_of(rows: list[tuple[int, float]], first: Message) -> list[object]:
    blocks = sorted({seq >> 12 for seq, _ in rows})
    ranks = [-first.priority] * len(blocks)
    return [first.queue, len(rows), [first.queue] * len(blocks), ranks, blocks]


def copy_bare(connection: psycopg.Connection, batch: list[Message]) -> None:
    with connection.cursor().copy("COPY bare_copy FROM STDIN BINARY") as copy:
        copy.write(HEADER)
        copy.write(b"".join([b"\0\2" + field(one.id.encode()) + field(one.body) for one in batch]))
        copy.write(TRAILER)


def field(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def number(value: float) -> bytes:
    return struct.pack("!id", 8, value)


if __name__ == "__main__":
    main()
