"""The Redis driver alone: ``python benchmarks/bench_redis.py [--jobs 64000]``.

For each step: jobs a second from one process, and the CPU that Redis and this process spend on a
job (the machine's other work disturbs the first more than the others); bytes of a waiting job.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from taskharbor.drivers.base import Want
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.message import Call, Message, Template, write_body
from taskharbor.settlement import Settlement
from tests.servers.redis import RedisServer

PAYLOAD = b"\x92\x90\x80"  # no arguments
TEMPLATE = Template(
    Message("x", "shop.tasks.noop", write_body(Call(PAYLOAD))), Call(b""), limit=None
)
HOLDER = "0123456789abcdef0123456789ab"
BATCHES = (128, 64, 16, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=64_000)
    jobs: int = parser.parse_args().jobs
    print(f"{'step':32}{'jobs/s':>10}{'Redis us':>10}{'Python us':>10}")
    with RedisServer(aof="everysec") as server, server.client() as client:
        driver = connect(server.url)
        fill(driver, 1000)
        before = client.info("memory")["used_memory"]
        measure("enqueue by 1000", client, lambda: fill(driver, jobs))
        used = client.info("memory")["used_memory"] - before
        for batch in BATCHES:
            for result in (None, b"\xc0"):
                kind = "kept" if result else "none"
                some = min(jobs // len(BATCHES) // 2, 200 * batch)
                measure(
                    f"exchange by {batch}, result {kind}",
                    client,
                    lambda n=some, b=batch, r=result: drain(driver, n, b, r),
                )
        driver.close()
    print(f"a waiting job takes {used / jobs:.0f} bytes")


def measure(step: str, client: redis.Redis, run: Callable[[], int]) -> None:
    redis_cpu, own_cpu, began = cpu_of(client), time.process_time(), time.perf_counter()
    jobs = run()
    seconds = time.perf_counter() - began
    redis_us = (cpu_of(client) - redis_cpu) / jobs * 1e6
    own_us = (time.process_time() - own_cpu) / jobs * 1e6
    print(f"{step:32}{jobs / seconds:10,.0f}{redis_us:10.1f}{own_us:10.1f}")


def cpu_of(client: redis.Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def fill(driver: RedisDriver, jobs: int) -> int:
    for _ in range(0, jobs, 1000):
        driver.enqueue([TEMPLATE.message(driver.new_job_id(None), PAYLOAD) for _ in range(1000)])
    return jobs


def drain(driver: RedisDriver, jobs: int, batch: int, result: bytes | None) -> int:
    done = 0
    settlements: list[Settlement] = []
    while done < jobs:
        reply = driver.exchange(HOLDER, settlements, Want(("default",), batch, 30.0))
        settlements = [Settlement.succeed(one.id, one.fence, result) for one in reply.reserved]
        done += len(settlements)
    driver.exchange(HOLDER, settlements)
    return done


if __name__ == "__main__":
    main()
