"""Code around attempts and enqueues, and the task options it declares."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

from taskharbor import (
    JobContext,
    Middleware,
    Reject,
    Snooze,
    Task,
    TaskHarbor,
    current_job,
    testing,
)
from taskharbor.errors import ConfigurationError, InvalidCall
from taskharbor.middleware import Enqueue, EnqueueRequest
from taskharbor.result import AsyncResult
from taskharbor.states import Reason


class Tracer(Middleware):
    """Notes every step under its name."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def before_attempt(self, task: Task[..., Any], job: JobContext) -> None:
        assert current_job() is job
        self.log.append(f"{self.name} before")

    def after_attempt(
        self, task: Task[..., Any], job: JobContext, error: BaseException | None
    ) -> None:
        self.log.append(f"{self.name} after {type(error).__name__ if error else 'success'}")

    def around_attempt(self, task: Task[..., Any], job: JobContext, call: Callable[[], Any]) -> Any:
        self.log.append(f"{self.name} enter")
        try:
            return f"{self.name}({call()})"
        finally:
            self.log.append(f"{self.name} leave")

    async def around_attempt_async(
        self, task: Task[..., Any], job: JobContext, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        self.log.append(f"{self.name} enter")
        try:
            await asyncio.sleep(0)
            return f"{self.name}({await call()})"
        finally:
            self.log.append(f"{self.name} leave")


class Headers(Middleware):
    """Adds a header to every job, as tracing does, and notes the sizes of batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def around_enqueue(
        self, requests: list[EnqueueRequest], enqueue: Enqueue
    ) -> list[AsyncResult[Any]]:
        self.batches.append(len(requests))
        for request in requests:
            request.headers["trace"] = f"t-{request.args[0]}"
        return enqueue(requests)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_hooks_nest_around_the_attempt(kind: str) -> None:
    log: list[str] = []
    app = TaskHarbor("memory://", middleware=[Tracer("outer", log), Tracer("inner", log)])

    def work(ok: bool) -> str:
        log.append("task")
        if not ok:
            raise ValueError
        return "value"

    async def work_async(ok: bool) -> str:
        return work(ok)

    function: Any = work if kind == "sync" else work_async
    task = app.task(name="work", max_attempts=1)(function)
    with testing.inline(app):
        assert task.delay(True).get() == "outer(inner(value))"
        around = ["outer before", "inner before", "outer enter", "inner enter", "task"]
        back = ["inner leave", "outer leave"]
        assert log == [*around, *back, "inner after success", "outer after success"]
        log.clear()
        with pytest.raises(ValueError):
            task.delay(False).get()
        assert log == [*around, *back, "inner after ValueError", "outer after ValueError"]


def test_what_a_hook_raises_ends_the_attempt() -> None:
    class Gate(Middleware):
        def before_attempt(self, task: Task[..., Any], job: JobContext) -> None:
            if job.attempt == 1:
                raise {"reject": Reject("closed"), "value": ValueError("broken")}[task.name]

    app = TaskHarbor("memory://", middleware=[Gate()])
    ran: list[str] = []
    rejected = app.task(name="reject")(lambda: ran.append("rejected"))
    retried = app.task(name="value")(lambda: ran.append("retried"))
    with testing.inline(app):
        assert rejected.delay().info().reason is Reason.REJECTED
        assert retried.delay().successful()
    assert ran == ["retried"]


def test_a_hook_can_put_a_job_off() -> None:
    class Later(Middleware):
        def before_attempt(self, task: Task[..., Any], job: JobContext) -> None:
            if job.saved is None:
                job.save("seen")
                raise Snooze(60)

    app = TaskHarbor("memory://", middleware=[Later()])
    task = app.task(name="task")(lambda: current_job().attempt)
    with testing.memory(app) as jobs:
        result = task.delay()
        jobs.drain()
        assert result.state == "scheduled"
        jobs.advance(60)
        assert result.get() == 1


def test_hooks_around_enqueue_see_batches_and_change_what_is_stored() -> None:
    headers = Headers()
    app = TaskHarbor("memory://", middleware=[headers])

    @app.task
    def look(number: int) -> Any:
        return dict(current_job().headers)

    with testing.memory(app) as jobs:
        results = [
            look.using(headers={"own": 1}).delay(0),
            *app.enqueue_many([look.s(1), look.s(2)]),
        ]
        jobs.drain()
        assert [each.get() for each in results] == [
            {"own": 1, "trace": "t-0"},
            {"trace": "t-1"},
            {"trace": "t-2"},
        ]
    assert headers.batches == [1, 2]
    assert look.call_options == {}


def test_a_hook_around_enqueue_may_refuse() -> None:
    class Quota(Middleware):
        def around_enqueue(
            self, requests: list[EnqueueRequest], enqueue: Enqueue
        ) -> list[AsyncResult[Any]]:
            raise PermissionError("over quota")

    app = TaskHarbor("memory://", middleware=[Quota()])
    task = app.task(name="task")(lambda: None)
    with testing.memory(app) as jobs:
        with pytest.raises(PermissionError):
            task.delay()
        assert jobs.drain() == []


def test_arguments_a_hook_changed_are_checked_too() -> None:
    class Extra(Middleware):
        def around_enqueue(
            self, requests: list[EnqueueRequest], enqueue: Enqueue
        ) -> list[AsyncResult[Any]]:
            requests[0].args += (1,)
            return enqueue(requests)

    app = TaskHarbor("memory://", middleware=[Extra()])
    task = app.task(name="task")(lambda: None)
    with testing.memory(app), pytest.raises(InvalidCall):
        task.delay()


# --- options --------------------------------------------------------------------------------------


class RateLimit(Middleware):
    options: ClassVar[dict[str, Any]] = {"rate": None}


def test_middleware_declares_task_options() -> None:
    app = TaskHarbor("memory://", middleware=[RateLimit()])

    @app.task(rate=5)
    def limited() -> None: ...

    @app.task
    def free() -> None: ...

    assert limited.options.extras == {"rate": 5}
    assert free.options.extras == {"rate": None}
    with pytest.raises(ConfigurationError, match="'rat'; did you mean 'rate'"):
        app.task(rat=5)
    with pytest.raises(ConfigurationError, match="no task option 'rate'"):
        TaskHarbor("memory://").task(rate=5)


def test_an_option_can_be_declared_only_once() -> None:
    class Clash(Middleware):
        options: ClassVar[dict[str, Any]] = {"queue": "x"}

    with pytest.raises(ConfigurationError, match="'rate', which RateLimit has already"):
        TaskHarbor("memory://", middleware=[RateLimit(), RateLimit()])
    with pytest.raises(ConfigurationError, match="'queue', which TaskHarbor has already"):
        TaskHarbor("memory://", middleware=[Clash()])


def test_middleware_must_wrap_sync_and_async_tasks_alike() -> None:
    class Half(Middleware):
        def around_attempt(
            self, task: Task[..., Any], job: JobContext, call: Callable[[], Any]
        ) -> Any:
            return call()

    with pytest.raises(ConfigurationError, match="override both"):
        TaskHarbor("memory://", middleware=[Half()])
    with pytest.raises(ConfigurationError, match="is no middleware"):
        TaskHarbor("memory://", middleware=[RateLimit])  # type: ignore[list-item]
