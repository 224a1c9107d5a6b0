"""What the SQLite driver costs, beside the least that SQLite itself would cost.

    python benchmarks/bench_sqlite.py            # all parts
    python benchmarks/bench_sqlite.py drain wake # some of them

The reference is a bare loop on the same file system with the same settings: one table, claim 100
by id, mark 100 done, one transaction each round; no fences, no verdicts, no history. Look at the
ratios: absolute figures depend on the machine and on what else runs there.
"""

from __future__ import annotations

import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from taskharbor.drivers.base import Want
from taskharbor.drivers.registry import connect
from taskharbor.ids import new_id
from taskharbor.message import Call, Message, write_body
from taskharbor.settlement import Settlement

BATCH = 100
JOBS = 20_000
BODY = write_body(Call(b"\x92\x90\x80"))
RESULT = b"\x01\xc0"

_processes = get_context("spawn")


@contextmanager
def fresh() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench-sqlite-") as directory:
        yield f"sqlite:///{directory}/jobs.db"


def messages(count: int) -> list[Message]:
    return [Message(id=new_id(), task="bench.noop", body=BODY) for _ in range(count)]


def fill(url: str, count: int) -> float:
    """Enqueue in batches of 1000; seconds inside the driver."""
    driver = connect(url)
    spent = 0.0
    for _ in range(count // 1000):
        batch = messages(1000)
        begin = time.perf_counter()
        driver.enqueue(batch)
        spent += time.perf_counter() - begin
    driver.close()
    return spent


def drain(url: str, most: int, holder: str = "bench") -> int:
    """Settle what the last round reserved and reserve the next, until ``most`` or nothing."""
    driver = connect(url)
    want = Want(("default",), BATCH, 30.0)
    done = 0
    settlements: list[Settlement] = []
    while done < most:
        reserved = driver.exchange(holder, settlements, want).reserved
        if not reserved:
            break
        settlements = [Settlement.succeed(job.id, job.fence, RESULT) for job in reserved]
        done += len(settlements)
    driver.exchange(holder, settlements, None)
    driver.close()
    return done


def bare(path: str, count: int) -> tuple[float, float]:
    """Seconds to insert and to drain ``count`` rows in the simplest schema that works."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = normal")
    connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, state INTEGER, body BLOB)")
    connection.execute("CREATE INDEX ready ON jobs (id) WHERE state = 0")
    begin = time.perf_counter()
    for _ in range(count // 1000):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO jobs VALUES (NULL, 0, ?)", [(BODY,)] * 1000)
        connection.execute("COMMIT")
    filled = time.perf_counter()
    claim = (
        "UPDATE jobs SET state = 1 WHERE id IN "
        f"(SELECT id FROM jobs WHERE state = 0 ORDER BY id LIMIT {BATCH}) RETURNING id, body"
    )
    claimed: list[Any] = []
    while True:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE jobs SET state = 2 WHERE id = ?", [row[:1] for row in claimed]
        )
        claimed = connection.execute(claim).fetchall()
        connection.execute("COMMIT")
        if not claimed:
            break
    ended = time.perf_counter()
    connection.close()
    return filled - begin, ended - filled


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def report(what: str, seconds: float, count: int, note: str = "") -> None:
    print(f"{what:<44} {count / seconds:>10,.0f}/s {seconds / count * 1e6:>8.1f} us each  {note}")


def bench_drain() -> None:
    with tempfile.TemporaryDirectory() as directory:
        bare_fill, bare_drain = bare(f"{directory}/bare.db", JOBS)
    report("bare: insert 1000 a transaction", bare_fill, JOBS)
    report("bare: claim 100, settle 100", bare_drain, JOBS)
    with fresh() as url:
        filled = fill(url, JOBS)
        report("driver: enqueue 1000", filled, JOBS, f"{filled / bare_fill:.1f} x bare")
        drained = timed(partial(drain, url, JOBS))
        report(
            "driver: settle 100, reserve 100", drained, JOBS, f"{drained / bare_drain:.1f} x bare"
        )


def bench_together() -> None:
    """Two processes on one file: the write lock passes between them."""
    with fresh() as url:
        fill(url, JOBS * 2)
        workers = [
            _processes.Process(target=_drain_when_told, args=(url, number)) for number in range(2)
        ]
        for worker in workers:
            worker.start()
        time.sleep(1.0)
        Path(url.removeprefix("sqlite:///") + ".go").touch()
        begin = time.perf_counter()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - begin
        report("driver: the same, 2 processes", seconds, JOBS * 2)


def _drain_when_told(url: str, number: int) -> None:
    go = Path(url.removeprefix("sqlite:///") + ".go")
    while not go.exists():
        time.sleep(0.001)
    begin = time.perf_counter()
    done = drain(url, 1 << 30, f"bench-{number}")
    seconds = time.perf_counter() - begin
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"    process {number}: {done} jobs in {seconds:.2f} s, CPU {cpu.ru_utime:.2f} user "
        f"{cpu.ru_stime:.2f} system"
    )


def bench_backlog() -> None:
    rates = []
    for backlog in (2_000, 200_000):
        with fresh() as url:
            fill(url, backlog)
            seconds = timed(partial(drain, url, 2_000))
        rates.append(2_000 / seconds)
        report(f"driver: first 2000 of {backlog:,}", seconds, 2_000)
    print(f"    deep / shallow: {rates[1] / rates[0]:.2f}")


def bench_wake() -> None:
    """From before an enqueue to after the reserve in another process that was idle."""
    with fresh() as url:
        fill(url, 0)
        ours, theirs = _processes.Pipe()
        worker = _processes.Process(target=_serve, args=(url, theirs))
        worker.start()
        ours.recv()
        driver = connect(url)
        waits = []
        for number in range(500):
            time.sleep(0.003 + 0.017 * (number % 10) / 10)
            begin = time.monotonic()
            driver.enqueue(messages(1))
            waits.append((ours.recv() - begin) * 1e3)
        driver.enqueue([Message(id=new_id(), task="bench.stop", body=BODY)])
        cpu = ours.recv()
        worker.join()
        driver.close()
    waits.sort()
    print(
        f"enqueue to reserve in another process: p50 {waits[250]:.2f} ms, p99 {waits[495]:.2f} ms"
    )
    print(f"CPU of 10 s of waiting on a quiet store: {cpu * 1e3:.0f} ms = {cpu * 10:.2f} %")


def _serve(url: str, pipe: Any) -> None:
    driver = connect(url)
    driver.wait(("default",), 0)
    before = time.process_time()
    driver.wait(("default",), 10)
    idle = time.process_time() - before
    pipe.send(None)
    while True:
        driver.wait(("default",), 10)
        reserved = driver.exchange("idle", (), Want(("default",), 1, 30.0)).reserved
        if reserved and reserved[0].task == "bench.stop":
            break
        if reserved:
            pipe.send(time.monotonic())
    pipe.send(idle)
    driver.close()


def bench_lock() -> None:
    """Eight processes on one lock: how long does the unluckiest call take?"""
    with fresh() as url:
        fill(url, JOBS)
        with _processes.Pool(8) as pool:
            parts = pool.map(_contend, [(url, number) for number in range(8)], chunksize=1)
    calls = sorted(call for part in parts for call in part)
    print(
        f"exchange(1, 1) among 8 processes: p50 {calls[len(calls) // 2] * 1e3:.2f} ms, "
        f"p99 {calls[len(calls) * 99 // 100] * 1e3:.2f} ms, longest {calls[-1] * 1e3:.1f} ms"
    )


def _contend(what: tuple[str, int]) -> list[float]:
    url, number = what
    driver = connect(url)
    settlements: list[Settlement] = []
    calls = []
    for _ in range(500):
        begin = time.perf_counter()
        got = driver.exchange(f"holder-{number}", settlements, Want(("default",), 1, 30.0))
        calls.append(time.perf_counter() - begin)
        settlements = [Settlement.succeed(job.id, job.fence, RESULT) for job in got.reserved]
    driver.close()
    return calls


PARTS = {
    "drain": bench_drain,
    "together": bench_together,
    "backlog": bench_backlog,
    "wake": bench_wake,
    "lock": bench_lock,
}

if __name__ == "__main__":
    # --long, which other benchmarks know, changes nothing here.
    for part in [word for word in sys.argv[1:] if word != "--long"] or PARTS:
        PARTS[part]()
