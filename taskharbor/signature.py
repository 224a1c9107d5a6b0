"""A call written down and not made yet: what ``task.s(...)`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from taskharbor.options import CallOptions

if TYPE_CHECKING:
    from taskharbor.result import AsyncResult
    from taskharbor.task import Task

R = TypeVar("R")


class Signature(Generic[R]):
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
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.immutable = immutable

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
        )

    __hash__ = None  # type: ignore[assignment]  # it holds whatever was passed

    def set(self, **options: Unpack[CallOptions]) -> Signature[R]:
        """The same call with ``options`` laid over its own."""
        return Signature(self.task.using(**options), self.args, self.kwargs, self.immutable)

    def clone(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A copy with ``args`` put before its own and ``kwargs`` laid over its own."""
        if self.immutable:
            return Signature(self.task, self.args, self.kwargs, True)
        return Signature(self.task, (*args, *self.args), {**self.kwargs, **kwargs})

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Enqueue it, with ``args`` before its own. Raises like :meth:`Task.delay`."""
        call = self.clone(*args, **kwargs)
        return call.task.apply_async(call.args, call.kwargs)

    def apply_async(self, **options: Unpack[CallOptions]) -> AsyncResult[R]:
        return self.task.apply_async(self.args, self.kwargs, **options)
