"""What type checkers make of the public API. Checked by ``nox -s typing`` under mypy strict and
pyright strict, never run. An ignored line is an error that a checker must report: an ignore that
nothing needs is one itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, assert_type

from taskharbor import (
    AsyncResult,
    AsyncTask,
    Exponential,
    FlowResult,
    Graph,
    GroupResult,
    JobContext,
    Middleware,
    Signature,
    State,
    SyncTask,
    Task,
    TaskHarbor,
    chain,
    chord,
    current_job,
    group,
    testing,
)
from taskharbor.flow.builder import Chain, Group
from taskharbor.flow.plan import FlowState
from taskharbor.info import JobInfo
from taskharbor.signals import AttemptEnded


class RateLimit(Middleware):
    options: ClassVar[Mapping[str, Any]] = {"rate": None}


app = TaskHarbor("memory://", name="typing", middleware=[RateLimit()], max_attempts=3)


@dataclass
class Row:
    number: int


@app.task
def bare(x: int, *, y: str = "") -> str:
    return y * x


@app.task(queue="mail", max_attempts=8, backoff=Exponential(base=2, cap=600), timeout=30)
def with_options(to: str) -> Row:
    return Row(len(to))


@app.task
async def bare_async(x: int) -> bytes:
    return bytes(x)


@app.task(timeout=None, retry_on=(OSError,), store_result=False)
async def async_with_options(x: int) -> list[int]:
    return [x]


@app.task(bind=True)
def bound(self: Task[..., Any], x: int, y: str = "") -> float:
    assert_type(self.request, JobContext)
    return float(x)


@app.task(bind=True, queue="q")
async def bound_async(self: Task[..., Any], x: int) -> None:
    self.retry(countdown=5)


class Connection:
    """Stands for psycopg's: the parameter's type is the task's to say."""


@app.task(transactional=True, queue="q")
def transactional(connection: Connection, x: int, *, y: str = "") -> bytes:
    return y.encode() * x


@app.task(bind=True, transactional=True)
def bound_transactional(self: Task[..., Any], connection: Connection, x: int) -> float:
    return float(x)


# A middleware's option is only known when the code runs.
@app.task(rate=5)
def with_extras(x: int) -> int:
    return x


@app.task
def generic(*args: int, **kwargs: str) -> dict[str, int]:
    return {}


def kinds_of_tasks() -> None:
    assert_type(bare(1, y="a"), str)
    assert_type(with_options("a"), Row)
    assert_type(bound(1, "a"), float)
    assert_type(with_extras(1), int)
    assert_type(generic(1, 2, a="b"), dict[str, int])
    a: SyncTask[..., str] = bare
    b: AsyncTask[..., bytes] = bare_async
    assert_type(transactional(1, y="a"), bytes)
    assert_type(bound_transactional(1), float)
    c: list[Task[..., Any]] = [bare, bare_async, bound, bound_async, transactional]
    d = assert_type(bare_async(1), Coroutine[Any, Any, bytes])
    e = assert_type(async_with_options(1), Coroutine[Any, Any, list[int]])
    f = assert_type(bound_async(1), Coroutine[Any, Any, None])
    print(a, b, c, d, e, f)


def results() -> None:
    assert_type(bare.delay(1, y="a"), AsyncResult[str])
    assert_type(bare.delay(1).get(timeout=5), str)
    assert_type(with_options.delay("a").get(), Row)
    assert_type(bare_async.delay(1).get(), bytes)
    assert_type(async_with_options.delay(1), AsyncResult[list[int]])
    assert_type(bound.delay(1, y="a").get(), float)
    assert_type(bound_async.delay(1), AsyncResult[None])
    assert_type(transactional.delay(1, y="a"), AsyncResult[bytes])
    assert_type(bound_transactional.delay(1).get(), float)
    assert_type(transactional.function(Connection(), 1), Any)
    assert_type(generic.delay(1, a="b"), AsyncResult[dict[str, int]])
    result = bare.delay(1)
    assert_type(result.state, State)
    assert_type(result.info(), JobInfo)
    assert_type(result.ready(), bool)
    assert_type(app.result("x"), AsyncResult[Any])


async def async_results() -> None:
    assert_type(await bare.adelay(1), AsyncResult[str])
    assert_type(await (await bare.adelay(1)).aget(), str)
    assert_type(await bare_async(1), bytes)
    assert_type(await bare.aapply_async((1,), countdown=5), AsyncResult[str])
    assert_type(await app.aenqueue_many([bare.s(1)]), list[AsyncResult[str]])


def options() -> None:
    assert_type(bare.using(queue="q", priority=1).delay(1), AsyncResult[str])
    assert_type(
        bare.apply_async((1,), {"y": "a"}, eta=datetime.now(UTC), expires=60, headers={"a": 1}),
        AsyncResult[str],
    )
    assert_type(bare.s(1), Signature[str])
    assert_type(bare.si(1).set(queue="q").delay(), AsyncResult[str])
    assert_type(app.enqueue_many([bare.s(1), bare.s(2)]), list[AsyncResult[str]])


@app.signals.dead.connect
def page(event: AttemptEnded) -> None: ...


@app.child_start
def prepare() -> None: ...


def flows() -> None:
    assert_type(bare.s(1) | with_options.s(), Chain[Row])
    assert_type((bare.s(1) | bare_async.s()).delay(), FlowResult[bytes])
    assert_type(chain(bare.s(1), with_options.s(), bare_async.s()).delay().get(), bytes)
    assert_type(chain(bare.s(1)), Signature[str])
    assert_type(group(bare.s(x) for x in range(3)), Group[str])
    assert_type(group(bare.s(1), bare.s(2)).delay(), GroupResult[str])
    assert_type(group(bare.s(1)).delay().join(), list[str])
    assert_type(group(bare.s(1)).delay()[0], AsyncResult[str])
    assert_type(group(bare.s(1)) | with_options.s(), Chain[Row])
    assert_type(chord([bare.s(1)], with_options.s()).apply_async(expires=60), FlowResult[Row])
    assert_type(chord([bare.s(1)])(with_options.s()), FlowResult[Row])
    assert_type(bare.s(1).link(bare.s()).on_error(bare.s()).allow_failure(), Signature[str])
    assert_type(bare.map([1, 2]), Signature[list[str]])
    assert_type(bare.chunks([(1,)], 10), Group[list[str]])
    graph = Graph("g")
    graph.add("a", bare.s(1))
    graph.add("b", bare.s(), inputs={"x": "a"}, after=["a"])
    assert_type(graph.delay(), FlowResult[Any])
    assert_type(app.flow("x").state, FlowState)
    assert_type(app.send(bare.s(1)), AsyncResult[str])
    assert_type(app.send(bare.s(1) | bare_async.s()), FlowResult[bytes])


async def async_flows() -> None:
    assert_type(await (bare.s(1) | bare_async.s()).adelay(), FlowResult[bytes])
    assert_type(await (await group(bare.s(1)).adelay()).aget(), list[str])


def other_parts() -> None:
    assert_type(current_job().saved, Any)
    assert_type(current_job().attempt, int)
    assert_type(current_job().deadline, float | None)
    with testing.memory(app) as jobs:
        assert_type(jobs.drain(), list[testing.Ran])
    assert_type(prepare(), None)


def what_is_refused() -> None:
    bare.delay("1")  # type: ignore[arg-type]
    bare.delay(1, z=2)  # type: ignore[call-arg]
    bare.delay()  # type: ignore[call-arg]
    bare(1, "a")  # type: ignore[call-arg]
    bound.delay(bound, 1)  # type: ignore[arg-type]
    bound_async.delay("1")  # type: ignore[arg-type]
    transactional.delay(Connection(), 1)  # type: ignore[arg-type, call-arg]
    bound_transactional.delay("1")  # type: ignore[arg-type]
    bare.using(queu="q")  # type: ignore[call-arg]
    bare.apply_async((1,), countdown="soon")  # type: ignore[arg-type]
    app.task(timeout="5")(bare.function)  # type: ignore[call-overload]
    length: int = bare.delay(1).get()  # type: ignore[assignment]
    print(length)
