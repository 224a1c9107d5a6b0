"""Where the time of a no-op job goes, stage by stage, against a stored baseline.

    python benchmarks/budget.py                 # a table, with the change since the baseline
    python benchmarks/budget.py --check 1.5     # exit code 1 if a stage takes 1.5 times as long
    python benchmarks/budget.py --write         # what is measured now becomes the baseline

Counted is the CPU time of this process (no instruction counters: virtual machines often have
none), so waiting for a store is not in it, and other work on the machine hardly. A machine's speed
is taken out by a *reference*, a fixed piece of Python and msgpack, measured beside each stage: a
ratio is the stage's time over the reference's. Medians of the runs. ``exchange`` is our side of one
round trip with a batch of 128, for one job. ``whole attempt`` is what ``Executor.run`` costs:
decode to decide, and its own glue.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_child import BATCH, LEASE_SECONDS, Idle, Meter, StageBench, fill, make_app
from harness.report import environment
from harness.stores import STORES

from taskharbor import JobContext, codec
from taskharbor.decision import Succeeded, decide
from taskharbor.drivers.base import Want
from taskharbor.message import DEFAULT_POLICY, read_body
from taskharbor.settlement import Settlement
from taskharbor.worker.table import SharedTable

BASELINE = Path(__file__).with_name("results") / "budget.json"
STORE_NAMES = ("sqlite", "redis", "postgres")
REFERENCE_LOOPS = 200


class Stage(NamedTuple):
    """``run()`` does the stage ``jobs`` times."""

    name: str
    jobs: int
    run: Callable[[], object]


class Cost(NamedTuple):
    """Of one job: CPU nanoseconds, and their ratio to the reference's."""

    ns: float
    ratio: float


def main() -> None:
    options = parsed()
    costs = measured(options.stores, options.runs)
    baseline = read(options.baseline)
    show(costs, baseline)
    if options.write:
        write(options.baseline, costs)
    slower = regressions(costs, baseline, options.check)
    if slower:
        sys.exit(f"{options.check} times the baseline or more: {', '.join(slower)}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="of each stage; the median counts")
    parser.add_argument(
        "--check", type=float, help="fail when a ratio is so many times the baseline"
    )
    parser.add_argument("--write", action="store_true", help="store the ratios as the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--stores", nargs="*", choices=STORE_NAMES, default=list(STORE_NAMES))
    return parser.parse_args()


# --- measuring -----------------------------------------------------------------------------------


def measured(stores: list[str], runs: int) -> dict[str, Cost]:
    costs = {}
    with SharedTable(1, 1) as table:
        bench = StageBench(make_app("memory://", Meter()), table.child(0))
        for stage in [*attempt_stages(bench), *worker_stages(bench)]:
            costs[stage.name] = cost(stage, runs)
    for name in stores:
        with exchange_stage(name, runs) as stage:
            costs[stage.name] = cost(stage, runs)
    return costs


def cost(stage: Stage, runs: int) -> Cost:
    """The reference runs beside the stage each time: a machine changes its pace."""
    stage.run()  # warms caches and connections
    pairs = [
        (cpu_ns(stage.run) / stage.jobs, cpu_ns(reference) / REFERENCE_LOOPS) for _ in range(runs)
    ]
    return Cost(
        statistics.median(ns for ns, _ in pairs), statistics.median(ns / ref for ns, ref in pairs)
    )


def cpu_ns(run: Callable[[], object]) -> int:
    begin = time.process_time_ns()
    run()
    return max(time.process_time_ns() - begin, 1)


def reference() -> None:
    """What such code does all day: calls, dicts, strings, msgpack. Never change it: the stored
    ratios are over this."""
    seen: dict[str, tuple[int, bytes]] = {}
    for number in range(REFERENCE_LOOPS):
        body = msgpack.packb([number, "name", {"key": number}])
        seen[f"job-{number}"] = (number, body)
        msgpack.unpackb(body)
    sorted(seen, key=lambda name: seen[name][0])


def repeated(name: str, run: Callable[[], object]) -> Stage:
    def batch() -> None:
        for _ in range(BATCH):
            run()

    return Stage(name, BATCH, batch)


def attempt_stages(bench: StageBench) -> Iterator[Stage]:
    """The parts of ``Executor.run``, in the order of a job's way."""
    app, job = bench.app, bench.jobs[0]
    call, control, task = read_body(job.body), Idle(), bench.app.tasks[job.task]
    ended, rng = Succeeded(codec.encode(None)), Random(1)
    context = copy_context()

    def decode() -> object:
        return codec.decode_call(read_body(job.body).payload, rebuild=task.rebuild)

    def prepare() -> object:
        return JobContext(job, call, control, task.options.max_result_bytes), copy_context()

    def encode() -> object:
        return codec.encode(None, limit=task.options.max_result_bytes, what="result")

    def decided() -> object:
        return decide(job, DEFAULT_POLICY, ended, now=0.0, rng=rng)

    yield repeated("decode", decode)
    yield repeated("dispatch", lambda: app.tasks.get(job.task))
    yield repeated("context", prepare)
    yield repeated("run", lambda: context.run(task.invoke))
    yield repeated("encode", encode)
    yield repeated("decide", decided)
    yield Stage("whole attempt", BATCH, bench.run)


def worker_stages(bench: StageBench) -> Iterator[Stage]:
    """What the child does around an attempt."""

    def table() -> None:
        bench.begin()
        bench.end()

    yield Stage("shared table", BATCH, table)
    yield Stage("settle", BATCH, bench.settle)


@contextmanager
def exchange_stage(store_name: str, runs: int) -> Iterator[Stage]:
    """A store with jobs for all runs; each run settles a batch and reserves the next."""
    with STORES[store_name]() as store, store.fresh() as url:
        app = make_app(url, Meter())
        fill(app, (runs + 2) * BATCH)
        want = Want(("default",), BATCH, LEASE_SECONDS)
        reserved = app.driver.exchange("holder", (), want).reserved

        def exchange() -> None:
            nonlocal reserved
            done = [Settlement.succeed(job.id, job.fence, b"\xc0") for job in reserved]
            reserved = app.driver.exchange("holder", done, want).reserved

        yield Stage(f"exchange, {store_name}", BATCH, exchange)
        if not reserved:
            raise RuntimeError(f"{store_name} ran out of jobs: some runs exchanged nothing")
        app.close()


# --- the baseline --------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Cost]:
    """Empty where there is no baseline yet."""
    if not path.exists():
        return {}
    stages = json.loads(path.read_text())["stages"]
    return {name: Cost(cost["ns"], cost["ratio"]) for name, cost in stages.items()}


def write(path: Path, costs: dict[str, Cost]) -> None:
    facts: dict[str, Any] = {
        "schema": 1,
        "kind": "budget",
        "environment": environment({}),
        "stages": {name: cost._asdict() for name, cost in costs.items()},
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")


def show(costs: dict[str, Cost], baseline: dict[str, Cost]) -> None:
    print(f"{'stage':24}{'CPU ns a job':>14}{'ratio':>10}{'baseline':>10}{'change':>9}")
    for name, found in costs.items():
        line = f"{name:24}{found.ns:14,.0f}{found.ratio:10.2f}"
        if name in baseline:
            before = baseline[name].ratio
            line += f"{before:10.2f}{found.ratio / before:8.2f}×"
        print(line)


def regressions(
    costs: dict[str, Cost], baseline: dict[str, Cost], times: float | None
) -> list[str]:
    if times is None:
        return []
    return [
        name
        for name, found in costs.items()
        if name in baseline and found.ratio >= times * baseline[name].ratio
    ]


if __name__ == "__main__":
    main()
