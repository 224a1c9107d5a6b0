"""The app: a store, the tasks that run on it, and what surrounds them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from taskharbor import apps, defaults
from taskharbor.backoff import Backoff
from taskharbor.bridge import Bridge
from taskharbor.canvas import NO_TIES
from taskharbor.enqueue import batches, enqueue, enqueue_one
from taskharbor.errors import ConfigurationError
from taskharbor.middleware import Middleware, Stack
from taskharbor.options import DECORATOR_OPTIONS, OPTION_NAMES, ExceptionTypes, TaskOptions, over
from taskharbor.result import AsyncResult
from taskharbor.signals import Signals
from taskharbor.signature import Signature
from taskharbor.task import AsyncTask, SyncTask, Task, kind_of_task
from taskharbor.transactional import TransactionalTask, as_transactional

if TYPE_CHECKING:
    from taskharbor.drivers.base import InspectableDriver
    from taskharbor.flow.composed import Composed
    from taskharbor.flow.result import FlowResult

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[[], object])


class TaskDecorator(Protocol):
    """What ``@app.task(...)`` does to a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is the first kind
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class BoundTaskDecorator(Protocol):
    """What ``@app.task(bind=True)`` does: the first parameter is no part of a call."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> SyncTask[P, R]: ...


class TransactionalTaskDecorator(Protocol):
    """What ``@app.task(transactional=True)`` does: the first parameter, the connection, is no part
    of a call."""

    def __call__(
        self, function: Callable[Concatenate[Any, P], R], /
    ) -> TransactionalTask[P, R]: ...


class BoundTransactionalTaskDecorator(Protocol):
    """With ``bind=True`` as well: the task itself, then the connection."""

    def __call__(
        self, function: Callable[Concatenate[Any, Any, P], R], /
    ) -> TransactionalTask[P, R]: ...


class TaskHarbor:
    """Register tasks here, enqueue them, and name it to ``taskharbor worker -A module:app``.

    ``url``: the store; TASKHARBOR_URL if it is None, else ``sqlite:///taskharbor.db``. Nothing is
    opened before it is needed, and a forked child opens its own. ``name`` tells apps apart where
    results are pickled. Further options are those of :class:`TaskOptions`, as defaults for every
    task. Raises ConfigurationError and InvalidJob.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "taskharbor",
        middleware: Iterable[Middleware] = (),
        **task_defaults: Any,
    ) -> None:
        self.url = url or os.environ.get("TASKHARBOR_URL") or defaults.URL
        self.name = name
        self.tasks: dict[str, Task[..., Any]] = {}
        self.own_tasks: dict[str, Task[..., Any]] = {}
        self.signals = Signals()
        self.middleware: tuple[Middleware, ...] = ()
        self.stack = Stack()
        self.child_start_hooks: list[Callable[[], object]] = []
        self.task_defaults = over(TaskOptions(), task_defaults, {})
        self._lock = threading.Lock()
        self._driver: InspectableDriver | None = None
        self.bridge = Bridge()
        for each in middleware:
            self.add_middleware(each)
        apps.register(self)

    def __repr__(self) -> str:
        return f"<TaskHarbor {self.name}: {len(self.tasks)} tasks>"

    # --- tasks --------------------------------------------------------------------------------

    # Every option four times: with Unpack[TypedDict] there would be no **extras, which middleware
    # may declare, and what the decorator returns depends on two of them.
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(
        self,
        *,
        transactional: Literal[True],
        bind: Literal[False] = ...,
        name: str | None = None,
        queue: str = ...,
        priority: int = ...,
        max_attempts: int = ...,
        backoff: Backoff = ...,
        timeout: float | None = ...,
        max_losses: int = ...,
        unknown_task_seconds: float = ...,
        retry_on: ExceptionTypes | None = ...,
        no_retry_on: ExceptionTypes = ...,
        expires: float | None = ...,
        store_result: bool = ...,
        keep_succeeded: float = ...,
        keep_cancelled: float = ...,
        keep_dead: float = ...,
        settle: Literal["batch", "each"] = ...,
        max_payload_bytes: int = ...,
        max_result_bytes: int = ...,
        **extras: Any,
    ) -> TransactionalTaskDecorator: ...
    @overload
    def task(
        self,
        *,
        transactional: Literal[True],
        bind: Literal[True],
        name: str | None = None,
        queue: str = ...,
        priority: int = ...,
        max_attempts: int = ...,
        backoff: Backoff = ...,
        timeout: float | None = ...,
        max_losses: int = ...,
        unknown_task_seconds: float = ...,
        retry_on: ExceptionTypes | None = ...,
        no_retry_on: ExceptionTypes = ...,
        expires: float | None = ...,
        store_result: bool = ...,
        keep_succeeded: float = ...,
        keep_cancelled: float = ...,
        keep_dead: float = ...,
        settle: Literal["batch", "each"] = ...,
        max_payload_bytes: int = ...,
        max_result_bytes: int = ...,
        **extras: Any,
    ) -> BoundTransactionalTaskDecorator: ...
    @overload
    def task(
        self,
        *,
        bind: Literal[True],
        transactional: Literal[False] = ...,
        name: str | None = None,
        queue: str = ...,
        priority: int = ...,
        max_attempts: int = ...,
        backoff: Backoff = ...,
        timeout: float | None = ...,
        max_losses: int = ...,
        unknown_task_seconds: float = ...,
        retry_on: ExceptionTypes | None = ...,
        no_retry_on: ExceptionTypes = ...,
        expires: float | None = ...,
        store_result: bool = ...,
        keep_succeeded: float = ...,
        keep_cancelled: float = ...,
        keep_dead: float = ...,
        settle: Literal["batch", "each"] = ...,
        max_payload_bytes: int = ...,
        max_result_bytes: int = ...,
        **extras: Any,
    ) -> BoundTaskDecorator: ...
    @overload
    def task(
        self,
        *,
        bind: Literal[False] = ...,
        transactional: Literal[False] = ...,
        name: str | None = None,
        queue: str = ...,
        priority: int = ...,
        max_attempts: int = ...,
        backoff: Backoff = ...,
        timeout: float | None = ...,
        max_losses: int = ...,
        unknown_task_seconds: float = ...,
        retry_on: ExceptionTypes | None = ...,
        no_retry_on: ExceptionTypes = ...,
        expires: float | None = ...,
        store_result: bool = ...,
        keep_succeeded: float = ...,
        keep_cancelled: float = ...,
        keep_dead: float = ...,
        settle: Literal["batch", "each"] = ...,
        max_payload_bytes: int = ...,
        max_result_bytes: int = ...,
        **extras: Any,
    ) -> TaskDecorator: ...

    def task(self, *functions: Callable[..., Any], **options: Any) -> Any:
        """Make a function a task of this app: ``@app.task`` or ``@app.task(queue="mail", ...)``.

        ``bind``: the function's first parameter is the task. ``transactional``: the next one is an
        open transaction of the store, in which the job is settled too; see
        :class:`TransactionalTask`. ``name``: instead of ``module.function``. The others are those
        of :class:`TaskOptions`, and what middleware declares. Raises ConfigurationError for an
        option that nobody declares and a name that is taken, InvalidJob for a value out of its
        range.
        """
        if functions:
            (function,) = functions
            return self._register(function, **options)
        self._options(options)  # a wrong option is an error of this line, not of the next

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            return self._register(function, **options)

        return decorate

    def _register(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        bind: bool = False,
        transactional: bool = False,
        **options: Any,
    ) -> Task[..., Any]:
        kind = kind_of_task(function)
        if transactional:
            kind = as_transactional(kind)
        task = kind(self, function, name=name, bind=bind, options=self._options(options))
        known = self.tasks.get(task.name)
        if known is not None and not known.is_again(function):
            raise ConfigurationError(
                f"there are two tasks named {task.name!r}, {known.function!r} and {function!r}; "
                "give one of them another name=''"
            )
        self.tasks[task.name] = task
        return task

    def _options(self, options: Mapping[str, Any]) -> TaskOptions:
        declared = {key: value for each in self.middleware for key, value in each.options.items()}
        given = {key: value for key, value in options.items() if key not in DECORATOR_OPTIONS}
        return over(self.task_defaults, given, declared)

    def own_options(self) -> TaskOptions:
        """The options of tasks that nobody declares: those that flows are glued with."""
        return self._options({})

    def add_middleware(self, middleware: Middleware) -> None:
        """Put ``middleware`` inside of what is there. Before the tasks that use its options are
        made. Raises ConfigurationError."""
        for option in getattr(middleware, "options", ()):
            taken = next((each for each in self.middleware if option in each.options), None)
            if option in OPTION_NAMES or taken is not None:
                raise ConfigurationError(
                    f"{type(middleware).__name__} declares the task option {option!r}, which "
                    f"{'TaskHarbor' if taken is None else type(taken).__name__} has already"
                )
        self.stack = Stack((*self.middleware, middleware))
        self.middleware = (*self.middleware, middleware)

    # --- enqueueing and results -----------------------------------------------------------------

    @overload
    def send(self, call: Signature[R]) -> AsyncResult[R]: ...
    @overload
    def send(self, call: Composed[R]) -> FlowResult[R]: ...
    def send(self, call: Signature[Any] | Composed[Any]) -> AsyncResult[Any] | FlowResult[Any]:
        """Enqueue one call, or store a flow. Raises like :meth:`Task.delay`."""
        if type(call) is Signature and call.ties is NO_TIES:
            return enqueue_one(call.task, call.args, call.kwargs)
        from taskharbor.flow.storing import send_tied, store_flow

        if isinstance(call, Signature):
            return send_tied(self, call)
        return store_flow(self, call, {})

    def enqueue_many(
        self, calls: Iterable[Signature[R]], *, connection: Any = None
    ) -> list[AsyncResult[R]]:
        """Enqueue calls, one round trip per ``defaults.BATCH``; the results in their order.

        Each batch is stored whole or not at all. Raises like :meth:`Task.delay`; what batches
        before that one stored stays, and a note on the error says how many jobs those are.
        """
        results: list[AsyncResult[R]] = []
        for batch in batches(calls):
            try:
                results += enqueue(self, batch, connection)
            except Exception as error:
                if results:
                    error.add_note(f"The {len(results)} jobs before this batch are enqueued.")
                raise
        return results

    async def aenqueue_many(
        self, calls: Iterable[Signature[R]], *, connection: Any = None
    ) -> list[AsyncResult[R]]:
        """``enqueue_many()`` for async code."""
        return await self.bridge.call(self.enqueue_many, calls, connection=connection)

    def result(self, job_id: str) -> AsyncResult[Any]:
        """The result of a job known by its id. Asks the store nothing yet."""
        return AsyncResult(job_id, self)

    def flow(self, flow_id: str) -> FlowResult[Any]:
        """The result of a flow known by its id. Asks the store nothing yet."""
        from taskharbor.flow.result import FlowResult

        return FlowResult(flow_id, self)

    # --- the process ------------------------------------------------------------------------------

    def child_start(self, hook: F) -> F:
        """Decorator: call ``hook()`` in every worker child after its fork, before its first job."""
        self.child_start_hooks.append(hook)
        return hook

    @property
    def driver(self) -> InspectableDriver:
        """The store, connected when first needed. Raises like ``registry.connect``."""
        driver = self._driver
        return self._connect() if driver is None else driver

    def _connect(self) -> InspectableDriver:
        from taskharbor.drivers.registry import connect

        with self._lock:
            if self._driver is None:
                self._driver = connect(self.url)
            return self._driver

    @contextmanager
    def connected_to(self, driver: InspectableDriver) -> Iterator[None]:
        """Meanwhile, this app uses ``driver``, made by hand: with a clock to turn, for example.

        For all threads. The driver is not closed; the app's own connection stays as it was.
        """
        with self._lock:
            before, self._driver = self._driver, driver
        try:
            yield
        finally:
            with self._lock:
                self._driver = before

    def close(self) -> None:
        """Give up the connection and threads. The next use opens them again."""
        self.bridge.close()
        with self._lock:
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    def forked(self) -> None:
        """Start anew in a forked child: a lock may be held for ever, threads are gone, and the
        connection is the parent's."""
        if self._driver is not None:
            apps.abandon(self._driver)
        self._driver = None
        self._lock = threading.Lock()
        self.bridge = Bridge()
