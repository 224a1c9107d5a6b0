"""The demo's app: what its worker runs. Written as an app of yours would be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from taskharbor import Fixed, TaskHarbor, current_job
from taskharbor.cli.demo.orders import Chunk, read_chunk, split
from taskharbor.cli.demo.table import Table

T = TypeVar("T")

COMMIT_ROWS = 10
"""A chunk is committed in parts: a crash leaves half of it behind, to be written over."""
FLAKY_EVERY = 10

app = TaskHarbor(name="demo")


@app.task(name="demo.import_file")
def import_file(csv_path: Path, database: Path) -> int:
    """Puts a job in line for each chunk of the file; returns how many.

    Run again after a crash, it doubles nothing: the keys tell which chunks are in line already.
    """
    file_job = current_job().id
    calls = [
        import_rows.using(idempotency_key=f"{file_job}:{chunk.number}").s(csv_path, database, chunk)
        for chunk in split(csv_path)
    ]
    app.enqueue_many(calls)
    return len(calls)


@app.task(name="demo.import_rows", backoff=Fixed(0.2), max_attempts=5)
def import_rows(csv_path: Path, database: Path, chunk: Chunk) -> int:
    """Imports one chunk; returns how many rows that were.

    Every tenth chunk fails on its first attempt, as if a service had not answered.
    """
    job = current_job()
    table = Table(database)
    try:
        with table.attempt(job.fence, job.id, chunk.number, os.getpid()):
            if chunk.number % FLAKY_EVERY == FLAKY_EVERY - 1 and job.attempt == 1:
                raise ConnectionError("the address service did not answer (on purpose)")
            for orders in _parts(read_chunk(csv_path, chunk)):
                table.write(orders, job.fence)
    finally:
        table.close()
    return chunk.rows


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, COMMIT_ROWS)):
        yield part
