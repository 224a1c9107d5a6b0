"""A call written down and not made yet: what ``task.s(...)`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from taskharbor.canvas import NO_TIES, Canvas, Ties, depth_above
from taskharbor.options import CallOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskharbor.app import TaskHarbor
    from taskharbor.result import AsyncResult
    from taskharbor.task import Task

R = TypeVar("R")


class Signature(Canvas[R]):
    """A task, arguments for it, and the options to enqueue it with. Never changed once made.

    Arguments may be partial: they are checked when the call is enqueued. ``immutable`` (from
    ``.si()``): takes nothing from a predecessor in a flow.
    """

    __slots__ = ("args", "immutable", "kwargs", "task")

    def __init__(
        self,
        task: Task[..., R],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        immutable: bool = False,
        ties: Ties = NO_TIES,
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.immutable = immutable
        self.ties = ties
        self.depth = 0 if ties is NO_TIES else depth_above((), ties)

    def __repr__(self) -> str:
        shown = [
            *map(repr, self.args),
            *(f"{name}={value!r}" for name, value in self.kwargs.items()),
        ]
        return f"{self.task.name}.{'si' if self.immutable else 's'}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not Signature:
            return NotImplemented
        return (
            self.task.name == other.task.name
            and self.task.call_options == other.task.call_options
            and self.args == other.args
            and self.kwargs == other.kwargs
            and self.immutable == other.immutable
            and self.ties == other.ties
        )

    __hash__ = None  # type: ignore[assignment]  # it holds whatever was passed

    def tied(self, ties: Ties) -> Self:
        return type(self)(self.task, self.args, self.kwargs, self.immutable, ties)

    def parts(self) -> tuple[()]:
        return ()

    def set(self, **options: Unpack[CallOptions]) -> Self:
        """The same call with ``options`` laid over its own."""
        task = self.task.using(**options)
        return type(self)(task, self.args, self.kwargs, self.immutable, self.ties)

    def clone(self, *args: Any, **kwargs: Any) -> Self:
        """A copy with ``args`` put before its own and ``kwargs`` laid over its own."""
        if self.immutable:
            return type(self)(self.task, self.args, self.kwargs, True, self.ties)
        merged = {**self.kwargs, **kwargs}
        return type(self)(self.task, (*args, *self.args), merged, False, self.ties)

    def app_of(self) -> TaskHarbor:
        return self.task.app

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Enqueue it, with ``args`` before its own. Raises like :meth:`Task.delay`."""
        return self.task.app.send(self.clone(*args, **kwargs))

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """``delay()`` with options of its own; see :class:`CallOptions`."""
        call = self.clone(*args, **(kwargs or {}))
        return self.task.app.send(call.set(**options) if options else call)

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """``delay()`` for async code."""
        app = self.task.app
        return await app.bridge.call(app.send, self.clone(*args, **kwargs))
