"""Tasks that every app has without being asked: what flows are glued together with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from taskharbor.errors import ConfigurationError, InvalidCall
from taskharbor.flow.gathered import Gathered
from taskharbor.signature import Signature
from taskharbor.wiring import runs

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.task import Task

JOIN = "taskharbor.join"


class _Own(NamedTuple):
    """A task over another one, which is called for each of ``items`` in one job."""

    function: Callable[..., Any]
    star: bool


def find(app: TaskHarbor, name: str) -> Task[..., Any] | None:
    """The task ``name`` of ``app``, or the one of this module's by that name."""
    task = app.tasks.get(name)
    return task if task is not None else _own_tasks(app).get(name)


def join_call(
    app: TaskHarbor, near: Signature[Any] | None, count: int, allowed: Iterable[int]
) -> Signature[Any]:
    """A join of ``count`` values; see ``flow.compiler``. It is run by whoever runs ``near``."""
    task = _own_tasks(app)[JOIN]
    if near is not None:
        options, given = near.task.options, near.task.call_options
        queue = given.get("queue", options.queue)
        task = _routed(app, task, queue, given.get("priority", options.priority))
    return Signature(task, (count, [list(run) for run in runs(allowed)]), {}, True)


def each_call(task: Task[..., Any], items: Iterable[Any], *, star: bool) -> Signature[Any]:
    """One job that calls ``task`` for every item, in order, with the options of ``task``. Raises
    InvalidCall for an item that ``star`` can't take apart, ConfigurationError."""
    if task.transactional:
        raise ConfigurationError(
            f"{task.name} is transactional, and each job of it has a transaction of its own; make "
            "a group of its calls"
        )
    name = "taskharbor." + ("a" if task.is_async else "") + ("starmap" if star else "map")
    listed = [_arguments(task, item) for item in items] if star else list(items)
    own = _own_tasks(task.app)[name]
    other = type(own)(task.app, own.function, name=name, options=task.options)
    return Signature(other.using(**task.call_options), (task.name, listed), {}, True)


def _arguments(task: Task[..., Any], item: Any) -> tuple[Any, ...]:
    try:
        arguments = iter(item)
    except TypeError:
        raise InvalidCall(
            f"{item!r} is not the arguments of a call of {task.name}; give a tuple for each call, "
            "or use map()"
        ) from None
    return tuple(arguments)


def _own_tasks(app: TaskHarbor) -> dict[str, Task[..., Any]]:
    if not app.own_tasks:
        app.own_tasks = _make(app)
    return app.own_tasks


def _make(app: TaskHarbor) -> dict[str, Task[..., Any]]:
    from taskharbor.task import AsyncTask, SyncTask

    def join(count: int, allowed: list[list[int]]) -> Gathered:
        return Gathered(count, tuple((first, last) for first, last in allowed))

    def call_each(name: str, items: list[Any]) -> list[Any]:
        task = _named(app, name)
        return [task.invoke(item) for item in items]

    def star_each(name: str, items: list[Any]) -> list[Any]:
        task = _named(app, name)
        return [task.invoke(*item) for item in items]

    async def await_each(name: str, items: list[Any]) -> list[Any]:
        task = _named(app, name)
        return [await task.invoke(item) for item in items]

    async def await_star_each(name: str, items: list[Any]) -> list[Any]:
        task = _named(app, name)
        return [await task.invoke(*item) for item in items]

    options = app.own_options()
    return {
        JOIN: SyncTask(app, join, name=JOIN, options=options),
        "taskharbor.map": SyncTask(app, call_each, name="taskharbor.map", options=options),
        "taskharbor.starmap": SyncTask(app, star_each, name="taskharbor.starmap", options=options),
        "taskharbor.amap": AsyncTask(app, await_each, name="taskharbor.amap", options=options),
        "taskharbor.astarmap": AsyncTask(
            app, await_star_each, name="taskharbor.astarmap", options=options
        ),
    }


def _named(app: TaskHarbor, name: str) -> Task[..., Any]:
    try:
        return app.tasks[name]
    except KeyError:
        raise ConfigurationError(
            f"this worker's app {app.name!r} has no task {name!r}; deploy the code that has it"
        ) from None


def _routed(app: TaskHarbor, join: Task[..., Any], queue: str, priority: int) -> Task[..., Any]:
    """The join for that line, made once."""
    key = f"{JOIN} {queue} {priority}"
    if key not in app.own_tasks:
        app.own_tasks[key] = join.using(queue=queue, priority=priority)
    return app.own_tasks[key]
