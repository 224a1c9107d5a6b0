"""Chains, groups and chords: the words that most flows need. For others see ``flow.graph``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, cast, overload

from taskharbor.canvas import NO_TIES, Canvas, Ties, check_part, depth_above
from taskharbor.errors import InvalidCall
from taskharbor.flow.composed import Composed, FlowOptions
from taskharbor.options import CallOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskharbor.app import TaskHarbor
    from taskharbor.flow.result import FlowResult, GroupResult

R = TypeVar("R")
C = TypeVar("C", bound=Canvas[Any])

_FOR_THE_FIRST = frozenset({"countdown", "eta"})
"""Options that are for the jobs that a flow begins with, not for all."""

_LATER: Any = object()
"""In the place of a chord's body: None there is a mistake, and no chord without one."""


class Chain(Composed[R]):
    """One step after the other, each with what the one before it has returned as its first
    argument. A group before a step is a chord's header."""

    __slots__ = ("steps",)

    def __init__(self, steps: Iterable[Canvas[Any]], ties: Ties = NO_TIES) -> None:
        self.steps = tuple(steps)
        self.ties = ties
        _check("a chain", self.steps)
        if not self.steps:
            raise InvalidCall("a chain needs at least one step")
        self.depth = depth_above(self.steps, ties)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.steps))

    @staticmethod
    def steps_of(canvas: Canvas[Any]) -> tuple[Canvas[Any], ...]:
        """What ``canvas`` adds to a chain: its own steps, if nothing hangs on it as a whole."""
        if isinstance(canvas, Chain) and canvas.ties == NO_TIES:
            return canvas.steps
        return (canvas,)

    def tied(self, ties: Ties) -> Self:
        return type(self)(self.steps, ties)

    def parts(self) -> tuple[Canvas[Any], ...]:
        return self.steps

    def clone(self, *args: Any, **kwargs: Any) -> Self:
        first, *rest = self.steps
        return type(self)((first.clone(*args, **kwargs), *rest), self.ties)

    def set(self, **options: Unpack[CallOptions]) -> Self:
        first, *rest = self.steps
        later = later_options(options)
        return type(self)((first.set(**options), *(step.set(**later) for step in rest)), self.ties)

    def app_of(self) -> TaskHarbor | None:
        return app_of(self.parts())


class Group(Composed[list[R]], Generic[R]):
    """Any number of parts side by side. Its value is the list of theirs, in their order; that of
    a group directly inside of a group is not a list of its own: its members are this one's.
    ``app``: where it belongs if it is empty and that is known."""

    __slots__ = ("app", "members")

    def __init__(
        self,
        members: Iterable[Canvas[Any]],
        ties: Ties = NO_TIES,
        app: TaskHarbor | None = None,
    ) -> None:
        self.members = tuple(members)
        self.ties = ties
        self.app = app
        _check("a group", self.members)
        self.depth = depth_above(self.members, ties)

    def __repr__(self) -> str:
        return f"group({', '.join(map(repr, self.members))})"

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Canvas[Any]]:
        return iter(self.members)

    def tied(self, ties: Ties) -> Self:
        return type(self)(self.members, ties, self.app)

    def parts(self) -> tuple[Canvas[Any], ...]:
        return self.members

    def clone(self, *args: Any, **kwargs: Any) -> Self:
        members = (member.clone(*args, **kwargs) for member in self.members)
        return type(self)(members, self.ties, self.app)

    def set(self, **options: Unpack[CallOptions]) -> Self:
        members = (member.set(**options) for member in self.members)
        return type(self)(members, self.ties, self.app)

    def app_of(self) -> TaskHarbor | None:
        return app_of(self.members) or self.app

    if TYPE_CHECKING:
        # The same methods; what they return is known to be a list's.
        def delay(self, *args: Any, **kwargs: Any) -> GroupResult[R]: ...
        def __call__(self, *args: Any, **kwargs: Any) -> GroupResult[R]: ...
        async def adelay(self, *args: Any, **kwargs: Any) -> GroupResult[R]: ...
        def apply_async(
            self,
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
            **options: Unpack[FlowOptions],
        ) -> GroupResult[R]: ...
        async def aapply_async(
            self,
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
            **options: Unpack[FlowOptions],
        ) -> GroupResult[R]: ...


class Chord(Composed[R]):
    """``body``, with the list of what the members of ``header`` have returned, once all have."""

    __slots__ = ("body", "header")

    def __init__(self, header: Group[Any], body: Canvas[R], ties: Ties = NO_TIES) -> None:
        self.header = header
        self.body = body
        self.ties = ties
        _check("a chord", (header, body))
        self.depth = depth_above((header, body), ties)

    def __repr__(self) -> str:
        return f"chord({self.header!r}, {self.body!r})"

    def tied(self, ties: Ties) -> Self:
        return type(self)(self.header, self.body, ties)

    def parts(self) -> tuple[Canvas[Any], ...]:
        return self.header, self.body

    def clone(self, *args: Any, **kwargs: Any) -> Self:
        return type(self)(self.header.clone(*args, **kwargs), self.body, self.ties)

    def set(self, **options: Unpack[CallOptions]) -> Self:
        body = self.body.set(**later_options(options))
        return type(self)(self.header.set(**options), body, self.ties)

    def app_of(self) -> TaskHarbor | None:
        return app_of(self.parts())


class Header:
    """A chord without its body: call it with one to store the chord."""

    def __init__(self, members: Group[Any]) -> None:
        self._members = members

    def __call__(self, body: Canvas[R]) -> FlowResult[R]:
        return Chord(self._members, body).delay()


# --- how users say it -------------------------------------------------------------------------


@overload
def chain(step: C, /) -> C: ...
@overload
def chain(first: Canvas[Any], last: Canvas[R], /) -> Chain[R]: ...
@overload
def chain(first: Canvas[Any], second: Canvas[Any], last: Canvas[R], /) -> Chain[R]: ...
@overload
def chain(
    first: Canvas[Any], second: Canvas[Any], third: Canvas[Any], last: Canvas[R], /
) -> Chain[R]: ...
@overload
def chain(
    first: Canvas[Any],
    second: Canvas[Any],
    third: Canvas[Any],
    fourth: Canvas[Any],
    fifth: Canvas[Any],
    /,
    *more: Canvas[Any],
) -> Chain[Any]: ...
@overload
def chain(steps: Iterable[Canvas[Any]], /) -> Chain[Any]: ...
def chain(*steps: Any) -> Canvas[Any]:
    """One step after the other: ``chain(fetch.s(7), parse.s(), store.s())``, or an iterable of
    steps. A chain of one step is that step. Raises InvalidCall."""
    listed = _listed(steps)
    _check("a chain", listed)
    if len(listed) == 1:
        return listed[0]
    return Chain(each for step in listed for each in Chain.steps_of(step))


@overload
def group(*members: Canvas[R]) -> Group[R]: ...
@overload
def group(members: Iterable[Canvas[R]], /) -> Group[R]: ...
def group(*members: Any) -> Group[Any]:
    """Side by side: ``group(resize.s(p) for p in paths)``; or the members as arguments. Raises
    InvalidCall."""
    return Group(_listed(members))


@overload
def chord(header: Group[Any] | Iterable[Canvas[Any]], /) -> Header: ...
@overload
def chord(header: Group[Any] | Iterable[Canvas[Any]], /, body: Canvas[R]) -> Chord[R]: ...
def chord(header: Any, /, body: Canvas[Any] = _LATER) -> Any:
    """A group and what is called with the list of its results: ``chord(header, body)``, the same
    as ``group(header) | body``; or ``chord(header)(body)``, which stores it. Raises InvalidCall."""
    members = header if isinstance(header, Group) else Group(_listed((header,)))
    return Header(members) if body is _LATER else Chord(members, body)


def _listed(parts: tuple[Any, ...]) -> list[Canvas[Any]]:
    if len(parts) != 1 or isinstance(parts[0], Canvas | str) or not isinstance(parts[0], Iterable):
        return list(parts)
    return list(parts[0])


def _check(what: str, parts: Iterable[object]) -> None:
    for part in parts:
        check_part(what, part)


def app_of(parts: Iterable[Canvas[Any]]) -> TaskHarbor | None:
    return next((app for part in parts if (app := part.app_of()) is not None), None)


def later_options(options: CallOptions) -> CallOptions:
    return cast(
        CallOptions, {key: value for key, value in options.items() if key not in _FOR_THE_FIRST}
    )
