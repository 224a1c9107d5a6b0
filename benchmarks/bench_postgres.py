"""What the Postgres driver does per second, on a server of its own with its default durability.

    python benchmarks/bench_postgres.py              # all parts
    python benchmarks/bench_postgres.py drain enqueue

Look at the ratios: absolute figures depend on the machine and on what else runs there. ``drain`` is
the driver alone (exchange at a batch of 100, no-op jobs, results kept); benchmarks of whole workers
are elsewhere.
"""

from __future__ import annotations

import operator
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

from taskharbor import TaskHarbor
from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.ids import new_id
from taskharbor.lease import Verdict
from taskharbor.message import Call, Message, Template, write_body
from taskharbor.settlement import Settlement
from tests.servers.postgres import PostgresServer, wheel_binaries

BATCH = 100
TURNS = 3
ONES = 500
ONES_TURNS = 15
QUEUES = 8
RESERVED = 120_000
RESERVE = 16
WARM_CALLS = 10
CALLS = 16_000
BODY = write_body(Call(b"\x92\x90\x80"))
RESULT = b"\x01\xc0"
PATTERN = Template(Message(id="x", task="bench.noop", body=BODY), Call(b"\x92\x90\x80"), limit=None)

_processes = get_context("spawn")


@contextmanager
def fresh(server: PostgresServer) -> Iterator[str]:
    url = f"{server.url}?namespace=bench_{new_id()}"
    driver = connect(url)
    driver.migrate()
    driver.close()
    yield url


def messages(count: int, queue: str = "default") -> list[Message]:
    jobs = [PATTERN.message(new_id(), b"\x92\x90\x80") for _ in range(count)]
    return jobs if queue == "default" else [job._replace(queue=queue) for job in jobs]


def fill(driver: PostgresDriver, count: int) -> float:
    """Enqueue in batches of 1000; seconds inside the driver."""
    spent = 0.0
    for _ in range(count // 1000):
        batch = messages(1000)
        begin = time.perf_counter()
        driver.enqueue(batch)
        spent += time.perf_counter() - begin
    return spent


def drain(driver: PostgresDriver, most: int) -> int:
    """Settle what the last round reserved and reserve the next, until ``most`` or nothing."""
    holder, want = new_id(), Want(("default",), BATCH, 30.0)
    done, settlements = 0, list[Settlement]()
    while done < most:
        reserved = driver.exchange(holder, settlements, want).reserved
        if not reserved:
            break
        settlements = [Settlement.succeed(job.id, job.fence, RESULT) for job in reserved]
        done += len(settlements)
    driver.exchange(holder, settlements, None)
    return done


def _drain_in_process(url: str, most: int) -> None:
    driver = connect(url)
    drain(driver, most)
    driver.close()


def part_enqueue(server: PostgresServer) -> None:
    with fresh(server) as url:
        driver = connect(url)
        fill(driver, 2000)
        seconds = fill(driver, 30_000)
        print(f"enqueue, batches of 1000      {30_000 / seconds:9.0f} jobs/s")
        driver.close()


def part_one(server: PostgresServer) -> None:
    """delay() beside pgbench, a program in C, that inserts into a bare table. In turns."""
    with fresh(server) as url, psycopg.connect(server.url, autocommit=True) as bare:
        app = TaskHarbor(url)
        noop = app.task(name="bench.noop")(len)
        bare.execute("CREATE TABLE IF NOT EXISTS bare (id text PRIMARY KEY, body bytea)")
        noop.delay("")
        ours, simple = [], []
        for _ in range(ONES_TURNS):
            begin = time.perf_counter()
            for _ in range(ONES):
                noop.delay("")
            ours.append(ONES / (time.perf_counter() - begin))
            simple.append(pgbench(server))
        app.close()
    delay, insert = statistics.median(ours), statistics.median(simple)
    low, _, high = statistics.quantiles(map(operator.truediv, ours, simple), n=4)
    print(f"delay(), one by one           {delay:9.0f} jobs/s = {delay / insert:.2f} x pgbench")
    print(f"    half of the turns between {low:.2f} and {high:.2f}")


def pgbench(server: PostgresServer) -> float:
    """Inserts a second of one session."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"INSERT INTO bare VALUES (gen_random_uuid()::text, '\\x{BODY.hex()}');\n")
        script.flush()
        os.chmod(script.name, 0o644)
        command = [wheel_binaries() / "pgbench", "-n", "-c1", "-t", str(ONES), "-f", script.name]
        done = subprocess.run([*command, server.url], capture_output=True, text=True, check=True)
    return float(done.stdout.split("tps = ")[1].split()[0])


def part_reservers(server: PostgresServer) -> None:
    """Do many reservers hinder each other? Each asks for jobs of all queues, in one order. And what
    do as many sessions cost the machine that call next to nothing?"""
    queues = tuple(f"queue-{number}" for number in range(QUEUES))
    ran: dict[int, list[float]] = {4: [], 64: []}
    null: dict[int, list[float]] = {4: [], 64: []}
    for _ in range(TURNS):
        for reservers, rates in ran.items():
            with fresh(server) as url:
                driver = connect(url)
                for first in range(0, RESERVED, 1000):
                    driver.enqueue(messages(1000, queue=queues[first // 1000 % QUEUES]))
                driver.close()
                rates.append(reserved_by(reservers, url, queues))
                null[reservers].append(CALLS / called_by(reservers, call_null, url, queues)[0])
    few, many = (statistics.median(rates) for rates in ran.values())
    print(f"4 reservers, {QUEUES} queues         {few:9.0f} jobs/s")
    print(f"64 reservers, {QUEUES} queues        {many:9.0f} jobs/s = {many / few:.2f} x")
    few, many = (statistics.median(rates) for rates in null.values())
    print(f"64 sessions with null calls   {many:9.0f} calls/s = {many / few:.2f} x those of 4")


def reserved_by(reservers: int, url: str, queues: tuple[str, ...]) -> float:
    """Jobs a second; raises unless each was settled once."""
    seconds, settled = called_by(reservers, reserve, url, queues)
    if len(settled) != RESERVED or len(set(settled)) != RESERVED:
        raise RuntimeError(f"{len(settled)} settled, {len(set(settled))} different")
    return RESERVED / seconds


def called_by(
    callers: int, target: Callable[..., None], url: str, queues: tuple[str, ...]
) -> tuple[float, list[str]]:
    """Seconds, and what was settled. Threads in four processes: as many processes as callers would
    measure the machine's memory."""
    start, end = _processes.Barrier(5), _processes.Barrier(5)
    done = _processes.Queue()
    children = [
        _processes.Process(target=target, args=(url, queues, callers // 4, start, end, done))
        for _ in range(4)
    ]
    for child in children:
        child.start()
    start.wait(60)
    begin = time.perf_counter()
    end.wait(600)
    seconds = time.perf_counter() - begin
    settled = [job for _ in children for job in done.get(timeout=60)]
    for child in children:
        child.join()
    return seconds, settled


def call_null(
    url: str, queues: tuple[str, ...], threads: int, start: Barrier, end: Barrier, done: Any
) -> None:
    """As ``reserve``, of a statement that reads nothing."""
    driver = connect(f"{url}&pool={threads}")
    warm = threading.Barrier(threads)

    def one() -> None:
        driver.held("nobody")
        if warm.wait(60) == 0:
            start.wait(60)
        warm.wait(60)
        for _ in range(CALLS // (4 * threads)):
            driver._store.rows("transaction_now")

    with ThreadPoolExecutor(threads) as pool:
        for running in [pool.submit(one) for _ in range(threads)]:
            running.result()
        end.wait(600)
    done.put([])
    driver.close()


def reserve(
    url: str, queues: tuple[str, ...], threads: int, start: Barrier, end: Barrier, done: Any
) -> None:
    driver = connect(f"{url}&pool={threads}")
    warm = threading.Barrier(threads)

    def one() -> list[str]:
        holder = new_id()
        # A session's first calls are planned, which takes longer than hundreds of later ones, and
        # sent without being prepared.
        driver.enqueue(messages(RESERVE * WARM_CALLS, queue=f"warm-{holder}"))
        warm.wait(60)
        settle_all(driver, holder, Want((f"warm-{holder}",), RESERVE, 30.0))
        if warm.wait(60) == 0:
            start.wait(60)
        warm.wait(60)
        return settle_all(driver, holder, Want(queues, RESERVE, 30.0))

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(one) for _ in range(threads)]
        settled = [job for mine in running for job in mine.result()]
        end.wait(600)
    done.put(settled)
    driver.close()


def settle_all(driver: PostgresDriver, holder: str, want: Want) -> list[str]:
    """The ids of those that this call settled, until nothing is left to reserve."""
    mine, settlements = list[str](), list[Settlement]()
    while True:
        answer = driver.exchange(holder, settlements, want)
        mine += [
            settlement.job_id
            for settlement, settled in zip(settlements, answer.settled, strict=True)
            if settled.verdict is Verdict.APPLIED
        ]
        if not answer.reserved:
            return mine
        settlements = [Settlement.succeed(job.id, job.fence, RESULT) for job in answer.reserved]


def part_drain(server: PostgresServer) -> None:
    for count in (20_000, 200_000):
        with fresh(server) as url:
            driver = connect(url)
            fill(driver, count)
            begin = time.perf_counter()
            drain(driver, 20_000)
            seconds = time.perf_counter() - begin
            print(f"drain, 1 process, {count:7} queued {20_000 / seconds:9.0f} jobs/s")
            driver.close()


def part_drain2(server: PostgresServer) -> None:
    with fresh(server) as url:
        driver = connect(url)
        fill(driver, 100_000)
        children = [
            _processes.Process(target=_drain_in_process, args=(url, 50_000)) for _ in range(2)
        ]
        begin = time.perf_counter()
        for child in children:
            child.start()
        for child in children:
            child.join()
        seconds = time.perf_counter() - begin
        print(f"drain, 2 processes (with start) {100_000 / seconds:9.0f} jobs/s")
        driver.close()


def part_wake(server: PostgresServer) -> None:
    """From before an enqueue to the return of another driver's wait."""
    with fresh(server) as url, ThreadPoolExecutor(1) as pool:
        driver, waiter = connect(url), connect(url)
        waiter.wait(["default"], 0.1)
        took = []
        for _ in range(50):
            waiting = pool.submit(lambda: (waiter.wait(["default"], 5), time.perf_counter())[1])
            time.sleep(0.15)  # past the looks right after registering: only a notification is heard
            begin = time.perf_counter()
            driver.enqueue(messages(1))
            took.append(waiting.result() - begin)
            drain(driver, 1)
        took.sort()
        print(
            f"enqueue to wake-up            p50 {took[25] * 1e3:6.2f} ms, p95 {took[47] * 1e3:.2f}"
        )
        driver.close()
        waiter.close()


PARTS = {
    name.removeprefix("part_"): part for name, part in globals().items() if name.startswith("part_")
}

if __name__ == "__main__":
    with PostgresServer(durable=True) as own_server:
        for chosen in sys.argv[1:] or PARTS:
            PARTS[chosen](own_server)
