"""What one job costs on our side of the driver, by stage: ``python benchmarks/bench_executor.py``.

The stages of an attempt are measured alone and then together in ``Executor.run``; the rest of it is
its own glue. Enqueueing is measured against a driver that does nothing. Best of several runs, in
microseconds for one job. No-op attempts are meant to stay below 10, an enqueue below 8.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from contextvars import copy_context
from random import Random
from typing import Any, cast

from taskharbor import JobContext, TaskHarbor, codec
from taskharbor.decision import Succeeded, decide
from taskharbor.drivers.base import Enqueued, InspectableDriver
from taskharbor.ids import new_id
from taskharbor.lease import Reservation
from taskharbor.message import DEFAULT_POLICY, Message, read_body
from taskharbor.worker.executor import Executor

RUNS = 7
SECONDS_PER_RUN = 0.05

Stage = tuple[str, Callable[[], object]]


class NoStore:
    """Takes every job and keeps none."""

    def new_job_id(self, idempotency_key: str | None) -> str:
        return new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        return [Enqueued(message.id, True) for message in batch]


class NoLine:
    """The control of an attempt that nobody watches."""

    cancelled = False
    interrupted = False

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.interrupt: Callable[[], None] | None = None
        self.urgent = False
        self.settled = False

    def begin(self, timeout: float | None) -> None:
        self.deadline = timeout

    def now(self) -> float:
        return 0.0

    def save(self, value: bytes) -> None: ...

    def progress(self, value: bytes) -> None: ...


app = TaskHarbor("memory://", name="benchmark")


@app.task
def noop() -> None: ...


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
async def async_noop() -> None: ...


def main() -> None:
    with app.connected_to(cast(InspectableDriver, NoStore())):
        show("one attempt", attempt_stages())
        show("one enqueue", enqueue_stages())


def attempt_stages() -> list[Stage]:
    executor, line, rng = Executor(app), NoLine(), Random(1)
    job, with_arguments = reserved(noop, ()), reserved(add, (1, 2))
    call = read_body(with_arguments.body)
    context, nothing = copy_context(), Succeeded(codec.encode(None))
    return [
        ("read the body", lambda: read_body(job.body)),
        ("decode two arguments", lambda: codec.decode_call(call.payload)),
        ("make the context", lambda: JobContext(job, call, line)),
        ("call in a context of its own", lambda: copy_context().run(noop.function)),
        ("call in a context that is there", lambda: context.run(noop.function)),
        ("encode None", lambda: codec.encode(None, limit=1000, what="result")),
        ("decide", lambda: decide(job, DEFAULT_POLICY, nothing, now=0.0, rng=rng)),
        ("run() of a no-op", lambda: executor.run(job, line)),
        ("run() of add(1, 2)", lambda: executor.run(with_arguments, line)),
        ("run() of an async no-op", attempt_of(executor, async_noop, line)),
    ]


def attempt_of(executor: Executor, task: Any, line: NoLine) -> Callable[[], object]:
    job = reserved(task, ())
    return lambda: executor.run(job, line)


def enqueue_stages() -> list[Stage]:
    calls = [add.s(number, y=2) for number in range(1000)]
    return [
        ("make an id", new_id),
        ("write a call down", lambda: add.s(1, y=2)),
        ("check two arguments", lambda: add.arguments.check((1,), {"y": 2})),
        ("encode two arguments", lambda: codec.encode_call((1,), {"y": 2}, limit=1000)),
        ("make the message", lambda: add.message((1,), {"y": 2})),
        ("delay()", lambda: add.delay(1, y=2)),
        ("using() with an option", lambda: add.using(priority=3)),
        ("enqueue_many(), a thousandth", lambda: app.enqueue_many(calls)),
    ]


def reserved(task: Any, args: tuple[Any, ...]) -> Reservation:
    message = task.message(args, {})
    return Reservation(
        message.id, message.queue, message.task, message.body, 1, 1, 0, 0, 0.0, 0.0, 30.0
    )


def show(title: str, stages: list[Stage]) -> None:
    print(f"{title}, µs")
    for name, stage in stages:
        jobs = 1000 if name.endswith("thousandth") else 1
        print(f"  {name:34}{microseconds(stage) / jobs:8.2f}")


def microseconds(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    loops = max(1, int(SECONDS_PER_RUN / max(timer.timeit(1), 1e-7)))
    return min(timer.repeat(RUNS, loops)) / loops * 1e6


if __name__ == "__main__":
    main()
