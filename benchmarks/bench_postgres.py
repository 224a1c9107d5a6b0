"""What the Postgres driver does per second, on a server of its own with its default durability.

    python benchmarks/bench_postgres.py              # all parts
    python benchmarks/bench_postgres.py drain enqueue

Look at the ratios: absolute figures depend on the machine and on what else runs there. ``drain`` is
the driver alone (exchange at a batch of 100, no-op jobs, results kept); benchmarks of whole workers
are elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.ids import new_id
from taskharbor.message import Call, Message, Template, write_body
from taskharbor.settlement import Settlement
from tests.servers.postgres import PostgresServer

BATCH = 100
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


def messages(count: int) -> list[Message]:
    return [PATTERN.message(new_id(), b"\x92\x90\x80") for _ in range(count)]


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
        with psycopg.connect(server.url, autocommit=True) as bare:
            bare.execute("CREATE TABLE IF NOT EXISTS bare (id text PRIMARY KEY, body bytea)")
            begin = time.perf_counter()
            for message in messages(500):
                bare.execute("INSERT INTO bare VALUES (%s, %s)", (message.id, message.body))
            simple = 500 / (time.perf_counter() - begin)
        begin = time.perf_counter()
        for message in messages(500):
            driver.enqueue([message])
        ours = 500 / (time.perf_counter() - begin)
        print(f"enqueue, one by one           {ours:9.0f} jobs/s = {ours / simple:.2f} x INSERT")
        driver.close()


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
    from concurrent.futures import ThreadPoolExecutor

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
