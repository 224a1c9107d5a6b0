"""A task: a function that can also be run somewhere else, later."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial, update_wrapper
from itertools import islice
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, Self, TypeVar, Unpack, cast

from taskharbor import apps, codec
from taskharbor.codec.classes import main_module_name
from taskharbor.context import JobContext, await_as, current_job, detached, in_job, run_as
from taskharbor.control import Reject, Retry
from taskharbor.enqueue import enqueue_one
from taskharbor.errors import ConfigurationError, InvalidCall, InvalidJob
from taskharbor.message import Message, check_name
from taskharbor.options import CallOptions, TaskOptions, template, timestamp
from taskharbor.signature import Signature

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.canvas import Canvas
    from taskharbor.flow.builder import Group
    from taskharbor.result import AsyncResult

P = ParamSpec("P")
R = TypeVar("R")

_MAX_SHAPES = 256


class Task(Generic[P, R]):
    """One registered function with its options. Made by ``@app.task``.

    Calling it calls the function, here and now. ``R`` is what ``get()`` gives: for an async task
    what it returns when awaited.
    """

    is_async = False
    transactional = False

    def __init__(
        self,
        app: TaskHarbor,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        bind: bool = False,
        options: TaskOptions,
    ) -> None:
        update_wrapper(cast(Any, self), function)
        self.app = app
        self.name = default_name(function) if name is None else name
        check_name("task", self.name)
        self.function = function
        self.bind = bind
        self.options = options
        given = int(bind) + int(self.transactional)
        self.arguments = Arguments(self.name, function, skip=given)
        self.__signature__ = self.arguments.signature
        self.rebuild = codec.rebuilder(function, skip=given)
        self.call_options: CallOptions = {}
        self._prepare()

    def _prepare(self) -> None:
        self.invoke: Callable[..., Any] = (
            MethodType(self.function, self) if self.bind else self.function
        )
        self.template = template(self.name, self.options, self.call_options)
        self._key = self.call_options.get("idempotency_key")
        self._job_id = self.call_options.get("job_id")
        self.connection = self.call_options.get("connection")
        if self._job_id is not None:
            check_name("job id", self._job_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.app.name, self.name, self.call_options)

    def is_again(self, function: Callable[..., Any]) -> bool:
        """Whether ``function`` is this task's, defined again: its module was reloaded, or a
        notebook's cell."""
        return all(
            getattr(self.function, name, None) == getattr(function, name, None)
            for name in ("__module__", "__qualname__")
        )

    # --- enqueueing ---------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Enqueue a call.

        When it returns, the store has the job. Raises InvalidCall (a TypeError) for arguments that
        do not fit the signature, EncodeError (with the path) for one that can't travel,
        PayloadTooLarge, and StoreUnavailable when the store stays out of reach: whether the job
        is there is then unknown.
        """
        return enqueue_one(self, args, kwargs)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """``delay()`` for async code."""
        return await self.app.bridge.call(enqueue_one, self, args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Enqueue a call with options of its own; see :class:`CallOptions`. Raises like
        ``delay()``, and InvalidJob or ConfigurationError, naming the option."""
        task = self.using(**options) if options else self
        return enqueue_one(task, tuple(args), dict(kwargs or {}))

    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """``apply_async()`` for async code."""
        task = self.using(**options) if options else self
        return await self.app.bridge.call(enqueue_one, task, tuple(args), dict(kwargs or {}))

    def using(self, **options: Unpack[CallOptions]) -> Self:
        """This task with ``options`` for the calls made through what is returned."""
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other.call_options = {**self.call_options, **options}
        other._prepare()
        return other

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """This call written down, to be enqueued later. Its arguments may be partial."""
        return Signature(self, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """``s()`` for a call that takes nothing from its predecessor in a flow."""
        return Signature(self, args, kwargs, True)

    def map(self, items: Iterable[Any]) -> Signature[list[R]]:
        """One job that calls the function with each of ``items``, one after the other, and returns
        the list of what that gives."""
        from taskharbor.flow.tasks import each_call

        return each_call(self, items, star=False)

    def starmap(self, items: Iterable[Iterable[Any]]) -> Signature[list[R]]:
        """``map()`` with several arguments each: ``add.starmap([(1, 2), (3, 4)])``."""
        from taskharbor.flow.tasks import each_call

        return each_call(self, items, star=True)

    def chunks(self, items: Iterable[Iterable[Any]], size: int) -> Group[list[R]]:
        """``starmap()`` in a group of jobs, each with the next ``size`` of ``items``."""
        from taskharbor.flow.builder import Group

        if type(size) is not int or size < 1:
            raise InvalidCall(f"chunks of {size!r} can't be made; use a whole number from 1")
        rest = iter(items)
        parts = iter(lambda: list(islice(rest, size)), [])
        return Group((self.starmap(part) for part in parts), app=self.app)

    def message(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message:
        """The job that a call of this task is. Raises like ``delay()``, but for the store's."""
        self.arguments.check(args, kwargs)
        payload = codec.encode_call(args, kwargs, limit=self.options.max_payload_bytes)
        if self._key is None and self._job_id is None:
            return self.template.message(self.app.driver.new_job_id(None), payload)
        job_id = self._job_id or self.app.driver.new_job_id(self._key)
        return self.template.message(job_id, payload, _digest(self.name, payload))

    # --- inside a bound task --------------------------------------------------------------------

    @property
    def request(self) -> JobContext:
        """The current job, by the name that Celery gave it: ``self.request.id``."""
        return current_job()

    def retry(
        self,
        *,
        exc: BaseException | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        max_retries: int | None = None,
    ) -> NoReturn:
        """Raise :class:`Retry`, with Celery's names. After ``max_retries`` attempts before this
        one, raise ``exc``, or :class:`Reject` if there is none. Raises InvalidJob like
        ``apply_async()`` for an impossible ``countdown`` or ``eta``."""
        job = current_job()
        if max_retries is not None and job.retries >= max_retries:
            raise exc or Reject(f"it was to be retried {max_retries} times at most")
        message = "retry asked by the task" if exc is None else f"{type(exc).__name__}: {exc}"
        if eta is not None:
            if countdown is not None:
                raise InvalidJob("a retry has either a countdown or an eta; drop one of them")
            countdown = max(0.0, timestamp("eta", eta) - job.now())
        raise Retry(message, delay=countdown) from exc

    def replace(self, canvas: Canvas[Any]) -> NoReturn:
        """``current_job().replace()``, where Celery has it."""
        current_job().replace(canvas)


class SyncTask(Task[P, R]):
    """A task whose function is a plain one."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function. Outside of a job, ``current_job()`` is a detached one for it."""
        if in_job():
            result: R = self.invoke(*args, **kwargs)
        else:
            job = detached(self.name, self.options.queue)
            result = run_as(job, partial(self.invoke, *args, **kwargs))
        return result


class AsyncTask(Task[P, R]):
    """A task whose function is ``async def``."""

    is_async = True

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function; await what it returns. ``current_job()`` as for a sync task."""
        coroutine: Coroutine[Any, Any, R] = self.invoke(*args, **kwargs)
        if in_job():
            return coroutine
        return await_as(detached(self.name, self.options.queue), coroutine)


class Arguments:
    """Whether arguments fit a function.

    That depends only on how many are positional and which names are given: the answer for such a
    shape is found once by ``inspect`` and remembered.
    """

    __slots__ = ("_name", "_shapes", "signature")

    def __init__(self, name: str, function: Callable[..., Any], *, skip: int) -> None:
        self._name = name
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        first = parameters[:skip]
        if len(first) < skip or any(parameter.kind not in _POSITIONAL for parameter in first):
            raise ConfigurationError(
                f"{name} must begin with {skip} parameter{'s' * (skip > 1)} that no caller gives: "
                "self, the task, for bind=True; connection for transactional=True"
            )
        self.signature = signature.replace(parameters=parameters[skip:])
        self._shapes: set[tuple[Any, ...]] = set()

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises InvalidCall."""
        shape = (len(args), *kwargs)
        if shape in self._shapes:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidCall(f"{self._name}{self.signature}: {error}") from None
        # A function with **kwargs has any number of shapes.
        if len(self._shapes) < _MAX_SHAPES:
            self._shapes.add(shape)


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def kind_of_task(function: Any) -> type[Task[..., Any]]:
    """SyncTask or AsyncTask. Raises ConfigurationError for what can't be a task."""
    if not callable(function) or isinstance(function, type | Task):
        raise ConfigurationError(f"{function!r} can't be a task; decorate a function")
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(
            f"{function!r} can't be a task: it yields, and a generator can't travel; return a list"
        )
    return AsyncTask if inspect.iscoroutinefunction(called) else SyncTask


def default_name(function: Callable[..., Any]) -> str:
    """``package.module.function``, the same in the process that enqueues and the one that runs."""
    module = getattr(function, "__module__", None) or ""
    if module == "__main__":
        module = main_module_name()
    name = getattr(function, "__qualname__", "").replace("<locals>.", "")
    if not name or name.endswith("<lambda>"):
        raise ConfigurationError(f"{function!r} has no name of its own; give it one: name='...'")
    return f"{module}.{name}"


def _unpickle(app_name: str, name: str, options: CallOptions) -> Task[..., Any]:
    app = apps.find(app_name)
    try:
        task = app.tasks[name]
    except KeyError:
        raise ConfigurationError(
            f"the app {app_name!r} has no task {name!r} here; import the module that defines it"
        ) from None
    return task.using(**options) if options else task


def _digest(task: str, payload: bytes) -> bytes:
    from hashlib import blake2b

    return blake2b(task.encode() + b"\0" + payload, digest_size=16).digest()
