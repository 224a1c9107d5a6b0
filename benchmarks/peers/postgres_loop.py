"""The least that a job can cost on Postgres: batches taken, run and ended in one transaction."""

import os
import sys
from collections.abc import Iterable

import psycopg

from peers.ticks import tick

COMMANDS = 2 * [[sys.executable, "-c", "from peers.postgres_loop import run; run()"]]

BATCH = 100
TASKS = {"job": tick}

TAKE = """
    DELETE FROM jobs WHERE id IN (
        SELECT id FROM jobs ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING id, task
"""
KEEP = "INSERT INTO results SELECT unnest(%s::bigint[]), '\\xc0'"


def run() -> None:
    with psycopg.connect(os.environ["PEER_URL"], autocommit=True) as connection:
        while True:
            with connection.transaction():
                taken = connection.execute(TAKE, [BATCH]).fetchall()
                for _, task in taken:
                    TASKS[task]()
                connection.execute(KEEP, [[job_id for job_id, _ in taken]])


def prepare() -> None:
    with psycopg.connect(os.environ["PEER_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE jobs (id bigint PRIMARY KEY, task text NOT NULL)")
        connection.execute("CREATE TABLE results (id bigint PRIMARY KEY, result bytea NOT NULL)")


def fill(jobs: int) -> None:
    with psycopg.connect(os.environ["PEER_URL"], autocommit=True) as connection:
        with connection.cursor().copy("COPY jobs FROM STDIN") as copy:
            for number in range(jobs):
                copy.write_row((number, "job"))
        connection.execute("ANALYZE jobs")


def send(turns: Iterable[None]) -> None:
    with psycopg.connect(os.environ["PEER_URL"], autocommit=True) as connection:
        for number, _ in enumerate(turns):
            connection.execute("INSERT INTO jobs VALUES (%s, 'job')", [number])
