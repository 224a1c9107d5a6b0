"""Code around every attempt and every enqueue of an app.

Subclass :class:`Middleware` and override what is needed; a hook that nobody overrides costs
nothing. Hooks are part of the attempt: they run under its time limit with ``current_job()`` set,
and what they raise ends the attempt as if the task had raised it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from taskharbor.errors import ConfigurationError

if TYPE_CHECKING:
    from taskharbor.context import JobContext
    from taskharbor.result import AsyncResult
    from taskharbor.task import Task


class EnqueueRequest:
    """One call on its way into the store; what a middleware changes here is what is stored."""

    __slots__ = ("args", "headers", "kwargs", "task")

    def __init__(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        headers: dict[str, Any],
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.headers = headers


Enqueue = Callable[[list[EnqueueRequest]], "list[AsyncResult[Any]]"]


class Middleware:
    """Hooks with nothing in them.

    ``options``: task options that this middleware understands, with their defaults;
    ``task.options.extras`` has what ``@app.task(...)`` was given.
    """

    options: ClassVar[Mapping[str, Any]] = {}

    def before_attempt(self, task: Task[..., Any], job: JobContext) -> None:
        """Runs first, in the order the middleware was added."""

    def after_attempt(
        self, task: Task[..., Any], job: JobContext, error: BaseException | None
    ) -> None:
        """Runs last, in the opposite order; ``error`` is what the attempt raised."""

    def around_attempt(self, task: Task[..., Any], job: JobContext, call: Callable[[], Any]) -> Any:
        """Run the rest with ``call()`` and return its value, or another one. For sync tasks."""
        return call()

    async def around_attempt_async(
        self, task: Task[..., Any], job: JobContext, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """``around_attempt`` for async tasks. Override both, or neither."""
        return await call()

    def around_enqueue(
        self, requests: list[EnqueueRequest], enqueue: Enqueue
    ) -> list[AsyncResult[Any]]:
        """Run the rest with ``enqueue(requests)``. A batch of ``enqueue_many`` comes as one."""
        return enqueue(requests)


class Stack:
    """The middleware of an app, sorted by what each overrides."""

    __slots__ = (
        "_after",
        "_around",
        "_around_async",
        "_before",
        "_enqueue",
        "attempts",
        "enqueues",
    )

    def __init__(self, middleware: Iterable[Middleware] = ()) -> None:
        every = tuple(middleware)
        for each in every:
            _check(each)
        self._before = [each.before_attempt for each in every if _has(each, "before_attempt")]
        self._after = [
            each.after_attempt for each in reversed(every) if _has(each, "after_attempt")
        ]
        self._around = [
            each.around_attempt for each in reversed(every) if _has(each, "around_attempt")
        ]
        self._around_async = [
            each.around_attempt_async
            for each in reversed(every)
            if _has(each, "around_attempt_async")
        ]
        self._enqueue = [
            each.around_enqueue for each in reversed(every) if _has(each, "around_enqueue")
        ]
        self.attempts = bool(self._before or self._after or self._around or self._around_async)
        self.enqueues = bool(self._enqueue)

    def attempt(self, task: Task[..., Any], job: JobContext, call: Callable[[], Any]) -> Any:
        """``call()``, inside all hooks of sync tasks."""
        for around in self._around:
            call = partial(around, task, job, call)
        error: BaseException | None = None
        try:
            for before in self._before:
                before(task, job)
            return call()
        except BaseException as raised:
            error = raised
            raise
        finally:
            for after in self._after:
                after(task, job, error)

    async def attempt_async(
        self, task: Task[..., Any], job: JobContext, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """``await call()``, inside all hooks of async tasks."""
        for around in self._around_async:
            call = partial(around, task, job, call)
        error: BaseException | None = None
        try:
            for before in self._before:
                before(task, job)
            return await call()
        except BaseException as raised:
            error = raised
            raise
        finally:
            for after in self._after:
                after(task, job, error)

    def enqueue(self, requests: list[EnqueueRequest], enqueue: Enqueue) -> list[AsyncResult[Any]]:
        """``enqueue(requests)``, inside all hooks."""
        for around in self._enqueue:
            enqueue = partial(around, enqueue=enqueue)
        return enqueue(requests)


def _has(middleware: Middleware, hook: str) -> bool:
    return getattr(type(middleware), hook) is not getattr(Middleware, hook)


def _check(middleware: object) -> None:
    if not isinstance(middleware, Middleware):
        raise ConfigurationError(
            f"{middleware!r} is no middleware; add an instance of a subclass of "
            "taskharbor.Middleware"
        )
    if _has(middleware, "around_attempt") != _has(middleware, "around_attempt_async"):
        raise ConfigurationError(
            f"{type(middleware).__name__} overrides only one of around_attempt and "
            "around_attempt_async; sync tasks run through the first, async tasks through the "
            "second: override both"
        )
